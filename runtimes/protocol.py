"""What a backend gives and what a user gets. Read this first.

A ``Backend`` is a row: a name, the formats that it opens, and two functions. Its ``open`` gives a ``Session``, which
runs checked arrays. ``runtimes.Runtime`` wraps a session with everything that is the same for all: checks of the
feeds, empty batches, closing while others infer, forked processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from runtimes.errors import Reason
from runtimes.tensors.spec import Array, Arrays, Feeds, TensorSpec

if TYPE_CHECKING:
    from runtimes.artifacts.artifact import Artifact
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
    "Session",
    "TensorSpec",
    "summarise_precisions",
]


@dataclass(frozen=True)
class Description:
    """What really runs, read back from the library where it tells; never merely what was asked for.

    ``provider`` is the library's own name for the device's implementation, ``precision`` the arithmetic of the
    convolutions by NumPy's names, as ``float32`` or ``float32 int8`` where there are both (``tfloat32`` where
    TensorFloat-32 is allowed), ``threads`` the processors that one call may use. ``precision`` is what can be known at
    opening, from the graph's types and what the library does with them; ``Backend.profile`` tells what each layer
    really ran in. ``passed_over`` says of each backend that was to be preferred why it does not run, as ``tensorrt:
    tensorrt is not installed``.
    """

    backend: str
    version: str
    device: str
    provider: str
    precision: str
    threads: int
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One step that a library took, as its own profiler tells.

    Attributes:
        name: the node of the graph that it stands for, as ``layer1.0.conv1/Conv``; the library's own name for a step
            that it added itself.
        nodes: all the graph's nodes that were fused into it, as far as the library tells; ``name`` is among them. Empty
            for a step that the library added itself.
        operator: the library's own word, as ``QLinearConv``.
        precision: of its arithmetic, by NumPy's names, as ``float32``, ``bfloat16`` or ``int8``, which stands for 8-bit
            integers without a sign as well.
        weighted: whether it is a convolution or a matrix product: where the time goes and precision counts.
        duration_s: of one run that is not the first, or ``None`` where the library does not tell.
    """

    name: str
    nodes: tuple[str, ...]
    operator: str
    precision: str
    weighted: bool
    duration_s: float | None


def summarise_precisions(layers: Iterable[Layer]) -> str:
    """The arithmetic of the weighted layers in words, most frequent first: ``int8``, or ``int8 (53 of 54), float32 (1
    of 54)``; ``nothing weighted`` where there are none."""
    counts = Counter(layer.precision for layer in layers if layer.weighted).most_common()
    if len(counts) <= 1:
        return counts[0][0] if counts else "nothing weighted"
    total = sum(count for _, count in counts)
    return ", ".join(f"{precision} ({count} of {total})" for precision, count in counts)


@dataclass(frozen=True)
class Options:
    """What the user asked for. ``threads`` is resolved already: it is at least 1. ``cuda_graphs`` is whether a GPU may
    replay a recorded run in place of launching its kernels one by one; a backend without them ignores it."""

    device: str
    threads: int
    cuda_graphs: bool = True


class Session(Protocol):
    """A model opened by one backend. Arrays that come in are checked, C-ordered and of the specs' dtypes."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""

    @property
    def description(self) -> Description:
        """What runs."""

    def run(self, arrays: Arrays) -> Arrays:
        """Host to host, blocking. The outputs are fresh and the caller's; called from many threads at once."""

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Takes the arrays, which nobody else will change, to the device once; each call of what it returns runs once
        and ends with the device."""

    def close(self) -> None:
        """Frees what the library holds. Called once, when nothing runs."""


@runtime_checkable
class DeviceSession(Session, Protocol):
    """A session on a device with memory and a clock of its own."""

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        """As ``run``, for inputs that lie on the device already, which are checked and C-ordered. They are read where
        they lie, after what their owner has queued for them; the outputs are host arrays, fresh and the caller's."""

    def bind_timed(self, arrays: Arrays) -> Callable[[], float]:
        """As ``bind``, and each call gives the seconds between two events on the device, right before and right after
        the run: without copies, and without what the host does meanwhile."""


@dataclass(frozen=True)
class Backend:
    """One library that opens artifacts.

    Attributes:
        name: as users type it.
        title: The library's name in sentences, as "ONNX Runtime".
        formats: of the artifacts it opens, as in ``runtimes.artifacts.formats.FORMATS``.
        devices: that it can be asked for.
        priority: among the backends of a format, the lowest that is there is the default.
        missing: why the backend can't run here, with the pip line that mends it, or ``None`` if it can.
        open: the session. Raises the errors of ``runtimes.errors`` alone.
        profile: opens the model once more under the library's profiler, runs it on the arrays and gives the steps in
            their order; ``None`` for a library that cannot. Raises as ``open``.
        check_gpu: for a library that may be there and know nothing of GPUs: imports it, and raises
            ``BackendUnavailableError`` if it was not built for one or sees none.
        aliases: other names that users may type, in lower case.
        reference: whether it is the one that every other is compared with.
        for_tests: whether it is no library that users have, and is left out wherever they are told what there is.
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
