"""The interface between backends and ``runtimes.Runtime``. Read this module first.

A ``Backend`` is a row of data: a name, the formats it opens, and functions. ``Backend.open`` returns a ``Session``,
which runs checked arrays. ``runtimes.Runtime`` wraps a session and adds what all backends share: checks of the feeds,
empty batches, closing while other threads infer, and forked processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from runtimes.devices import DeviceName
from runtimes.errors import Reason
from runtimes.frozen_dataclass import dataclass
from runtimes.tensors.device_clock import RunTimes
from runtimes.tensors.spec import Array, Arrays, Feeds, TensorSpec

if TYPE_CHECKING:
    from runtimes.artifacts.artifact import Artifact
    from runtimes.tensors.device_output import DeviceOutput
    from runtimes.tensors.dlpack import DeviceTensor

__all__ = [
    "Array",
    "Arrays",
    "Backend",
    "Description",
    "DeviceSession",
    "Feeds",
    "Layer",
    "Options",
    "RunTimes",
    "Session",
    "TensorSpec",
    "summarise_precisions",
]


@dataclass(frozen=True)
class Description:
    """A description of what runs, read back from the library where the library reports it.

    Attributes:
        backend: The name of the backend.
        version: The version of the backend's library.
        device: ``cpu``, ``cuda`` for the first GPU, or ``cuda:N``.
        provider: The library's own name for its implementation on this device, for example ``CPUExecutionProvider``.
        precision: The arithmetic of the convolutions by NumPy's names: ``float32``, ``float32 int8`` for a mixture, or
            ``tfloat32`` where TensorFloat-32 is allowed. The value is known when the model is opened, from the types
            in the graph and the settings of the library. ``Backend.profile`` reports the precision of each layer.
        threads: The number of processors that one call may use.
        skipped_backends: One entry for each preferred backend that does not run, with the reason, for example
            ``tensorrt: tensorrt is not installed (pip install 'rexport[tensorrt]')``.
        unrecorded_batches: The batch sizes that run without a CUDA graph because recording one failed.
        notes: Facts about this library that a reader of its figures must know.
        gpu: The model of the GPU, for example ``NVIDIA H200``; ``None`` on the CPU and without cuda-bindings.
        gpu_uuid: The unique identifier of the GPU or MIG device, without a prefix; ``None`` as for ``gpu``.
        compiled: The path of the file that the backend compiled from the artifact and runs, or of the artifact if it is
            compiled already; ``None`` for a backend without such files.
    """

    backend: str
    version: str
    device: str
    provider: str
    precision: str
    threads: int
    skipped_backends: tuple[str, ...] = ()
    unrecorded_batches: tuple[int, ...] = ()
    notes: tuple[Reason, ...] = ()
    gpu: str | None = None
    gpu_uuid: str | None = None
    compiled: str | None = None

    @property
    def passed_over(self) -> tuple[str, ...]:
        """The former name of ``skipped_backends``."""
        return self.skipped_backends


@dataclass(frozen=True)
class Layer:
    """One executed step, as reported by the library's profiler.

    Attributes:
        name: The name of the graph's node, for example ``layer1.0.conv1/Conv``. For a step that the library added, the
            library's own name.
        nodes: The names of all graph nodes fused into this step, as far as the library reports them, including
            ``name``. Empty for a step that the library added.
        operator: The library's own name of the operator, for example ``QLinearConv``.
        precision: The precision of the arithmetic by NumPy's names, for example ``float32`` or ``bfloat16``. ``int8``
            stands for signed and unsigned 8-bit integers.
        weighted: Whether the step is a convolution or a matrix product. These steps take most of the time.
        duration_s: The time of one run after the first in seconds, or ``None`` where the library does not report it.
        tactic: The library's own name of the kernel, or ``None`` where the library does not report it.
    """

    name: str
    nodes: tuple[str, ...]
    operator: str
    precision: str
    weighted: bool
    duration_s: float | None
    tactic: str | None = None


def summarise_precisions(layers: Iterable[Layer]) -> str:
    """Return the precisions of the weighted layers as text, most frequent first.

    Examples are ``int8``, ``int8 (53 of 54), float32 (1 of 54)``, and ``no convolution or matrix product`` where no
    layer is weighted.
    """
    counts = Counter(layer.precision for layer in layers if layer.weighted).most_common()
    if len(counts) <= 1:
        return counts[0][0] if counts else "no convolution or matrix product"
    total = sum(count for _, count in counts)
    return ", ".join(f"{precision} ({count} of {total})" for precision, count in counts)


@dataclass(frozen=True)
class Options:
    """The options for opening an artifact, with all defaults resolved.

    Attributes:
        device: The kind of device, ``cpu`` or ``cuda``.
        threads: The number of processors that one call may use, at least 1.
        cuda_graphs: Whether a GPU may replay a recorded run instead of launching its kernels one by one. Backends
            without CUDA graphs ignore this option.
        streams: The number of calls that are expected at the same time, at least 1. A backend with streams divides the
            threads among them; others ignore this option.
        model_cache: The folder for compiled models, which exists, or ``None`` for no cache. Backends without such a
            cache ignore this option.
        batch: The only batch size that is expected, at least 1, or ``None``. A backend that builds the model when it is
            opened builds it for this batch size; other batch sizes still work. Others ignore this option.
        device_index: The number of the GPU, by which all libraries of this process know it.
        gpu_mem_limit: The memory in bytes that the model may use on the GPU, or ``None`` for no limit. Backends on the
            CPU ignore this option.
    """

    device: str
    threads: int
    cuda_graphs: bool = True
    streams: int = 1
    model_cache: Path | None = None
    batch: int | None = None
    device_index: int = 0
    gpu_mem_limit: int | None = None

    @property
    def device_name(self) -> DeviceName:
        """The name of the device."""
        return DeviceName(self.device, self.device_index)


class Session(Protocol):
    """A model opened by one backend.

    ``Runtime`` passes only arrays that are checked, C-ordered and of the dtypes in ``inputs``.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, in the model's order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the model's order."""

    @property
    def description(self) -> Description:
        """The description of what runs."""

    def run(self, arrays: Arrays) -> Arrays:
        """Run the model once on host arrays and return the outputs by name.

        The call blocks until the outputs are on the host. The outputs are fresh arrays that belong to the caller.
        Many threads may call this method at once.
        """

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Copy the arrays to the device once and return a function that runs the model on them.

        Each call of the function runs the model once and returns when the device has finished. The caller must not
        change the arrays afterwards. Only one thread at a time may call the function.
        """

    def close(self) -> None:
        """Free what the library holds. ``Runtime`` calls this method once, when no call is running."""


