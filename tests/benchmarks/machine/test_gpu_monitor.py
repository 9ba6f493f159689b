from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.machine import gpu, gpu_monitor
from benchmarks.machine.family import Family
from benchmarks.machine.gpu_conditions import GpuConditions
from benchmarks.machine.gpu_monitor import GpuMemory, GpuMonitor, read_utilisation
from tests.benchmarks.nvml import MIB, TOTAL_BYTES, Card, installed, steady

ME = os.getpid()
OTHER = 1 << 30
"""The number of a process that there cannot be."""


def monitor(monkeypatch: pytest.MonkeyPatch, card: Card, alone: bool = True) -> GpuMonitor:
    installed(monkeypatch, card)
    return GpuMonitor("cuda", alone)


def conditions_of_a_turn(found: GpuMonitor, turns: int = 1) -> GpuConditions:
    for _ in range(turns):
        with found.turn():
            found.note_state()
    conditions = found.conditions()
    assert conditions is not None
    return conditions


def test_memory_of_other_processes_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU fills up with other processes meanwhile."""
    card = Card(processes={ME: 500 * MIB, OTHER: 900 * MIB}, used_bytes=steady(0, 10_000 * MIB, 90_000 * MIB))
    found = monitor(monkeypatch, card)
    assert found.peak_bytes() is None
    memory = found.read_memory(7)
    assert memory == GpuMemory(500 * MIB, TOTAL_BYTES - 90_000 * MIB, 7)
    card.processes = {ME: 800 * MIB, OTHER: 9000 * MIB}
    found.read_state()
    card.processes = {ME: 300 * MIB}
    found.read_state()
    assert found.peak_bytes() == 800 * MIB


@pytest.mark.parametrize("processes", [{}, {ME: None}, {OTHER: 5}])
def test_without_memory_by_process_it_is_what_opening_took(
    monkeypatch: pytest.MonkeyPatch, processes: dict[int, int | None]
) -> None:
    """Later growth is that of others as well, which warm up then."""
    found = monitor(monkeypatch, Card(processes=processes, used_bytes=steady(500, 1900, 9000)))
    found.read_memory()
    found.read_state()
    assert found.peak_bytes() == 1400


def test_beside_others_memory_that_is_not_reported_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = monitor(monkeypatch, Card(used_bytes=steady(500, 1900)), alone=False)
    assert found.read_memory() == GpuMemory(None, TOTAL_BYTES - 1900)
    assert found.peak_bytes() is None


def test_an_exclusive_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = monitor(monkeypatch, Card(compute_mode=3)).read_memory()
    assert memory is not None
    assert memory.exclusive


def test_without_nvml_cuda_tells_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Card(), driver=False)
    monkeypatch.setattr(gpu, "free_bytes", lambda _: 5 * MIB)
    assert GpuMonitor("cuda").read_memory(3) == GpuMemory(None, 5 * MIB, 3)


def test_clock_and_limits_are_those_of_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the turns the counters grow as well, which does not count."""
    card = Card(
        clocks_mhz=steady(1980, 1500, 1750),
        power_ns=steady(0, 10**6, 10**9, 10**9 + 2 * 10**6, 10**10, 10**10),
        thermal_ns=steady(5, 5, 5, 5, 10**9, 10**9 + 10**6),
        reasons=0x4,
    )
    found = monitor(monkeypatch, card)
    told = conditions_of_a_turn(found, 3)
    assert (told.sm_mhz, told.throttle) == ((1500, 1980), ("power cap",))
    assert (told.power_limited_s, told.thermal_limited_s) == (0.003, 0.001)
    assert found.last_state is not None
    assert found.last_state.sm_mhz == 1750


def test_what_the_driver_does_not_tell_of_turns_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = ["ClockInfo", "CurrentClocksEventReasons", "ViolationStatus", "ComputeRunningProcesses", "UtilizationRates"]
    told = conditions_of_a_turn(monitor(monkeypatch, Card(lacks=lacks)))
    assert told == GpuConditions(wall_s=told.wall_s)
    assert told.busy_share is None


def test_a_turn_that_raises_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = monitor(monkeypatch, Card())
    with pytest.raises(ZeroDivisionError), found.turn():
        raise ZeroDivisionError
    assert found.last_state is None


