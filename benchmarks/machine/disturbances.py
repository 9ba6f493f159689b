"""Decide from recorded conditions whether other work disturbed a measurement."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from operator import itemgetter

from benchmarks.machine.gpu import GpuState
from benchmarks.machine.monitor import Conditions
from runtimes.errors import Reason

FOREIGN_CORES = 0.10
"""The number of processors that other processes may keep busy. The services of an idle system use a few hundredths."""

FOREIGN_SHARE = 0.05
"""The share of the free processors that other processes may keep busy, if it is more than ``FOREIGN_CORES``.

Free are the processors that the threads of the result do not use. Large machines have more services, which slow a call
only if they run on its own processors.
"""

WAITED_SHARE = 0.05
"""The share of time that a thread may wait for a processor, as mean over the threads. On an idle machine it is 0.01."""

SENTINEL_SHARE = 0.95
"""The minimum share of a processor for the sentinel. On an idle machine it is 0.99, beside one competitor 0.5."""

SWITCHES_PER_S = 100
"""The limit of involuntary context switches per second and thread.

The kernel's own work causes about ten per second. A competitor causes one at the end of each time slice, which is more
than a hundred.
"""

STEAL_SHARE = 0.01
"""The limit of stolen processor time. It slows a result at least as much, and differences below 1 % count as none."""

PRESSURE_SHARE = 0.25
"""The limit of the time in which some thread of the system waits for a processor.

On a large machine some threads always wait. ``WAITED_SHARE`` is the better limit for the threads of the result.
"""

MHZ_CHANGE = 0.05
"""The limit of the relative change of the processor frequency. The speed of a call follows the frequency."""

CLOCK_COSTS = 1000
"""A sample shorter than this many costs or steps of the clock contains more than 0.1 % of the clock itself."""

GPU_SLOWDOWNS = ("hardware slowdown", "software thermal slowdown", "hardware thermal slowdown", "power brake")
"""The reasons in ``GpuState.throttle`` that neither settings nor the load cause."""

GPU_AT_LIMIT = "power cap"
"""The reason in ``GpuState.throttle`` that the load causes."""


def disturbances(
    processes: Sequence[Conditions | None],
    threads: int,
    gpu_before: GpuState | None = None,
    gpu_after: GpuState | None = None,
) -> tuple[Reason, ...] | None:
    """Return the reasons why the machine was busy; empty if it was idle, ``None`` if no conditions were recorded.

    Each kind of reason is given once, with the worst value, its limit and the number of affected processes.

    Args:
        processes: The conditions of each process.
        threads: The number of threads that the runtime computes in.
        gpu_before: The state of the GPU right before the timing.
        gpu_after: The state of the GPU right after the timing.
    """
    seen = [conditions for conditions in processes if conditions is not None]
    if not seen:
        return None
    kinds: dict[str, list[tuple[float, Reason]]] = {}
    for conditions in seen:
        if conditions.wall_s > 0:
            judged = (*_load(conditions, threads), *_waiting(conditions, threads), *_speed(conditions))
            for degree, reason in judged:
                if degree > 1:
                    kinds.setdefault(reason.code, []).append((degree, reason))
    reasons = []
    for alike in kinds.values():
        _, worst = max(alike, key=itemgetter(0))
        where = "" if len(seen) == 1 else f" (the worst of {len(alike)} affected of {len(seen)} processes)"
        reasons.append(worst._replace(sentence=worst.sentence + where))
    throttled = {word for state in (gpu_before, gpu_after) if state is not None for word in state.throttle or ()}
    if held := [word for word in GPU_SLOWDOWNS if word in throttled]:
        reasons.append(Reason("gpu-held-down", f"the GPU clock was reduced: {', '.join(held)}"))
    return tuple(reasons)


def list_warnings(
    conditions: Conditions, samples_s: Sequence[float], gpu_states: Sequence[GpuState | None] = ()
) -> tuple[Reason, ...]:
    """Return other warnings about the times, which do not mean that the machine was busy.

    Args:
        conditions: The conditions of a process.
        samples_s: The samples of one clock, in seconds.
        gpu_states: States of the GPU.
    """
    warnings = []
    clock_s = max(conditions.clock_cost_s, conditions.clock_resolution_s)
    if samples_s and (usual_s := statistics.median(samples_s)) < CLOCK_COSTS * clock_s:
        warnings.append(
            Reason(
                "clock-too-coarse",
                f"half of the samples are at most {usual_s * 1e6:.2f} µs, less than {CLOCK_COSTS:,} times the cost or "
                f"step of the clock ({clock_s * 1e6:.3f} µs)",
            )
        )
    if conditions.foreign_cores is None:
        warnings.append(Reason("others-unknown", "the system does not report what other processes used"))
    if any(GPU_AT_LIMIT in (state.throttle or ()) for state in gpu_states if state is not None):
        warnings.append(Reason("gpu-power-limit", "the GPU reached its power limit, which lowers its clock"))
    return tuple(warnings)


def _load(conditions: Conditions, threads: int) -> Iterator[tuple[float, Reason]]:
    """Yield each figure of other processes' use divided by its limit, and its reason. Above 1 the machine is busy."""
    processors, error_cores = conditions.processors or threads, conditions.foreign_error_cores or 0.0
    if (foreign := conditions.foreign_cores) is not None:
        bound = max(FOREIGN_CORES, FOREIGN_SHARE * (processors - threads))
        usable = "1 processor" if processors == 1 else f"{processors} processors"
        reason = Reason(
            "others-busy",
            f"other processes used {foreign:.2f} of {usable} during the timing (limit {bound:.2f})",
        )
        yield (foreign - error_cores) / bound, reason
    if (steal := conditions.steal_share) is not None:
        reason = Reason(
            "time-stolen",
            f"the hypervisor gave {100 * steal:.1f} % of the processor time to others "
            f"(limit {100 * STEAL_SHARE:.0f} %)",
        )
        yield (steal - error_cores / processors) / STEAL_SHARE, reason
    if (pressure := conditions.pressure_share) is not None:
        reason = Reason(
            "system-waited",
            f"threads of the system waited for a processor {100 * pressure:.0f} % of the time "
            f"(limit {100 * PRESSURE_SHARE:.0f} %)",
        )
        yield pressure / PRESSURE_SHARE, reason


