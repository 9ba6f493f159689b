"""Decide from recorded conditions whether other processes, heat or power disturbed a measurement on a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchmarks.machine.gpu import GpuState
from benchmarks.machine.gpu_conditions import GpuConditions
from runtimes.errors import Reason

FOREIGN_SHARE = 0.01
"""The limit of the share of a GPU's time that other processes may use. The driver reports whole percents."""

INVALID_SHARE = 0.10
"""The mean share above which other processes make a result invalid. A smaller share only disturbs it."""

MHZ_CHANGE = 0.05
"""The limit of the relative change of the clock within a process."""

LIMITED_SHARE = 0.01
"""The limit of the share of time in which temperature or power lowered the clock."""

SLOWDOWNS = ("hardware slowdown", "software thermal slowdown", "hardware thermal slowdown", "power brake")
"""The reasons in ``GpuState.throttle`` that neither settings nor the load cause."""

AT_LIMIT = "power cap"
"""The reason in ``GpuState.throttle`` that the load causes."""

NAMED = 3
"""The number of other processes that a sentence names."""


def judge_conditions(conditions: GpuConditions) -> Iterator[tuple[float, Reason]]:
    """Yield each figure of a process divided by its limit, and its reason. Above 1 the measurement was disturbed."""
    if (busy := conditions.busy_share) is not None:
        reason = Reason(
            "gpu-others-busy",
            f"other processes used up to {percent(busy)} of the GPU's time (limit {percent(FOREIGN_SHARE)})",
        )
        yield busy / FOREIGN_SHARE, reason
    if conditions.processes:
        named = ", ".join(conditions.processes[:NAMED])
        more = len(conditions.processes) - NAMED
        named += f" and {more} more" if more > 0 else ""
        reason = Reason("gpu-shared", f"processes outside the run had the GPU open: {named}")
        yield 1.0 + len(conditions.processes), reason
    if conditions.sm_mhz is not None and conditions.sm_mhz[1]:
        low, high = conditions.sm_mhz
        reason = Reason(
            "gpu-clock-changed",
            f"the GPU's clock varied between {low:,} and {high:,} MHz (limit: a change of {percent(MHZ_CHANGE)})",
        )
        yield (high - low) / high / MHZ_CHANGE, reason
    hot = conditions.share(conditions.thermal_limited_s)
    reason = Reason(
        "gpu-temperature",
        f"the GPU's temperature lowered its clock in up to {percent(hot)} of the time (limit {percent(LIMITED_SHARE)})",
    )
    yield hot / LIMITED_SHARE, reason


def find_invalidity(processes: Sequence[GpuConditions]) -> Reason | None:
    """Return why the times on a GPU are unreliable, or ``None``.

    Args:
        processes: The conditions of each process.
    """
    shares = [(share, each.wall_s) for each in processes if (share := each.busy_share) is not None]
    total_s = math.fsum(wall_s for _, wall_s in shares)
    if total_s:
        busy = math.fsum(share * wall_s for share, wall_s in shares) / total_s
        if busy > INVALID_SHARE:
            return Reason("gpu-shared-too-much", f"other processes used {percent(busy)} of the GPU's time")
    if any(each.share(each.thermal_limited_s) > LIMITED_SHARE for each in processes):
        return Reason("gpu-hot", "the GPU's clock was lowered because of its temperature")
    return None


def judge_states(*states: GpuState | None, processes: Sequence[GpuConditions] = ()) -> Iterator[Reason]:
    """Yield the reason if the clock was limited in a state or in a turn, other than by settings or by the load."""
    throttled = _reasons(states, processes)
    if held := [word for word in SLOWDOWNS if word in throttled]:
        yield Reason("gpu-throttled", f"the GPU's clock was limited: {', '.join(held)}")


def list_warnings(conditions: GpuConditions | None, states: Sequence[GpuState | None]) -> Iterator[Reason]:
    """Yield other warnings, which do not mean that the GPU was disturbed.

    Args:
        conditions: The conditions of a process; ``None`` if they were not recorded.
        states: States of the GPU.
    """
    seen = () if conditions is None else (conditions,)
    limited = 0.0 if conditions is None else conditions.share(conditions.power_limited_s)
    if AT_LIMIT in _reasons(states, seen) or limited > LIMITED_SHARE:
        share = f" (in {percent(limited)} of the time)" if limited else ""
        yield Reason("gpu-power-limit", f"the GPU reached its power limit, which lowers its clock{share}")
    if conditions is not None and conditions.busy_share is None and conditions.processes is None:
        yield Reason("gpu-others-unknown", "the driver does not report whether other processes used the GPU")


def _reasons(states: Sequence[GpuState | None], processes: Sequence[GpuConditions]) -> set[str]:
    listed = (*(state.throttle for state in states if state is not None), *(each.throttle for each in processes))
    return {word for words in listed for word in words or ()}


def percent(share: float) -> str:
    """Return a share in percent, with two digits below 10 %."""
    return f"{100 * share:.{'0f' if share >= 0.1 else '2g'}} %"
