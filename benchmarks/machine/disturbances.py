"""Decide from recorded conditions whether other work or throttling disturbed a measurement."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

from benchmarks.machine import gpu_disturbances
from benchmarks.machine.gpu import GpuState
from benchmarks.machine.gpu_conditions import GpuConditions
from benchmarks.machine.gpu_disturbances import percent
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

BUSY_SHARE = 0.10
"""The mean share of the processors above which other work makes a result invalid. A smaller share only disturbs it."""

BUSY_CODES = ("others-busy", "time-stolen", "system-waited", "sentinel-waited", "threads-waited", "threads-switched")
"""The codes of disturbances by a busy machine. A cause comes before its effects."""

CLOCK_COSTS = 1000
"""A sample shorter than this many costs or steps of the clock contains more than 0.1 % of the clock itself."""


def disturbances(
    processes: Sequence[Conditions | None],
    threads: int,
    gpu_before: GpuState | None = None,
    gpu_after: GpuState | None = None,
) -> tuple[Reason, ...] | None:
    """Return each kind of disturbance beyond its limit, with the worst value of all processes.

    Args:
        processes: The conditions of each process.
        threads: The number of threads that the runtime computes in.
        gpu_before: The state of the GPU right before the timing.
        gpu_after: The state of the GPU right after the timing.

    Returns:
        The reasons; empty for an idle machine, ``None`` if no conditions were recorded.
    """
    seen = [conditions for conditions in processes if conditions is not None]
    if not seen:
        return None
    kinds: dict[str, list[tuple[float, Reason]]] = {}
    for conditions in seen:
        if conditions.wall_s > 0:
            on_gpu = () if conditions.gpu is None else gpu_disturbances.judge_conditions(conditions.gpu)
            judged = (*_load(conditions, threads), *_waiting(conditions, threads), *_speed(conditions), *on_gpu)
            for degree, reason in judged:
                if degree > 1:
                    kinds.setdefault(reason.code, []).append((degree, reason))
    reasons = [max(alike, key=itemgetter(0))[1] for alike in kinds.values()]
    return (*reasons, *gpu_disturbances.judge_states(gpu_before, gpu_after, processes=gpus_of(seen)))


def find_invalidity(
    processes: Sequence[Conditions | None],
    threads: int,
    gpu_before: GpuState | None = None,
    gpu_after: GpuState | None = None,
) -> Reason | None:
    """Return the first reason why the times of a result are unreliable, or ``None`` if there is none.

    Shares are means over the processes, weighted by their time. One disturbed process of many therefore does not make
    a result invalid.

    Args:
        processes: The conditions of each process.
        threads: The number of threads that the runtime computes in.
        gpu_before: The state of the GPU right before the timing.
        gpu_after: The state of the GPU right after the timing.
    """
    seen = [conditions for conditions in processes if conditions is not None and conditions.wall_s > 0]

    def mean(part: Callable[[Conditions], float | None]) -> float | None:
        values = [(value, conditions.wall_s) for conditions in seen if (value := part(conditions)) is not None]
        return sum(value * wall_s for value, wall_s in values) / sum(wall_s for _, wall_s in values) if values else None

    busy = mean(lambda conditions: _foreign_share(conditions, threads))
    stolen = mean(lambda conditions: conditions.steal_share)
    sentinel = mean(lambda conditions: conditions.sentinel)
    if busy is not None and busy > BUSY_SHARE:
        return Reason("machine-busy", f"other processes used {percent(busy)} of the CPUs")
    if stolen is not None and stolen > BUSY_SHARE:
        return Reason("host-busy", f"the hypervisor gave {percent(stolen)} of the CPU time to other machines")
    if sentinel is not None and sentinel < 1 - BUSY_SHARE:
        return Reason("processor-withheld", f"a test loop before each round got {percent(sentinel)} of a CPU")
    if any(conditions.throttled for conditions in seen):
        return Reason("cpu-throttled", "a CPU was throttled because of its temperature")
    gpus = gpus_of(seen)
    if (reason := gpu_disturbances.find_invalidity(gpus)) is not None:
        return reason
    return next(gpu_disturbances.judge_states(gpu_before, gpu_after, processes=gpus), None)


def gpus_of(processes: Sequence[Conditions]) -> list[GpuConditions]:
    """Return the conditions on the GPU of the processes that recorded them."""
    return [conditions.gpu for conditions in processes if conditions.gpu is not None]


def _foreign_share(conditions: Conditions, threads: int) -> float | None:
    """Return the share of the processors that other processes used, minus the error from counting in ticks."""
    foreign, error_cores = conditions.foreign_cores, conditions.foreign_error_cores or 0.0
    return None if foreign is None else max(0.0, foreign - error_cores) / (conditions.processors or threads)


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
                f"the clock is coarse for such short calls (median {usual_s * 1e6:.2f} µs, the clock takes "
                f"{clock_s * 1e6:.3f} µs)",
            )
        )
    if conditions.foreign_cores is None:
        warnings.append(Reason("others-unknown", "the system does not report the CPU time of other processes"))
    return (*warnings, *gpu_disturbances.list_warnings(conditions.gpu, gpu_states))


def _load(conditions: Conditions, threads: int) -> Iterator[tuple[float, Reason]]:
    """Yield each figure of other processes' use divided by its limit, and its reason. Above 1 the machine is busy."""
    processors, error_cores = conditions.processors or threads, conditions.foreign_error_cores or 0.0
    if (foreign := conditions.foreign_cores) is not None:
        limit = max(FOREIGN_CORES, FOREIGN_SHARE * (processors - threads))
        used, allowed = percent(foreign / processors), percent(limit / processors)
        reason = Reason("others-busy", f"other processes used up to {used} of the CPUs (limit {allowed})")
        yield (foreign - error_cores) / limit, reason
    if (steal := conditions.steal_share) is not None:
        reason = Reason(
            "time-stolen",
            f"the hypervisor gave up to {percent(steal)} of the CPU time to other machines (limit "
            f"{percent(STEAL_SHARE)})",
        )
        yield (steal - error_cores / processors) / STEAL_SHARE, reason
    if (pressure := conditions.pressure_share) is not None:
        reason = Reason(
            "system-waited",
            f"tasks of the system waited for a CPU in up to {percent(pressure)} of the time (limit "
            f"{percent(PRESSURE_SHARE)})",
        )
        yield pressure / PRESSURE_SHARE, reason