def _waiting(conditions: Conditions, threads: int) -> Iterator[tuple[float, Reason]]:
    """Yield the figures of the sentinel's and the process's waiting, as ``_load`` does."""
    if (sentinel := conditions.sentinel) is not None:
        reason = Reason(
            "sentinel-waited",
            f"a test loop before each turn had a processor {100 * sentinel:.0f} % of the time "
            f"(minimum {100 * SENTINEL_SHARE:.0f} %)",
        )
        yield SENTINEL_SHARE / sentinel if sentinel else math.inf, reason
    if conditions.waited_s is not None:
        waited = conditions.waited_s / (conditions.wall_s * threads)
        reason = Reason(
            "threads-waited",
            f"the threads waited for a processor {100 * waited:.1f} % of the time (limit {100 * WAITED_SHARE:.0f} %)",
        )
        yield waited / WAITED_SHARE, reason
    rate, bound = conditions.involuntary_switches / conditions.wall_s, SWITCHES_PER_S * threads
    reason = Reason(
        "threads-switched",
        f"{rate:.0f} involuntary context switches per second (limit {bound})",
    )
    yield rate / bound, reason


def _speed(conditions: Conditions) -> Iterator[tuple[float, Reason]]:
    """Yield the figures of the processor's own changes, as ``_load`` does."""
    if conditions.throttled:
        times = "once" if conditions.throttled == 1 else f"{conditions.throttled:,} times"
        reason = Reason("processor-throttled", f"a processor was throttled {times} because of its temperature")
        yield 1.0 + conditions.throttled, reason
    first, last = conditions.mhz or (0.0, 0.0)
    if first:
        reason = Reason(
            "frequency-changed",
            f"the processor frequency changed from {first:,.0f} to {last:,.0f} MHz (limit {100 * MHZ_CHANGE:.0f} %)",
        )
        yield abs(last - first) / first / MHZ_CHANGE, reason
