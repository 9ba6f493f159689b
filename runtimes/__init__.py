"""Run exported models in an app: ``runtimes.open`` takes arrays, ``runtimes.Classifier.open`` takes images.

``import runtimes`` imports nothing else, not even NumPy. Each public name is imported from its module on first use.
Opening an artifact needs NumPy and the library of one backend.

Example:
    Classify one image:

        import runtimes

        with runtimes.Classifier.open("resnet20.onnx") as classifier:
            print(classifier.predict("shoe.png")[0].label)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.artifacts.artifact import Artifact
    from runtimes.artifacts.manifest import Manifest
    from runtimes.backends.registry import available_backends
    from runtimes.class_outputs import Label, Prediction
    from runtimes.classifier import Classifier
    from runtimes.errors import RexportError
    from runtimes.images.spec import Preprocessing
    from runtimes.opening import open, open_artifact, profile
    from runtimes.protocol import Backend, Description, Layer
    from runtimes.runtime import Runtime
    from runtimes.tensors.device_output import DeviceOutput
    from runtimes.tensors.spec import TensorSpec

__all__ = [
    "Artifact",
    "Backend",
    "Classifier",
    "Description",
    "DeviceOutput",
    "Label",
    "Layer",
    "Manifest",
    "Prediction",
    "Preprocessing",
    "RexportError",
    "Runtime",
    "TensorSpec",
    "available_backends",
    "open",
    "open_artifact",
    "profile",
]

_MODULES = {
    "Artifact": "artifacts.artifact",
    "Backend": "protocol",
    "Classifier": "classifier",
    "Description": "protocol",
    "DeviceOutput": "tensors.device_output",
    "Label": "class_outputs",
    "Layer": "protocol",
    "Manifest": "artifacts.manifest",
    "Prediction": "class_outputs",
    "Preprocessing": "images.spec",
    "RexportError": "errors",
    "Runtime": "runtime",
    "TensorSpec": "tensors.spec",
    "available_backends": "backends.registry",
    "open": "opening",
    "open_artifact": "opening",
    "profile": "opening",
}
"""The module of this package that defines each name of ``__all__``."""


def __getattr__(name: str) -> object:
    """Import a public name on first use and keep it in this module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List all public names, including those not imported yet."""
    return sorted({*globals(), *__all__})
