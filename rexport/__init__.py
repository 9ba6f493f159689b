"""Export residual networks, run the exported files, and measure them, from Python.

Examples:
    >>> import rexport
    >>> artifact = rexport.export("resnet20", "resnet20.onnx", weights="bundled")
    >>> with rexport.Classifier.open("resnet20.onnx") as classifier:
    ...     print(classifier.predict("shoe.jpg")[0].label)
    >>> report = rexport.benchmark("resnet20.onnx", processes=1, duration=0.1)
    >>> print(report.verdict)
    >>> report.save("report.html")

Every error that rexport raises on purpose is a ``RexportError``. The import of this module loads nothing: a name is
imported from its module when it is first used. ``open`` and ``Classifier`` need NumPy and one backend's library;
``export`` needs PyTorch.

If a folder of your own is called ``runtimes``, ``exporter`` or ``benchmarks`` and comes first on ``sys.path``, the
first use of a name that needs rexport's package raises ``ImportError``, which names your folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.analysis.figures import Figures
    from exporter.models.variants import Variant
    from rexport.benchmarking import BenchmarkInterrupt, benchmark
    from rexport.exporting import export, variants
    from rexport.progress import Progress
    from rexport.report import Report
    from runtimes.artifacts.artifact import Artifact
    from runtimes.artifacts.manifest import Manifest
    from runtimes.backends.registry import available_backends
    from runtimes.class_outputs import Label, Prediction
    from runtimes.classifier import Classifier
    from runtimes.errors import (
        ArtifactError,
        BackendUnavailableError,
        CheckFailedError,
        CompatibilityError,
        DeviceLostError,
        InputError,
        IntegrityError,
        ModelMismatchError,
        ResourceError,
        RexportError,
        UnsafeArtifactError,
        UsageError,
    )
    from runtimes.images.spec import Preprocessing
    from runtimes.opening import open
    from runtimes.protocol import Backend
    from runtimes.runtime import Runtime
    from runtimes.tensors.spec import TensorSpec

    __version__: str

__all__ = [
    "Artifact",
    "ArtifactError",
    "Backend",
    "BackendUnavailableError",
    "BenchmarkInterrupt",
    "CheckFailedError",
    "Classifier",
    "CompatibilityError",
    "DeviceLostError",
    "Figures",
    "InputError",
    "IntegrityError",
    "Label",
    "Manifest",
    "ModelMismatchError",
    "Prediction",
    "Preprocessing",
    "Progress",
    "Report",
    "ResourceError",
    "RexportError",
    "Runtime",
    "TensorSpec",
    "UnsafeArtifactError",
    "UsageError",
    "Variant",
    "__version__",
    "available_backends",
    "benchmark",
    "export",
    "open",
    "variants",
]

_ERRORS = (
    "ArtifactError", "BackendUnavailableError", "CheckFailedError", "CompatibilityError", "DeviceLostError",
    "InputError", "IntegrityError", "ModelMismatchError", "ResourceError", "RexportError", "UnsafeArtifactError",
    "UsageError",
)  # fmt: skip

_MODULES = {
    **dict.fromkeys(_ERRORS, "runtimes.errors"),
    "Artifact": "runtimes.artifacts.artifact",
    "Backend": "runtimes.protocol",
    "BenchmarkInterrupt": "rexport.benchmarking",
    "Classifier": "runtimes.classifier",
    "Figures": "benchmarks.analysis.figures",
    "Label": "runtimes.class_outputs",
    "Manifest": "runtimes.artifacts.manifest",
    "Prediction": "runtimes.class_outputs",
    "Preprocessing": "runtimes.images.spec",
    "Progress": "rexport.progress",
    "Report": "rexport.report",
    "Runtime": "runtimes.runtime",
    "TensorSpec": "runtimes.tensors.spec",
    "Variant": "exporter.models.variants",
    "available_backends": "runtimes.backends.registry",
    "benchmark": "rexport.benchmarking",
    "export": "rexport.exporting",
    "open": "runtimes.opening",
    "variants": "rexport.exporting",
}
"""Where each name of ``__all__`` comes from, but for the version."""

_NEEDS = {
    "runtimes": ("runtimes",),
    "exporter": ("runtimes", "exporter"),
    "rexport.exporting": ("runtimes", "exporter"),
    "benchmarks": ("runtimes", "exporter", "benchmarks"),
    "rexport.benchmarking": ("runtimes", "exporter", "benchmarks"),
    "rexport.progress": ("runtimes", "exporter"),
    "rexport.report": ("runtimes", "exporter", "benchmarks"),
}
"""The packages that a module imports, by its name or by that of its package."""


if not TYPE_CHECKING:  # a type checker then knows that there are no other names

    def __getattr__(name: str) -> object:
        """The public name, which stays here from its first use on.

        Raises:
            ImportError: another folder or file hides one of rexport's packages.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        from rexport.shadowing import require_own

        module = _MODULES.get(name, "exporter")
        require_own(_NEEDS.get(module) or _NEEDS[module.partition(".")[0]])
        value: object = getattr(import_module(module), "version" if name == "__version__" else name)
        if name == "__version__":
            value = value()
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
