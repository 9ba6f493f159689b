"""Embed a model in an app: ``runtimes.open(path)`` for arrays, ``runtimes.Classifier.open(path)`` for images.

Importing this imports nothing else, not even NumPy: a name is imported from its module when it is first used. Opening
an artifact needs NumPy and one backend's library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.artifacts.artifact import Artifact
    from runtimes.artifacts.manifest import Manifest
    from runtimes.backends.registry import available_backends
    from runtimes.classifier import Classifier, Label, Prediction
    from runtimes.errors import RexportError
    from runtimes.images.spec import Preprocessing
    from runtimes.opening import open, open_artifact, profile
    from runtimes.protocol import Backend, Description, Layer
    from runtimes.runtime import Runtime
    from runtimes.tensors.spec import TensorSpec

__all__ = [
    "Artifact",
    "Backend",
    "Classifier",
    "Description",
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
    "Label": "classifier",
    "Layer": "protocol",
    "Manifest": "artifacts.manifest",
    "Prediction": "classifier",
    "Preprocessing": "images.spec",
    "RexportError": "errors",
    "Runtime": "runtime",
    "TensorSpec": "tensors.spec",
    "available_backends": "backends.registry",
    "open": "opening",
    "open_artifact": "opening",
    "profile": "opening",
}
"""Where each name of ``__all__`` comes from: a module of this package."""


def __getattr__(name: str) -> object:
    """The public name, which stays here from its first use on."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
