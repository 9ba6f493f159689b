"""The state of the machine during the timing, which decides whether the times are reliable.

The ``MachineMonitor`` of a worker reads the state right before and right after each timed turn, and never meanwhile.
Pure functions judge the readings: ``disturbances`` returns why the machine was busy, ``list_warnings`` other warnings.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from benchmarks.machine.gpu_conditions import GpuConditions
from benchmarks.machine.procfs import TICK_S, Account, SnapshotDelta, change, take_snapshot
from runtimes.codec import OMIT_DEFAULT

Now: TypeAlias = Callable[[], float]
"""A clock in seconds."""

SENTINEL_S = 0.005
"""The duration of the sentinel, a loop before each turn.

It is longer than the few milliseconds after which the kernel gives the processor to another thread, and short compared
with a turn.
"""

REST_STEP_S, REST_SHARE, REST_LIMIT_S = 0.005, 0.1, 0.25
"""A process counts as idle when it used less than ``REST_SHARE`` of a processor during ``REST_STEP_S``.

Waiting ends after ``REST_LIMIT_S``.
"""

READS, STEPS = 1000, 100
"""The numbers of readings that determine the cost of the clock and its smallest step."""

COUNTED_LEAST = 0.5
"""The minimum of the accounted time of the processors, as a share of the elapsed time. Some systems report zeros."""


@dataclass(frozen=True)
class Conditions:
    """The conditions of all timed turns of one process. ``None`` stands for values that the system does not report.

    Attributes:
        wall_s: The duration of the turns.
        cpu_s: The processor time of this process during the turns, of all its threads.
        involuntary_switches: The number of involuntary context switches of its threads.
        sentinel: The processor time divided by the elapsed time of a loop in one thread right before each turn, as
            median over the turns; 1.0 if no other thread wants the processor.
        foreign_cores: The mean number of processors, of those that this process may use, that other processes kept
            busy.
        steal_share: The share of processor time that the hypervisor gave to others.
        pressure_share: The share of time in which some task of the system waited for a processor.
        mhz: The frequency of the processor at the end of the first and of the last turn.
        throttled: The number of times that a processor was throttled for its temperature; the highest of each turn.
        clock_resolution_s: The smallest step of the clock.
        clock_cost_s: The time of one reading of the clock.
        processors: The number of processors that this process may use by its affinity, to which ``foreign_cores`` and
            ``steal_share`` refer.
        foreign_error_cores: The error of ``foreign_cores`` from counting in ticks, three standard deviations.
        waited_s: The time that threads of this process waited for a processor, of all threads together.
        gpu: The conditions on the GPU; ``None`` on a processor.
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
    gpu: GpuConditions | None = field(default=None, metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class TurnConditions:
    """A timed turn: the use by this process and the changes that the system reports.

    Attributes:
        sentinel: The share of a processor that the loop before the turn had.
        wall_s: The duration of the turn.
        cpu_s: The processor time of this process.
        switches: The involuntary context switches of its threads.
        change: The change of the system's counters.
    """

    sentinel: float
    wall_s: float
    cpu_s: float
    switches: int
    change: SnapshotDelta


class MachineMonitor:
    """Records the conditions of the timed turns of this process, one after another.

    The monitor must be created before a runtime is opened: libraries may narrow the affinity of the thread that opens
    them.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
        sentinel_s: The duration of the sentinel.
    """

    def __init__(self, root: Path = Path("/"), sentinel_s: float = SENTINEL_S) -> None:
        self._root = root
        self._sentinel_s = sentinel_s
        self._usable = tuple(sorted(os.sched_getaffinity(0)))
        self._resolution_s, self._cost_s = clock()
        self._turns: list[TurnConditions] = []

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Record one timed turn, which is the ``with`` block. A turn that raises an error does not count.

        The sentinel runs before the turn. After the turn, the method waits until the process is idle.
        """
        sentinel = spin(self._sentinel_s)
        before = take_snapshot(self._root, self._usable)
        switches, cpu_s, wall_s = _switches(), time.process_time(), time.perf_counter()
        yield
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        switches = _switches() - switches
        delta = change(before, take_snapshot(self._root, self._usable))
        self._turns.append(TurnConditions(sentinel, wall_s, cpu_s, switches, delta))
        wait_until_idle()

    def conditions(self) -> Conditions:
        """Return the conditions of all turns so far."""
        return combine_turns(self._turns, len(self._usable), self._resolution_s, self._cost_s)


def clock(now: Now = time.perf_counter) -> tuple[float, float]:
    """Return the smallest observed step of the clock ``now``, and the time of one reading: (resolution_s, cost_s)."""
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
    """Return the share of a processor that this thread had in a loop that only reads the clock.

    Args:
        duration_s: The duration of the loop.
        wall: The clock of elapsed time.
        cpu: The clock of the thread's processor time.
    """
    start_s, used_s = wall(), cpu()
    while wall() - start_s < duration_s:
        pass
    used_s = cpu() - used_s
    return min(1.0, used_s / (wall() - start_s))


def wait_until_idle(
    wall: Now = time.perf_counter, cpu: Now = time.process_time, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait until the threads of this process are idle, or until ``REST_LIMIT_S``, for the sake of the next one.

    Threads of runtimes spin while they wait for the next call: those of ONNX Runtime for about 40 ms, those of
    PyTorch's OpenMP for about 10 ms.

    Args:
        wall: The clock of elapsed time.
        cpu: The clock of the process's processor time.
        sleep: Sleeps for a number of seconds.
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
    """Combine the conditions of turns.

    Args:
        turns: The turns.
        processors: The number of processors that this process may use.
        clock_resolution_s: The smallest step of the clock.
        clock_cost_s: The time of one reading of the clock.
    """
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
    """Return (foreign cores, their error, stolen share), or ``None`` for each if the accounts are incomplete.

    Busy time is all time that is not idle: the kernel counts idle time exactly, and may sample which task was busy.
    Each account is cut to whole ticks, which is a uniform error of up to one tick at either end of a turn.
    """
    known = [account for account in accounts if account is not None]
    wall_s = math.fsum(account.wall_s for account in known)
    ticks = [each for account in known for each in account.processors.values()]
    counted_s = math.fsum(each.total_s for each in ticks)
    if not known or len(known) < len(accounts) or counted_s < COUNTED_LEAST * wall_s * processors:
        return None, None, None
    steal_s = math.fsum(each.steal_s for each in ticks)
    others_s = math.fsum(each.idle_s for each in ticks) + steal_s + math.fsum(account.cpu_s for account in known)
    foreign_cores = max(0.0, processors - others_s / wall_s)
    error_s = 3 * TICK_S * math.sqrt(len(known) * processors / 6)
    return round(foreign_cores, 4), round(error_s / wall_s, 4), round(steal_s / counted_s, 4)


def _require_all(values: Sequence[float | None]) -> list[float] | None:
    """Return the values, or ``None`` if there are none or one of them is unknown."""
    known = [value for value in values if value is not None]
    return known if known and len(known) == len(values) else None


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
