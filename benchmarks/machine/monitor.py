"""How the machine was while something was timed, and whether the times can be trusted.

A worker's ``MachineMonitor`` looks at the machine right before and right after each timed turn, and never meanwhile.
What it saw is judged by pure functions: ``disturbances`` says why the machine was not quiet, ``list_warnings`` what
else to know.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.machine.procfs import TICK_S, Account, SnapshotDelta, change, take_snapshot

Now: TypeAlias = Callable[[], float]

SENTINEL_S = 0.005
"""How long the sentinel runs before a turn: longer than the few milliseconds after which the kernel lets another
thread have the processor, and short beside a turn."""

REST_STEP_S, REST_SHARE, REST_LIMIT_S = 0.005, 0.1, 0.25
"""A process is at rest that uses less than this share of a processor for a step; the limit is for one that never is."""

READS, STEPS = 1000, 100
"""Of the clock, to tell what it costs and how far it steps."""

COUNTED_LEAST = 0.5
"""The processors' accounts must have grown by this share of the time at least: some systems show zeros."""


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
        mhz: the processor's frequency at the end of the first and of the last turn: both times it had been at work.
        throttled: how often the processor was throttled for its temperature, the one of them that was most.
        clock_resolution_s, clock_cost_s: the smallest step of the clock, and what reading it takes.
        processors: how many this process may use by its affinity; ``foreign_cores`` and ``steal_share`` are of these.
        foreign_error_cores: how far ``foreign_cores`` may be off, since the kernel tells it in ticks: three standard
            deviations.
        waited_s: how long its threads wanted a processor and had none, all threads together.
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
    processors: int | None = None
    foreign_error_cores: float | None = None
    waited_s: float | None = None


@dataclass(frozen=True)
class TurnConditions:
    """A timed turn: what this process took in it, and what the system told of it.

    ``sentinel`` is what the loop before it had of a processor, ``switches`` are those that were not the threads' will.
    """

    sentinel: float
    wall_s: float
    cpu_s: float
    switches: int
    change: SnapshotDelta


class MachineMonitor:
    """Watches the timed turns of this process, one after another."""

    def __init__(self, root: Path = Path("/"), sentinel_s: float = SENTINEL_S) -> None:
        """``root`` is where ``proc`` and ``sys`` are looked for.

        Made before a runtime is opened: libraries may narrow the affinity of the thread that opens them.
        """
        self._root = root
        self._sentinel_s = sentinel_s
        self._usable = tuple(sorted(os.sched_getaffinity(0)))
        self._resolution_s, self._cost_s = clock()
        self._turns: list[TurnConditions] = []

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Around one timed turn; the sentinel runs first, and the process comes to rest last. A turn that raises does
        not count."""
        sentinel = spin(self._sentinel_s)
        before = take_snapshot(self._root, self._usable)
        switches, cpu_s, wall_s = _switches(), time.process_time(), time.perf_counter()
        yield
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        switches = _switches() - switches
        seen = change(before, take_snapshot(self._root, self._usable))
        self._turns.append(TurnConditions(sentinel, wall_s, cpu_s, switches, seen))
        wait_until_idle()

    def conditions(self) -> Conditions:
        """Of all the turns so far together."""
        return combine_turns(self._turns, len(self._usable), self._resolution_s, self._cost_s)


def clock(now: Now = time.perf_counter) -> tuple[float, float]:
    """The smallest step of the clock that was seen, and what reading it takes: (resolution_s, cost_s)."""
    start = now()
    for _ in range(READS):
        last = now()
    cost_s = (last - start) / READS
    steps: list[float] = []
    while len(steps) < STEPS:
        earlier, last = last, now()
        if last > earlier:
            steps.append(last - earlier)
    return min(steps), cost_s


def spin(duration_s: float, wall: Now = time.perf_counter, cpu: Now = time.thread_time) -> float:
    """The share of a processor that this thread had while it did nothing but look at the clock for that long."""
    start_s, used_s = wall(), cpu()
    while wall() - start_s < duration_s:
        pass
    used_s = cpu() - used_s
    return min(1.0, used_s / (wall() - start_s))


def wait_until_idle(
    wall: Now = time.perf_counter, cpu: Now = time.process_time, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Returns when this process's threads are at rest, or at the limit. What has its turn next would not be alone.

    Runtimes let their threads wait for the next call by spinning: ONNX Runtime's do so for some 40 ms after the last
    one, those of PyTorch's OpenMP for some 10 ms.
    """
    start_s = wall()
    while wall() - start_s < REST_LIMIT_S:
        step_s, used_s = wall(), cpu()
        sleep(REST_STEP_S)
        if cpu() - used_s < REST_SHARE * (wall() - step_s):
            return


