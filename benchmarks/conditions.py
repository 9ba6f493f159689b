"""How the machine was while something was timed, and whether the times can be trusted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conditions:
    """What one process saw in its timed turns, all turns together. ``None`` is what the system does not tell.

    Attributes:
        wall_s: how long the turns were.
        cpu_s: the processor time of this process in them, of all its threads.
        involuntary_switches: how often its threads were taken off a processor that they still wanted.
        sentinel: processor time over wall time of a loop in one thread right before each turn, the median: 1.0 when
            nobody else wants the processor.
        foreign_cores: processors that others than this process kept busy, on average over the turns, of those that
            this process may use.
        steal_share: the share of processor time that the hypervisor gave to others.
        pressure_share: the share of time in which some task of the system waited for a processor.
        mhz: the processor's frequency before the first and after the last turn.
        throttled: how often the processor was throttled for its temperature.
        clock_resolution_s, clock_cost_s: the smallest step of the clock, and what reading it takes.
    """

    wall_s: float
    cpu_s: float
    involuntary_switches: int
    sentinel: float | None
    foreign_cores: float | None
    steal_share: float | None
    pressure_share: float | None
    mhz: tuple[float, float] | None
    throttled: int | None
    clock_resolution_s: float
    clock_cost_s: float
