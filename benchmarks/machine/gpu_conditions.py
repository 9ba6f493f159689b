"""Conditions on a GPU during the timed turns, as one process recorded them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.machine.gpu import GpuState

T = TypeVar("T")


@dataclass(frozen=True)
class GpuConditions:
    """The conditions on a GPU in all timed turns of one process. ``None`` stands for values that are not reported.

    Attributes:
        wall_s: The duration of the turns.
        sm_mhz: The lowest and the highest clock of the multiprocessors, read at the end of the runs of each turn.
        throttle: The reasons why this clock was not higher, of all turns.
        power_limited_s: The time in the turns in which the power limit lowered the clock.
        thermal_limited_s: The time in the turns in which the temperature lowered the clock.
        foreign_share: The mean share of the GPU's time in which processes outside the run computed, in the turns.
        foreign_share_before: The share of the GPU's time in which it computed right before the model was opened, while
            the run itself left it idle.
        processes: The names and numbers of processes outside the run that have the GPU open.
    """

    wall_s: float
    sm_mhz: tuple[int, int] | None = None
    throttle: tuple[str, ...] | None = None
    power_limited_s: float | None = None
    thermal_limited_s: float | None = None
    foreign_share: float | None = None
    foreign_share_before: float | None = None
    processes: tuple[str, ...] | None = None

    @property
    def busy_share(self) -> float | None:
        """The larger share of the GPU's time that other processes used, in the turns or before them."""
        return max(_drop_missing((self.foreign_share, self.foreign_share_before)), default=None)

    def share(self, time_s: float | None) -> float:
        """Return ``time_s`` as a share of the turns, at most 1; 0 if either is missing."""
        return 0.0 if time_s is None or not self.wall_s else min(1.0, time_s / self.wall_s)


@dataclass(frozen=True)
class GpuTurn:
    """One timed turn on a GPU, as ``GpuConditions`` explains its values.

    Attributes:
        wall_s: The duration.
        state: The state of the GPU at the end of the runs; ``None`` if it was not read.
        power_limited_s: The time in which the power limit lowered the clock.
        thermal_limited_s: The time in which the temperature lowered the clock.
        foreign_share: The share of the GPU's time of processes outside the run.
        processes: The processes outside the run.
    """

    wall_s: float
    state: GpuState | None
    power_limited_s: float | None
    thermal_limited_s: float | None
    foreign_share: float | None
    processes: tuple[str, ...] | None


def combine_turns(turns: Sequence[GpuTurn], foreign_share_before: float | None) -> GpuConditions:
    """Return the conditions of all turns.

    Args:
        turns: The turns.
        foreign_share_before: As in ``GpuConditions``.
    """
    wall_s = math.fsum(turn.wall_s for turn in turns)
    clocks = _drop_missing(None if turn.state is None else turn.state.sm_mhz for turn in turns)
    reasons = _drop_missing(None if turn.state is None else turn.state.throttle for turn in turns)
    power_s, thermal_s = (
        _drop_missing(values)
        for values in ((turn.power_limited_s for turn in turns), (turn.thermal_limited_s for turn in turns))
    )
    shares = [(turn.foreign_share, turn.wall_s) for turn in turns if turn.foreign_share is not None]
    listed = _drop_missing(turn.processes for turn in turns)
    return GpuConditions(
        wall_s=round(wall_s, 6),
        sm_mhz=(min(clocks), max(clocks)) if clocks else None,
        throttle=tuple(dict.fromkeys(word for words in reasons for word in words)) if reasons else None,
        power_limited_s=round(math.fsum(power_s), 6) if power_s else None,
        thermal_limited_s=round(math.fsum(thermal_s), 6) if thermal_s else None,
        foreign_share=round(statistics.fmean(*zip(*shares, strict=True)), 4) if shares else None,
        foreign_share_before=foreign_share_before,
        processes=tuple(dict.fromkeys(name for names in listed for name in names)) if listed else None,
    )


def _drop_missing(values: Iterable[T | None]) -> list[T]:
    return [value for value in values if value is not None]