@runtime_checkable
class DeviceSession(Session, Protocol):
    """A session on a device that has its own memory and its own clock."""

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        """Run the model once on tensors in device memory and return host arrays by name.

        The tensors are checked and C-ordered. The run waits for the work that their owner queued, and reads them in
        place where the library can. The outputs are fresh host arrays that belong to the caller.
        """

    def queue(self, feeds: Arrays | Mapping[str, DeviceTensor], stream: int | None) -> dict[str, DeviceOutput]:
        """Queue a run on the device and return its outputs there, without waiting for the run.

        The outputs are in memory of their own. The session copies host arrays before the call returns. Tensors in
        device memory are read until the run has finished.

        Args:
            feeds: Host arrays, or tensors in device memory, checked and C-ordered.
            stream: The handle of the caller's stream, or ``None``. The run starts after the work that is queued on the
                stream, and later work on the stream waits for the run. The stream waits for the owners of the tensors
                already. Without a stream, the run waits for the work that they queued.
        """

    def empty_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array of ``shape`` and ``dtype`` in page-locked host memory. The array owns its memory."""

    def bind_timed(self, arrays: Arrays) -> Callable[[], RunTimes] | None:
        """Copy the arrays to the device once and return a function that runs the model and returns its times.

        Each call runs the model twice and times the second run, as ``device_clock.time_run``. Copies are not included.
        Otherwise the function behaves like that of ``bind``.

        The result is ``None`` if the library waits for the device in each run: the time between two events would then
        include the wait of the host.
        """


@dataclass(frozen=True)
class Backend:
    """A library that opens artifacts.

    Attributes:
        name: The name that users type.
        title: The name of the library in sentences, for example ``ONNX Runtime``.
        formats: The formats it opens, as in ``runtimes.artifacts.formats.FORMATS``.
        devices: The devices it supports.
        priority: The position in the order of preference. The lowest number of those installed is the default.
        missing: Returns why the backend cannot run here, with the install command, or ``None`` if nothing is missing.
        open: Opens an artifact. Raises only the errors of ``runtimes.errors``.
        profile: Opens the artifact under the library's profiler, runs it on the arrays, and returns the executed
            steps in order. ``None`` for a library without a profiler. Raises the same errors as ``open``.
        check_gpu: Imports a library that may be built without GPU support, and raises ``BackendUnavailableError`` if
            the library supports no GPU or finds none. ``None`` where no such check is needed.
        aliases: Other names that users may type, in lower case.
        reference: Whether all other backends are compared with this one.
        for_tests: Whether the backend exists only for tests. Lists for users leave it out.
        caches_models: Whether ``Options.model_cache`` has an effect.
        prepares_batches: The devices on which the first run of each batch size takes seconds, because the backend
            compiles or searches algorithms for it. A benchmark then uses no other batch size than the measured one.
        without_graphs: The name of the backend with the same kernels, if this one runs only with CUDA graphs.
        named_only: Whether a benchmark measures it only if it is named, because it compiles a network for minutes.
    """

    name: str
    title: str
    formats: tuple[str, ...]
    devices: tuple[str, ...]
    priority: int
    missing: Callable[[], Reason | None]
    open: Callable[[Artifact, Options], Session]
    profile: Callable[[Artifact, Options, Arrays], tuple[Layer, ...]] | None = None
    check_gpu: Callable[[], object] | None = None
    aliases: tuple[str, ...] = ()
    reference: bool = False
    for_tests: bool = False
    caches_models: bool = False
    prepares_batches: tuple[str, ...] = ()
    without_graphs: str | None = None
    named_only: bool = False
