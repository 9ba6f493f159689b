"""Judge from what was recorded whether other work disturbed a measurement."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from operator import itemgetter

from benchmarks.machine.gpu import GpuState
from benchmarks.machine.monitor import Conditions
from runtimes.errors import Reason

FOREIGN_CORES = 0.10
"""Processors that others may keep busy: an idle system's own services use a few hundredths of one."""

FOREIGN_SHARE = 0.05
"""Or this share of those that the result's threads leave free, where that is more: large machines have more services,
and their load slows a call by little unless it is on the result's own processors."""

WAITED_SHARE = 0.05
"""Time that a thread may have waited for a processor, the mean of the result's threads: 0.01 on a quiet machine."""

SENTINEL_SHARE = 0.95
"""What the sentinel has of a processor, at least: 0.99 and more on a quiet machine, 0.5 beside one competitor."""

SWITCHES_PER_S = 100
"""How often a thread may be taken off its processor, for each of the result's threads. The kernel's own work does it
some ten times a second; a competitor at the end of each slice, which is more than a hundred times."""

STEAL_SHARE = 0.01
"""A stolen share makes a result slower by as much at least, and a difference of less than 1 % counts as none."""

PRESSURE_SHARE = 0.25
"""Time in which some thread of the whole system may have waited: on a large machine some do at any time, and of the
result's own threads ``WAITED_SHARE`` knows better."""

MHZ_CHANGE = 0.05
"""Relative to the first: the speed follows it, and a step in the middle of a run tears its rounds apart."""

CLOCK_COSTS = 1000
"""A sample of fewer costs or steps of the clock holds more than 0.1 % of the clock itself."""

GPU_SLOWDOWNS = ("hardware slowdown", "software thermal slowdown", "hardware thermal slowdown", "power brake")
"""Reasons of ``GpuState.throttle`` that others than the settings and the load give."""

GPU_AT_LIMIT = "power cap"


def disturbances(
    processes: Sequence[Conditions | None],
    threads: int,
    gpu_before: GpuState | None = None,
    gpu_after: GpuState | None = None,
) -> tuple[Reason, ...] | None:
    """Why the machine was not quiet: each kind once, with its figure and its bound where it was worst, and in how many
    of the processes it was. Nothing if it was quiet; ``None`` where no process was looked at.

    ``threads`` is how many the runtime computes in; the GPU's states are those right before and right after.
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
        where = "" if len(seen) == 1 else f" (the worst of {len(alike)} in {len(seen)} processes)"
        reasons.append(worst._replace(sentence=worst.sentence + where))
    throttled = {word for state in (gpu_before, gpu_after) if state is not None for word in state.throttle or ()}
    if held := [word for word in GPU_SLOWDOWNS if word in throttled]:
        reasons.append(Reason("gpu-held-down", f"the GPU's clock was held down: {', '.join(held)}"))
    return tuple(reasons)


def list_warnings(
    conditions: Conditions, samples_s: Sequence[float], gpu_states: Sequence[GpuState | None] = ()
) -> tuple[Reason, ...]:
    """What else a reader must know of the times: nothing of it means that the machine was not quiet.

    ``samples_s`` are those of one clock, in seconds.
    """
    found = []
    clock_s = max(conditions.clock_cost_s, conditions.clock_resolution_s)
    if samples_s and (usual_s := statistics.median(samples_s)) < CLOCK_COSTS * clock_s:
        found.append(
            Reason(
                "clock-too-coarse",
                f"half of the samples are at most {usual_s * 1e6:.2f} µs, under {CLOCK_COSTS:,} times the clock's own "
                f"{clock_s * 1e6:.3f} µs",
            )
        )
    if conditions.foreign_cores is None:
        found.append(Reason("others-unknown", "the system does not tell what others did on the processors meanwhile"))
    if any(GPU_AT_LIMIT in (state.throttle or ()) for state in gpu_states if state is not None):
        found.append(Reason("gpu-power-limit", "the GPU ran into its power limit, which lowers its clock"))
    return tuple(found)


def _load(conditions: Conditions, threads: int) -> Iterator[tuple[float, Reason]]:
    """What others took of the processors: each figure over its bound, so that more than 1 disturbs, and its reason."""
    processors, error_cores = conditions.processors or threads, conditions.foreign_error_cores or 0.0
    if (foreign := conditions.foreign_cores) is not None:
        bound = max(FOREIGN_CORES, FOREIGN_SHARE * (processors - threads))
        of = "1 processor" if processors == 1 else f"{processors} processors"
        reason = Reason(
            "others-busy", f"others used {foreign:.2f} of {of} while it was timed; up to {bound:.2f} is quiet"
        )
        yield (foreign - error_cores) / bound, reason
    if (steal := conditions.steal_share) is not None:
        reason = Reason(
            "time-stolen",
            f"the hypervisor gave {steal:.1%} of the processors' time to others; up to {STEAL_SHARE:.0%} is quiet",
        )
        yield (steal - error_cores / processors) / STEAL_SHARE, reason
    if (pressure := conditions.pressure_share) is not None:
        reason = Reason(
            "system-waited",
            f"some thread of the system waited for a processor in {pressure:.0%} of the time; up to "
            f"{PRESSURE_SHARE:.0%} is quiet",
        )
        yield pressure / PRESSURE_SHARE, reason


def _waiting(conditions: Conditions, threads: int) -> Iterator[tuple[float, Reason]]:
    """Likewise, what the sentinel and the process went without."""
    if (sentinel := conditions.sentinel) is not None:
        reason = Reason(
            "sentinel-waited",
            f"a loop right before each turn had a processor for {sentinel:.0%} of its time; from {SENTINEL_SHARE:.0%} "
            "on is quiet",
        )
        yield SENTINEL_SHARE / sentinel if sentinel else math.inf, reason
    if conditions.waited_s is not None:
        waited = conditions.waited_s / (conditions.wall_s * threads)
        reason = Reason(
            "threads-waited",
            f"a thread of it waited for a processor for {waited:.1%} of the time; up to {WAITED_SHARE:.0%} is quiet",
        )
        yield waited / WAITED_SHARE, reason
    rate, bound = conditions.involuntary_switches / conditions.wall_s, SWITCHES_PER_S * threads
    reason = Reason(
        "threads-switched",
        f"its threads were taken off a processor {rate:.0f} times a second; up to {bound} is quiet",
    )
    yield rate / bound, reason


def _speed(conditions: Conditions) -> Iterator[tuple[float, Reason]]:
    """Likewise, what the processor itself changed."""
    if conditions.throttled:
        times = "once" if conditions.throttled == 1 else f"{conditions.throttled:,} times"
        reason = Reason("processor-throttled", f"a processor was throttled for its temperature {times}")
        yield 1.0 + conditions.throttled, reason
    first, last = conditions.mhz or (0.0, 0.0)
    if first:
        reason = Reason(
            "frequency-changed",
            f"the processor's frequency went from {first:,.0f} to {last:,.0f} MHz; a change of up to {MHZ_CHANGE:.0%} "
            "is quiet",
        )
        yield abs(last - first) / first / MHZ_CHANGE, reason
