"""The GPU during a job: its memory, the conditions of the timed turns, and its energy."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.machine import gpu
from benchmarks.machine.family import Family
from benchmarks.machine.gpu import EXCLUSIVE, Gauge, GpuState
from benchmarks.machine.gpu_conditions import GpuConditions, GpuTurn, combine_turns

ENERGY_WARMUP_S, ENERGY_LEAST_S = 0.5, 3.0
"""The time of work before an energy measurement, which brings an idle GPU to its usual power, and the time of it."""

ENERGY_STEP_S = 0.1
"""The longest time between two steps of the energy counter. It is the error of the measured time."""

UTILISATION_PERIOD_S, UTILISATION_STEP_S = 1.2, 0.1
"""The time after which the utilisation no longer contains earlier work of the run, and the time between two readings.

The driver averages it over a sixth of a second to a second.
"""


@dataclass(frozen=True)
class GpuMemory:
    """The memory of a GPU after a process has opened its model.

    Attributes:
        own_bytes: The memory that the process uses; ``None`` if it is unknown.
        free_bytes: The memory that no process uses; ``None`` if it is unknown.
        growth_bytes: The memory that the process will use in addition for its inputs.
        exclusive: Whether only one process at a time can use the GPU.
    """

    own_bytes: int | None
    free_bytes: int | None
    growth_bytes: int = 0
    exclusive: bool = False


@dataclass(frozen=True)
class EnergyUse:
    """The energy of the whole GPU during some runs.

    Attributes:
        energy_j: The energy in joules.
        duration_s: The time of the runs.
        runs: The number of runs.
    """

    energy_j: float
    duration_s: float
    runs: int

    @property
    def power_w(self) -> float:
        """The mean power in watts."""
        return self.energy_j / self.duration_s

    @property
    def error_share(self) -> float:
        """The largest error of the energy, as a share of it, that comes from the steps of the counter."""
        return ENERGY_STEP_S / self.duration_s


class GpuMonitor:
    """The monitor of the GPU during a job. For a processor, and if no driver responds, all values are ``None``.

    The monitor must be created before the job uses the GPU. It first waits until earlier work of the run no longer
    counts in the utilisation, ``UTILISATION_PERIOD_S`` at most.

    Args:
        device: The device of the job.
        alone: Whether no other process of the run uses the GPU until the job has opened its model.
    """

    def __init__(self, device: str, alone: bool = True) -> None:
        self._device = device
        self._gauge = gpu.gauge(device)
        self._family = Family()
        self._turns: list[GpuTurn] = []
        self._state: GpuState | None = None
        self._own_bytes: int | None = None
        self._grown_bytes: int | None = None
        self._baseline = self._foreign_before = None
        if alone and self._gauge is not None:
            self._foreign_before = read_utilisation(self._gauge)
            self._baseline = self._gauge.used_bytes()

    def read_state(self) -> GpuState | None:
        """Return the state now. The memory of this process counts for ``peak_bytes``."""
        if self._gauge is None:
            return None
        self._note_own(self._gauge.processes())
        return self._gauge.state()

    def read_memory(self, growth_bytes: int = 0) -> GpuMemory | None:
        """Return the memory after the job has opened its model; ``None`` for a processor.

        Without NVML, the CUDA runtime reports the free memory alone.

        Args:
            growth_bytes: As in ``GpuMemory``.
        """
        if self._device == "cpu":
            return None
        if self._gauge is None:
            return GpuMemory(None, gpu.free_bytes(self._device), growth_bytes)
        self._note_own(self._gauge.processes())
        used = self._gauge.used_bytes()
        if self._baseline is not None and used is not None:
            self._grown_bytes = max(0, used - self._baseline)
        exclusive = self._gauge.compute_mode() == EXCLUSIVE
        return GpuMemory(self.peak_bytes(), self._gauge.free_bytes(), growth_bytes, exclusive)

    def peak_bytes(self) -> int | None:
        """Return the highest memory of this process at any reading.

        If the driver does not report memory by process, the result is the growth of all memory in use until
        ``read_memory``, or ``None`` if other processes of the run used the GPU meanwhile.
        """
        return self._grown_bytes if self._own_bytes is None else self._own_bytes

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Record one timed turn, which is the ``with`` block. A turn that raises an error does not count."""
        if self._gauge is None:
            yield
            return
        meter, self._state = self._gauge, None
        since_us, start_s = int(time.time() * 1e6), time.perf_counter()
        power_s, thermal_s = meter.power_limited_s(), meter.thermal_limited_s()
        yield
        wall_s = time.perf_counter() - start_s
        power_s, thermal_s = (
            _difference(power_s, meter.power_limited_s()),
            _difference(thermal_s, meter.thermal_limited_s()),
        )
        foreign_share, names = self._look_for_others(meter, since_us)
        self._turns.append(GpuTurn(wall_s, self._state, power_s, thermal_s, foreign_share, names))

    def note_state(self) -> None:
        """Read the state within a turn, at the end of the runs."""
        self._state = self.read_state()

    @property
    def last_state(self) -> GpuState | None:
        """The state at the end of the runs of the last turn."""
        return self._turns[-1].state if self._turns else None

    def conditions(self) -> GpuConditions | None:
        """Return the conditions of all turns so far; ``None`` for a processor, and if no driver responds."""
        return None if self._gauge is None else combine_turns(self._turns, self._foreign_before)

    def measure_energy(
        self, run: Callable[[], object], clock: Callable[[], float] = time.perf_counter
    ) -> EnergyUse | None:
        """Return the energy of the whole GPU for a run that is repeated for ``ENERGY_LEAST_S``.

        The run is repeated for ``ENERGY_WARMUP_S`` before. If the GPU does not report its energy, it is not called and
        the result is ``None``.

        Args:
            run: The run.
            clock: The clock.
        """
        if self._gauge is None or self._gauge.energy_j() is None:
            return None
        repeat(run, ENERGY_WARMUP_S, clock)
        used_j, start_s = self._gauge.energy_j(), clock()
        runs = repeat(run, ENERGY_LEAST_S, clock)
        now_j, duration_s = self._gauge.energy_j(), clock() - start_s
        return (
            None if used_j is None or now_j is None or now_j <= used_j else EnergyUse(now_j - used_j, duration_s, runs)
        )

    def _note_own(self, processes: Mapping[int, int | None] | None) -> None:
        own = (processes or {}).get(os.getpid())
        if own is not None:
            self._own_bytes = max(own, self._own_bytes or 0)

    def _look_for_others(self, meter: Gauge, since_us: int) -> tuple[float | None, tuple[str, ...] | None]:
        """Return the share of the GPU's time, and the names, of the processes outside the run.

        Both are ``None`` if this process is not among the processes that the driver reports, as in a container: the
        numbers are then those of another system of processes.
        """
        processes, shares = meter.processes(), meter.utilisation_by_process(since_us)
        if processes is None or os.getpid() not in processes:
            return None, None
        names = tuple(self._family.name(pid) for pid in processes if pid not in self._family)
        if shares is None:
            return None, names
        foreign = sum(share for pid, share in shares.items() if pid not in self._family)
        return min(1.0, foreign), names


def read_utilisation(
    meter: Gauge, clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep
) -> float | None:
    """Return the utilisation of a GPU that the run has left idle, or ``None`` if it is not reported.

    Args:
        meter: The gauge of the GPU.
        clock: The clock.
        sleep: Sleeps for a number of seconds.
    """
    start_s = clock()
    while (share := meter.utilisation()) and clock() - start_s < UTILISATION_PERIOD_S:
        sleep(UTILISATION_STEP_S)
    return share


def repeat(run: Callable[[], object], duration_s: float, clock: Callable[[], float] = time.perf_counter) -> int:
    """Call ``run`` until ``duration_s`` have passed, at least once, and return the number of calls.

    Args:
        run: The work.
        duration_s: The duration.
        clock: The clock.
    """
    start_s, calls = clock(), 0
    while not calls or clock() - start_s < duration_s:
        run()
        calls += 1
    return calls


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0.0, after - before)