def combine_turns(
    turns: Sequence[TurnConditions], processors: int, clock_resolution_s: float, clock_cost_s: float
) -> Conditions:
    """What the turns saw, taken together; ``processors`` is how many this process may use."""
    wall_s = math.fsum(turn.wall_s for turn in turns)
    mhz = _require_all([turn.change.mhz for turn in turns])
    pressure_s = _require_all([turn.change.pressure_s for turn in turns])
    throttled = _require_all([turn.change.throttled for turn in turns])
    waited_s = _require_all([turn.change.waited_s for turn in turns])
    foreign_cores, foreign_error_cores, steal_share = _measure_foreign_load(
        [turn.change.account for turn in turns], processors
    )
    return Conditions(
        wall_s=round(wall_s, 6),
        cpu_s=round(math.fsum(turn.cpu_s for turn in turns), 6),
        involuntary_switches=sum(turn.switches for turn in turns),
        sentinel=round(statistics.median(turn.sentinel for turn in turns), 4) if turns else None,
        foreign_cores=foreign_cores,
        steal_share=steal_share,
        pressure_share=None if pressure_s is None else round(min(1.0, math.fsum(pressure_s) / wall_s), 4),
        mhz=None if mhz is None else (mhz[0], mhz[-1]),
        throttled=None if throttled is None else round(sum(throttled)),
        clock_resolution_s=clock_resolution_s,
        clock_cost_s=clock_cost_s,
        processors=processors,
        foreign_error_cores=foreign_error_cores,
        waited_s=None if waited_s is None else round(math.fsum(waited_s), 6),
    )


def _measure_foreign_load(
    accounts: Sequence[Account | None], processors: int
) -> tuple[float | None, float | None, float | None]:
    """What others had of the processors: (foreign cores, how far these may be off, share that was stolen).

    Busy is what was not idle: idle time is counted exactly, and who was busy may be by samples. Each account is cut to
    whole ticks, which is an error of up to one tick, evenly spread, at either end of a turn.
    """
    told = [account for account in accounts if account is not None]
    wall_s = math.fsum(account.wall_s for account in told)
    ticks = [each for account in told for each in account.processors.values()]
    counted_s = math.fsum(each.total_s for each in ticks)
    if not told or len(told) < len(accounts) or counted_s < COUNTED_LEAST * wall_s * processors:
        return None, None, None
    steal_s = math.fsum(each.steal_s for each in ticks)
    others_s = math.fsum(each.idle_s for each in ticks) + steal_s + math.fsum(account.cpu_s for account in told)
    foreign_cores = max(0.0, processors - others_s / wall_s)
    error_s = 3 * TICK_S * math.sqrt(len(told) * processors / 6)
    return round(foreign_cores, 4), round(error_s / wall_s, 4), round(steal_s / counted_s, 4)


def _require_all(values: Sequence[float | None]) -> list[float] | None:
    """The values; ``None`` if there are none, or one of them was not told."""
    told = [value for value in values if value is not None]
    return told if told and len(told) == len(values) else None


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
