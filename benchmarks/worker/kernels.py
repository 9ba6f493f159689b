"""The kernels of a run, as the driver's profiler (CUPTI) records them through PyTorch.

CUPTI sees the kernels of the whole process, so one way serves all backends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks.records.result import KernelSummary
from benchmarks.worker.kernel_names import arithmetic_of

_NOT_KERNELS = ("Memcpy", "Memset")
"""How the names of the other device events begin."""


class Kernel(NamedTuple):
    """A kernel that ran: its name, and its start and end in seconds on one clock."""

    name: str
    start_s: float
    end_s: float


def can_record() -> bool:
    """Return whether PyTorch is installed with CUDA and its profiler."""
    try:
        from torch.profiler import ProfilerActivity, supported_activities
    except ImportError:
        return False
    return ProfilerActivity.CUDA in supported_activities()  # type: ignore[no-untyped-call]


def record_kernels(run: Callable[[], object]) -> tuple[Kernel, ...]:
    """Return the kernels of one run, in the order of their starts.

    The first run under the profiler is not used: starting the profiler takes time, and may lose kernels.

    Args:
        run: Runs the model once without CUDA graphs and returns when the device has finished.
    """
    from torch.profiler import ProfilerActivity, profile

    for _ in range(2):
        with profile(activities=[ProfilerActivity.CUDA]) as recording:
            run()
    events = (event for event in recording.events() if event.device_type.name == "CUDA")
    kernels = (Kernel(event.name, event.time_range.start / 1e6, event.time_range.end / 1e6) for event in events)
    return tuple(sorted((each for each in kernels if not each.name.startswith(_NOT_KERNELS)), key=lambda k: k.start_s))


def summarise_kernels(kernels: Iterable[Kernel]) -> KernelSummary | None:
    """Return the summary of the kernels of one run in the order of their starts, or ``None`` if there are none."""
    found = tuple(kernels)
    if not found:
        return None
    products = [(kernel.name, kind) for kernel in found if (kind := arithmetic_of(kernel.name)) is not None]
    return KernelSummary(
        count=len(found),
        busy_s=round(_union_s(found), 9),
        arithmetic=_count_kinds([kind for _, kind in products]),
        names=tuple(dict.fromkeys(name for name, _ in products)),
    )


def _count_kinds(kinds: list[str]) -> str | None:
    """Return the kinds with their counts as ``runtimes.protocol.summarise_precisions``; ``None`` if one is unknown."""
    counts = Counter(kinds).most_common()
    if not counts or "unknown" in kinds:
        return None
    if len(counts) == 1:
        return counts[0][0]
    return ", ".join(f"{kind} ({count} of {len(kinds)})" for kind, count in counts)


def _union_s(kernels: Iterable[Kernel]) -> float:
    """Return the time in which at least one kernel ran. Kernels of several streams may overlap."""
    total_s, until_s = 0.0, float("-inf")
    for kernel in kernels:
        total_s += max(0.0, kernel.end_s - max(kernel.start_s, until_s))
        until_s = max(until_s, kernel.end_s)
    return total_s
