"""Judge from what was recorded whether other work disturbed a measurement."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Disturbance:
    """What may say that the machine was not quiet: it does from a ``degree`` of more than 1 on, the figure over its
    bound."""

    degree: float
    reason: Reason


def disturbances(
    conditions: Conditions,
    threads: int,
    gpu_before: GpuState | None = None,
    gpu_after: GpuState | None = None,
) -> tuple[Reason, ...]:
    """Why the machine was not quiet, each reason with its figure and its bound; none where it was.

    ``threads`` is how many the runtime computes in; the GPU's states are those right before and right after.
    """
    return tuple(each.reason for each in _find_disturbances(conditions, threads)) + _slowdowns((gpu_before, gpu_after))


def disturbances_of_all(
    sittings: Sequence[Conditions | None],
    threads: int,
    gpu_before: GpuState | None = None,
    gpu_after: GpuState | None = None,
) -> tuple[Reason, ...] | None:
    """The disturbances of all processes: each kind once, where it was worst, and in how many of them it was.

    ``None`` where no process was looked at.
    """
    seen = [conditions for conditions in sittings if conditions is not None]
    if not seen:
        return None
    kinds: dict[str, list[_Disturbance]] = {}
    for conditions in seen:
        for each in _find_disturbances(conditions, threads):
            kinds.setdefault(each.reason.code, []).append(each)
    reasons = []
    for alike in kinds.values():
        worst = max(alike, key=lambda each: each.degree).reason
        where = "" if len(seen) == 1 else f" (the worst of {len(alike)} in {len(seen)} processes)"
        reasons.append(worst._replace(sentence=worst.sentence + where))
    return (*reasons, *_slowdowns((gpu_before, gpu_after)))


def list_warnings(
    conditions: Conditions, samples_s: Sequence[float], gpu_states: Sequence[GpuState | None] = ()
) -> tuple[Reason, ...]:
    """What else a reader must know of the times: nothing of it means that the machine was not quiet.

    ``samples_s`` are those of one clock, in seconds.
    """
    return tuple(_find_warnings(conditions, samples_s, gpu_states))


def _find_warnings(
    conditions: Conditions, samples_s: Sequence[float], gpu_states: Sequence[GpuState | None]
) -> Iterator[Reason]:
    clock_s = max(conditions.clock_cost_s, conditions.clock_resolution_s)
    usual_s = statistics.median(samples_s) if samples_s else None
    if usual_s is not None and usual_s < CLOCK_COSTS * clock_s:
        yield Reason(
            "clock-too-coarse",
            f"half of the samples are at most {usual_s * 1e6:.2f} µs, under {CLOCK_COSTS:,} times the clock's own "
            f"{clock_s * 1e6:.3f} µs",
        )
    if conditions.foreign_cores is None:
        yield Reason("others-unknown", "the system does not tell what others did on the processors meanwhile")
    if any(GPU_AT_LIMIT in (state.throttle or ()) for state in gpu_states if state is not None):
        yield Reason("gpu-power-limit", "the GPU ran into its power limit, which lowers its clock")


def _find_disturbances(conditions: Conditions, threads: int) -> Iterator[_Disturbance]:
    if conditions.wall_s > 0:
        looked_at = (*_load(conditions, threads), *_waiting(conditions, threads), *_speed(conditions))
        yield from (each for each in looked_at if each.degree > 1)


def _load(conditions: Conditions, threads: int) -> Iterator[_Disturbance]:
    """What others took of the processors."""
    processors, error_cores = conditions.processors or threads, conditions.foreign_error_cores or 0.0
    if (foreign := conditions.foreign_cores) is not None:
        bound, of = max(FOREIGN_CORES, FOREIGN_SHARE * (processors - threads)), _processors(processors)
        reason = Reason(
            "others-busy", f"others used {foreign:.2f} of {of} while it was timed; up to {bound:.2f} is quiet"
        )
        yield _Disturbance((foreign - error_cores) / bound, reason)
    if (steal := conditions.steal_share) is not None:
        reason = Reason(
            "time-stolen",
            f"the hypervisor gave {steal:.1%} of the processors' time to others; up to {STEAL_SHARE:.0%} is quiet",
        )
        yield _Disturbance((steal - error_cores / processors) / STEAL_SHARE, reason)
    if (pressure := conditions.pressure_share) is not None:
        reason = Reason(
            "system-waited",
            f"some thread of the system waited for a processor in {pressure:.0%} of the time; up to "
            f"{PRESSURE_SHARE:.0%} is quiet",
        )
        yield _Disturbance(pressure / PRESSURE_SHARE, reason)


def _waiting(conditions: Conditions, threads: int) -> Iterator[_Disturbance]:
    """What the sentinel and the process went without."""
    if (sentinel := conditions.sentinel) is not None:
        reason = Reason(
            "sentinel-waited",
            f"a loop right before each turn had a processor for {sentinel:.0%} of its time; from {SENTINEL_SHARE:.0%} "
            "on is quiet",
        )
        yield _Disturbance(SENTINEL_SHARE / sentinel if sentinel else math.inf, reason)
    if conditions.waited_s is not None:
        waited = conditions.waited_s / (conditions.wall_s * threads)
        reason = Reason(
            "threads-waited",
            f"a thread of it waited for a processor for {waited:.1%} of the time; up to {WAITED_SHARE:.0%} is quiet",
        )
        yield _Disturbance(waited / WAITED_SHARE, reason)
    rate, bound = conditions.involuntary_switches / conditions.wall_s, SWITCHES_PER_S * threads
    reason = Reason(
        "threads-switched", f"its threads were taken off a processor {rate:.0f} times a second; up to {bound} is quiet"
    )
    yield _Disturbance(rate / bound, reason)


def _speed(conditions: Conditions) -> Iterator[_Disturbance]:
    """What the processor itself changed."""
    if conditions.throttled:
        times = "once" if conditions.throttled == 1 else f"{conditions.throttled:,} times"
        reason = Reason("processor-throttled", f"a processor was throttled for its temperature {times}")
        yield _Disturbance(1.0 + conditions.throttled, reason)
    first, last = conditions.mhz or (0.0, 0.0)
    if first:
        reason = Reason(
            "frequency-changed",
            f"the processor's frequency went from {first:,.0f} to {last:,.0f} MHz; a change of up to {MHZ_CHANGE:.0%} "
            "is quiet",
        )
        yield _Disturbance(abs(last - first) / first / MHZ_CHANGE, reason)


def _processors(number: int) -> str:
    return f"{number} processor{'' if number == 1 else 's'}"


def _slowdowns(states: Sequence[GpuState | None]) -> tuple[Reason, ...]:
    given = {reason for state in states if state is not None for reason in state.throttle or ()}
    held = [reason for reason in GPU_SLOWDOWNS if reason in given]
    return (Reason("gpu-held-down", f"the GPU's clock was held down: {', '.join(held)}"),) if held else ()
