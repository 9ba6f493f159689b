"""How Triton runs a model: its backends, and the settings of a configuration. Only light modules are imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtimes.artifacts.manifest import Manifest
from runtimes.errors import CompatibilityError, UsageError, quote

LARGEST_BATCH = 32
"""The default of the largest batch that the server forms."""

QUEUE = 256
"""The default of the largest number of waiting requests."""

THREADS_KEY = "rexport.threads"
"""The parameter for the number of threads that ``model.py`` reads."""

TritonBackend = Literal["onnxruntime", "openvino", "tensorrt", "python"]
"""A backend of Triton."""


@dataclass(frozen=True)
class BackendRow:
    """A backend of Triton.

    Attributes:
        formats: The formats of the model files that it opens.
        threads_key: The parameter for the number of threads, or ``None`` for a backend without one.
        devices: The devices, the default first.
    """

    formats: tuple[str, ...]
    threads_key: str | None
    devices: tuple[str, ...]


BACKENDS: dict[TritonBackend, BackendRow] = {
    "onnxruntime": BackendRow(("onnx",), "intra_op_thread_count", ("cpu", "cuda")),
    "openvino": BackendRow(("onnx",), "INFERENCE_NUM_THREADS", ("cpu",)),
    "tensorrt": BackendRow(("engine",), None, ("cuda",)),
    "python": BackendRow(("onnx", "pt2", "engine"), THREADS_KEY, ("cpu", "cuda")),
}
"""The backends of Triton by name. The first that opens a format is the default for it."""

MODEL_FILES = {"onnx": "model.onnx", "engine": "model.plan", "pt2": "model.pt2"}
"""The names that model files have in a repository, by format."""


@dataclass(frozen=True)
class TritonSettings:
    """How Triton runs a model.

    Attributes:
        backend: The backend of Triton, or ``None`` for the default of the artifact's format.
        largest_batch: The largest batch that the server forms, or ``None`` for the default.
        instances: The number of instances, which run at the same time.
        threads: The number of CPU threads of an instance, or ``None`` for the backend's default.
        queue: The largest number of waiting requests; further ones are refused. 0 means no limit.
        delay_s: The longest time in seconds that a request waits for others of its batch.
        device: ``cpu`` or ``cuda``, or ``None`` for the backend's default.
        opened_with: For the backend ``python``: the backend of rexport that opens the artifact, or ``None`` for the
            first that is installed where Triton runs.
    """

    backend: TritonBackend | None = None
    largest_batch: int | None = None
    instances: int = 1
    threads: int | None = None
    queue: int = QUEUE
    delay_s: float = 0.0
    device: str | None = None
    opened_with: str | None = None

    def backend_for(self, manifest: Manifest) -> TritonBackend:
        """Return the backend for an artifact.

        Raises:
            CompatibilityError: The backend, or all of Triton, cannot open the artifact.
            UsageError: A setting does not suit the backend.
        """
        format = manifest.format
        name = self.backend or next((name for name, row in BACKENDS.items() if format in row.formats), None)
        if name is None or format not in BACKENDS[name].formats:
            able = [other for other, row in BACKENDS.items() if format in row.formats]
            raise CompatibilityError(
                f"Triton's backend {name or 'python'} does not open files of the format {format}",
                code="triton-backend-mismatch",
                hint=f"--backend {' or '.join(able)}" if able else "rexport onnx writes a file that Triton opens",
            )
        _require_plain_engine(manifest, name)
        row = BACKENDS[name]
        if self.device is not None and self.device not in row.devices:
            raise UsageError(
                f"Triton's backend {name} is configured for {' or '.join(row.devices)}, not {self.device}",
                code="triton-device-mismatch",
                hint=f"omit --device, or --device {row.devices[0]}",
            )
        if self.threads is not None and row.threads_key is None:
            raise UsageError(f"Triton's backend {name} has no CPU threads", code="triton-no-threads", hint="omit it")
        self._require_opener(manifest, name)
        return name

    def _require_opener(self, manifest: Manifest, name: str) -> None:
        """Raise ``UsageError`` if ``opened_with`` does not open the artifact."""
        if self.opened_with is None:
            return
        from runtimes.backends.registry import find_backend

        opener = find_backend(self.opened_with)
        if name != "python":
            raise UsageError(
                f"Triton's backend {name} opens the file itself, not with {self.opened_with}",
                code="triton-opens-itself",
                hint="--backend python",
            )
        if manifest.format not in opener.formats:
            raise UsageError(
                f"backend {opener.name} does not open files of the format {quote(manifest.format)}",
                code="triton-opener-mismatch",
                hint="omit --open-with",
            )


def _require_plain_engine(manifest: Manifest, backend: str) -> None:
    engine = manifest.engine
    if engine is None:
        return
    if engine.stripped:
        raise CompatibilityError(
            "the engine holds no weights, and Triton does not add them", code="triton-stripped-engine",
            hint="rexport tensorrt ARTIFACT.onnx builds an engine with weights",
        )  # fmt: skip
    if engine.flavor == "rtx" and backend == "tensorrt":
        raise CompatibilityError(
            "Triton's backend tensorrt opens no engines of TensorRT-RTX", code="triton-rtx-engine",
            hint="--backend python, or rexport tensorrt --flavor tensorrt",
        )  # fmt: skip


def largest_batch(manifest: Manifest, settings: TritonSettings) -> int:
    """Return the largest batch for the configuration: 0 for a fixed batch, which the dimensions then hold.

    Args:
        manifest: The manifest of the artifact.
        settings: How Triton runs the model.

    Raises:
        UsageError: The settings ask for a batch that the artifact does not take.
    """
    fixed, asked = manifest.inputs[0].fixed_batch, settings.largest_batch
    profiles = () if manifest.engine is None else manifest.engine.profiles
    most = fixed or max((profile.most for profile in profiles), default=None)
    least = fixed or min((profile.least for profile in profiles), default=1)
    if asked is not None and (asked < least or (most is not None and asked > most)):
        raise UsageError(
            f"the artifact takes batches of {least if least == most else f'{least} to {most}'}, not {asked}",
            code="triton-batch-mismatch",
            hint="omit --max-batch",
        )
    if fixed is None and least > 1:
        raise CompatibilityError(
            f"the engine takes batches of at least {least}, but a server has batches of 1, too",
            code="triton-batches-too-large",
            hint="rexport tensorrt --min-batch 1 builds an engine for them",
        )
    return 0 if fixed is not None else asked or min(LARGEST_BATCH, most or LARGEST_BATCH)