def test_processes_outside_the_run_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent and its other children are of the run; the first process of the system is not."""
    sibling = os.getppid()
    card = Card(processes={ME: 5, sibling: 5, OTHER: 5}, shares={ME: [90], sibling: [10], OTHER: [20, 40]})
    told = conditions_of_a_turn(monitor(monkeypatch, card))
    assert told.processes == (f"process {OTHER}",)
    assert (told.foreign_share, told.busy_share) == (0.3, 0.3)


def test_in_a_container_nothing_is_guessed_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is not among those that are listed, so that all numbers may be those of the host."""
    told = conditions_of_a_turn(monitor(monkeypatch, Card(processes={OTHER: 5}, shares={OTHER: [50]})))
    assert (told.processes, told.foreign_share) == (None, None)
    assert told.foreign_share_before == 0.0


def test_a_gpu_that_works_before_the_run_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_monitor, "UTILISATION_PERIOD_S", 0.0)
    assert conditions_of_a_turn(monitor(monkeypatch, Card(utilisation=steady(80)))).busy_share == 0.8
    assert conditions_of_a_turn(monitor(monkeypatch, Card(utilisation=steady(80)), alone=False)).busy_share is None


@pytest.mark.parametrize(("told", "share", "waited_s"), [([0], 0.0, 0.0), ([60, 30, 0], 0.0, 0.2), ([60], 0.6, 1.2)])
def test_earlier_work_of_the_run_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, told: list[int], share: float, waited_s: float
) -> None:
    installed(monkeypatch, Card(utilisation=steady(*told)))
    meter, now_s = gpu.gauge("cuda"), 0.0
    assert meter is not None

    def sleep(duration_s: float) -> None:
        nonlocal now_s
        now_s = round(now_s + duration_s, 6)

    assert read_utilisation(meter, lambda: now_s, sleep) == share
    assert now_s == pytest.approx(waited_s)


def test_energy_is_that_of_seconds_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes a tenth of a second and 50 J; the first runs are those of a GPU that was idle."""
    now_s, made = 0.0, 0

    def counter() -> Iterator[int]:
        while True:
            yield 50_000 * max(0, made - 4)

    found = monitor(monkeypatch, Card(energy_mj=counter()))

    def run() -> None:
        nonlocal now_s, made
        now_s, made = round(now_s + 0.1, 6), made + 1

    use = found.measure_energy(run, lambda: now_s)
    assert use is not None
    assert (use.energy_j, use.runs) == (1500.0, 30)
    assert made == 35
    assert use.power_w == pytest.approx(500.0)
    assert use.error_share == pytest.approx(0.1 / 3)


def test_energy_that_is_not_told_or_stands_still_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_monitor, "ENERGY_WARMUP_S", 0.0)
    monkeypatch.setattr(gpu_monitor, "ENERGY_LEAST_S", 0.0)
    made: list[int] = []
    assert monitor(monkeypatch, Card(lacks=["TotalEnergyConsumption"])).measure_energy(lambda: made.append(1)) is None
    assert made == []
    assert monitor(monkeypatch, Card(energy_mj=steady(7))).measure_energy(lambda: None) is None


def a_process(root: Path, pid: int, parent: int, name: str = "python3 (x)") -> None:
    (root / f"proc/{pid}").mkdir(parents=True)
    (root / f"proc/{pid}/stat").write_text(f"{pid} ({name}) S {parent} 0 0\n")
    (root / f"proc/{pid}/comm").write_text(f"{name}\n")


def test_a_run_is_its_parent_and_all_below(tmp_path: Path) -> None:
    for pid, parent in ((100, 1), (101, 100), (102, 101), (200, 1), (1, 0), (300, 301), (301, 300)):
        a_process(tmp_path, pid, parent)
    family = Family(100, tmp_path)
    assert [pid in family for pid in (100, 101, 102)] == [True] * 3
    assert [pid in family for pid in (1, 200, 300, 999)] == [False] * 4
    assert (family.name(200), family.name(999)) == ("python3 (x) (200)", "process 999")


def test_this_process_is_of_its_own_run() -> None:
    assert os.getpid() in Family()
    assert Family().name(os.getpid()).endswith(f"({os.getpid()})")