def _waiting(conditions: Conditions, threads: int) -> Iterator[tuple[float, Reason]]:
    """Yield the figures of the sentinel's and the process's waiting, as ``_load`` does."""
    if (sentinel := conditions.sentinel) is not None:
        reason = Reason(
            "sentinel-waited",
            f"a test loop before each round got only {percent(sentinel)} of a CPU (limit {percent(SENTINEL_SHARE)})",
        )
        yield SENTINEL_SHARE / sentinel if sentinel else math.inf, reason
    if conditions.waited_s is not None:
        waited = conditions.waited_s / (conditions.wall_s * threads)
        reason = Reason(
            "threads-waited",
            f"threads of the process waited for a CPU in up to {percent(waited)} of the time (limit "
            f"{percent(WAITED_SHARE)})",
        )
        yield waited / WAITED_SHARE, reason
    rate, limit = conditions.involuntary_switches / conditions.wall_s, SWITCHES_PER_S * threads
    reason = Reason("threads-switched", f"up to {rate:.0f} involuntary context switches per second (limit {limit})")
    yield rate / limit, reason


def _speed(conditions: Conditions) -> Iterator[tuple[float, Reason]]:
    """Yield the figures of the processor's own changes, as ``_load`` does."""
    if conditions.throttled:
        times = "once" if conditions.throttled == 1 else f"up to {conditions.throttled:,} times"
        reason = Reason("processor-throttled", f"a CPU was throttled because of its temperature, {times}")
        yield 1.0 + conditions.throttled, reason
    first, last = conditions.mhz or (0.0, 0.0)
    if first:
        reason = Reason(
            "frequency-changed",
            f"the CPU's frequency went from {first:,.0f} to {last:,.0f} MHz (limit: a change of {percent(MHZ_CHANGE)})",
        )
        yield abs(last - first) / first / MHZ_CHANGE, reason
