from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from benchmarks.machine import gpu_disturbances, monitor
from benchmarks.machine.disturbances import disturbances, find_invalidity, list_warnings
from benchmarks.machine.gpu import GpuState
from benchmarks.machine.gpu_conditions import GpuConditions
from benchmarks.machine.monitor import (
    Conditions,
    MachineMonitor,
    TurnConditions,
    clock,
    combine_turns,
    spin,
    wait_until_idle,
)
from benchmarks.machine.procfs import Account, SnapshotDelta, Ticks, change, take_snapshot
from runtimes import codec
from runtimes.errors import CheckFailedError, Reason
from scripts.figures.disturbances import Case, busy, watch_worker

QUIET = Conditions(
    wall_s=10.0,
    cpu_s=19.8,
    involuntary_switches=300,
    sentinel=0.998,
    foreign_cores=0.02,
    steal_share=0.0,
    pressure_share=0.01,
    mhz=(3800.0, 3790.0),
    throttled=0,
    clock_resolution_s=5e-8,
    clock_cost_s=4e-8,
    processors=2,
    foreign_error_cores=0.01,
    waited_s=0.2,
)

GPU = GpuState("Fast GPU", "uuid", 1980, 2619, 300.0, 50, ("idle", "application clocks"), 1.0, 1 << 30)

USABLE = tuple(sorted(os.sched_getaffinity(0)))


def judge(conditions: Conditions, threads: int, *gpu_states: GpuState | None) -> tuple[Reason, ...]:
    """The disturbances of one process, which is watched."""
    found = disturbances([conditions], threads, *gpu_states)
    assert found is not None
    return found


def test_a_quiet_machine_has_no_disturbances() -> None:
    assert judge(QUIET, 2, GPU, GPU) == ()


@pytest.mark.parametrize(
    ("seen", "code", "figures"),
    [
        ({"foreign_cores": 0.93}, "others-busy", ("46 %", "limit 5 %")),
        ({"steal_share": 0.034}, "time-stolen", ("3.4 %", "limit 1 %")),
        ({"pressure_share": 0.5}, "system-waited", ("50 %", "limit 25 %")),
        ({"sentinel": 0.49}, "sentinel-waited", ("49 %", "limit 95 %")),
        ({"sentinel": 0.0}, "sentinel-waited", ("0 %", "limit 95 %")),
        ({"waited_s": 8.1}, "threads-waited", ("40 %", "limit 5 %")),
        ({"involuntary_switches": 2290}, "threads-switched", ("229", "200")),
        ({"mhz": (3800.0, 3200.0)}, "frequency-changed", ("3,800", "3,200", "5 %")),
        ({"throttled": 1}, "processor-throttled", ("once",)),
        ({"throttled": 1200}, "processor-throttled", ("1,200",)),
    ],
)
def test_each_disturbance_has_its_figure_and_its_bound(
    seen: dict[str, object], code: str, figures: tuple[str, ...]
) -> None:
    (reason,) = judge(replace(QUIET, **seen), 2)  # type: ignore[arg-type]
    assert reason.code == code
    assert all(figure in reason.sentence for figure in figures)


@pytest.mark.parametrize(
    "seen",
    [
        {"foreign_cores": 0.11},
        {"steal_share": 0.015},
        {"pressure_share": 0.25},
        {"sentinel": 0.95},
        {"waited_s": 1.0},
        {"involuntary_switches": 2000},
        {"mhz": (4000.0, 3800.0)},
    ],
)
def test_the_bound_itself_is_quiet(seen: dict[str, object]) -> None:
    """That of the counted ones with what they may be off."""
    assert judge(replace(QUIET, **seen), 2) == ()  # type: ignore[arg-type]


def test_an_unknown_load_is_a_warning_and_no_disturbance() -> None:
    untold = Conditions(0.5, 0.4, 1, None, None, None, None, None, None, 5e-8, 4e-8)
    assert judge(untold, 2) == ()
    assert [warning.code for warning in list_warnings(untold, [1.0])] == ["others-unknown"]


def test_a_few_ticks_are_no_load() -> None:
    short = replace(QUIET, wall_s=0.1, involuntary_switches=3, waited_s=0.0, foreign_cores=0.30)
    assert judge(replace(short, foreign_error_cores=0.25), 2) == ()
    assert judge(replace(short, foreign_error_cores=0.15), 2)


@pytest.mark.parametrize(
    ("threads", "bound", "foreign", "marked"),
    [(1, "4.9 %", 3.0, False), (1, "4.9 %", 4.0, True), (64, "0.16 %", 1.0, True)],
)
def test_a_large_machine_may_have_more_services(threads: int, bound: str, foreign: float, marked: bool) -> None:
    found = judge(replace(QUIET, processors=64, foreign_cores=foreign, waited_s=0.0), threads)
    assert bool(found) is marked
    assert all(bound in reason.sentence for reason in found)


def test_turns_that_took_no_time_are_not_judged() -> None:
    nothing = combine_turns([], 2, 5e-8, 4e-8)
    assert (nothing.wall_s, nothing.sentinel, nothing.foreign_cores, nothing.waited_s) == (0.0, None, None, None)
    assert judge(nothing, 1) == ()


def test_of_several_processes_the_worst_counts() -> None:
    loud, louder = replace(QUIET, foreign_cores=0.5), replace(QUIET, foreign_cores=0.9, throttled=2)
    found = disturbances([loud, None, QUIET, louder], 2)
    assert found is not None
    busy, throttled = found
    assert (busy.code, throttled.code) == ("others-busy", "processor-throttled")
    assert "45 %" in busy.sentence
    assert "2 times" in throttled.sentence


@pytest.mark.parametrize(
    ("seen", "code", "figure"),
    [
        ({"foreign_cores": 0.41}, "machine-busy", "20 %"),
        ({"steal_share": 0.2}, "host-busy", "20 %"),
        ({"sentinel": 0.5}, "processor-withheld", "50 %"),
        ({"throttled": 3}, "cpu-throttled", "temperature"),
    ],
)
def test_a_result_of_a_busy_machine_is_invalid(seen: dict[str, object], code: str, figure: str) -> None:
    reason = find_invalidity([replace(QUIET, **seen)], 2)  # type: ignore[arg-type]
    assert reason is not None
    assert (reason.code, figure in reason.sentence) == (code, True)


def test_a_little_load_disturbs_without_invalidating() -> None:
    little, busy = replace(QUIET, foreign_cores=0.19), replace(QUIET, foreign_cores=1.0)
    assert disturbances([little], 2)
    assert find_invalidity([little], 2) is None
    assert find_invalidity([busy, *[QUIET] * 9], 2) is None
    assert find_invalidity([busy, QUIET], 2) is not None
    assert find_invalidity([None, None], 2) is None


def test_what_was_not_watched_is_not_quiet() -> None:
    assert disturbances([None, None], 2) is None


@pytest.mark.parametrize("slowdown", ["hardware thermal slowdown", "power brake"])
def test_a_gpu_that_was_held_down_is_a_disturbance(slowdown: str) -> None:
    held = replace(GPU, throttle=("idle", slowdown))
    wanted = judge(QUIET, 2, GPU, held)
    assert [(reason.code, slowdown in reason.sentence) for reason in wanted] == [("gpu-throttled", True)]
    assert judge(QUIET, 2, held, None) == wanted
    assert disturbances([QUIET, QUIET], 2, held, GPU) == wanted
    assert find_invalidity([QUIET], 2, held, GPU) == wanted[0]


def test_every_slowdown_is_a_word_that_the_gpu_may_say() -> None:
    from benchmarks.machine import gpu

    assert {*gpu_disturbances.SLOWDOWNS, gpu_disturbances.AT_LIMIT} <= {*gpu._REASONS.values()}


def test_a_gpu_at_its_power_limit_is_a_warning() -> None:
    limited = replace(GPU, throttle=("power cap",))
    assert judge(QUIET, 2, limited, limited) == ()
    assert [warning.code for warning in list_warnings(QUIET, [1.0], (None, limited))] == ["gpu-power-limit"]
    assert list_warnings(QUIET, [1.0], (replace(GPU, throttle=None),)) == ()


ON_GPU = GpuConditions(
    wall_s=10.0,
    sm_mhz=(1950, 1980),
    throttle=("idle",),
    power_limited_s=0.05,
    thermal_limited_s=0.0,
    foreign_share=0.0,
    foreign_share_before=0.01,
    processes=(),
)
"""A GPU that the run has for itself."""


def on_gpu(**seen: object) -> Conditions:
    """A quiet machine, and what was seen of its GPU."""
    return replace(QUIET, gpu=replace(ON_GPU, **seen))  # type: ignore[arg-type]


def test_a_gpu_of_its_own_has_no_disturbances() -> None:
    assert judge(on_gpu(), 2, GPU, GPU) == ()
    assert find_invalidity([on_gpu()], 2) is None
    assert list_warnings(on_gpu(), [1.0], (GPU, GPU)) == ()


@pytest.mark.parametrize(
    ("seen", "code", "figures"),
    [
        ({"foreign_share": 0.37}, "gpu-others-busy", ("37 %", "limit 1 %")),
        ({"foreign_share": None, "foreign_share_before": 0.37}, "gpu-others-busy", ("37 %",)),
        ({"processes": ("python3 (7)",)}, "gpu-shared", ("python3 (7)",)),
        ({"processes": ("a (1)", "b (2)", "c (3)", "d (4)", "e (5)")}, "gpu-shared", ("c (3)", "2 more")),
        ({"sm_mhz": (1800, 1980)}, "gpu-clock-changed", ("1,800", "1,980", "5 %")),
        ({"thermal_limited_s": 0.2}, "gpu-temperature", ("2 %", "limit 1 %")),
        ({"throttle": ("idle", "power brake")}, "gpu-throttled", ("power brake",)),
    ],
)
def test_each_disturbance_of_a_gpu_has_its_limit(seen: dict[str, object], code: str, figures: tuple[str, ...]) -> None:
    wanted = judge(on_gpu(**seen), 2)
    assert [reason.code for reason in wanted] == [code]
    assert all(figure in wanted[0].sentence for figure in figures)


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        ({"foreign_share": 0.3}, "gpu-shared-too-much"),
        ({"thermal_limited_s": 2.0}, "gpu-hot"),
        ({"throttle": ("hardware slowdown",)}, "gpu-throttled"),
    ],
)
def test_a_result_of_a_busy_or_hot_gpu_is_invalid(seen: dict[str, object], code: str) -> None:
    reason = find_invalidity([on_gpu(**seen)], 2)
    assert reason is not None
    assert reason.code == code


def test_a_little_use_of_a_gpu_disturbs_alone() -> None:
    little = [on_gpu(foreign_share=0.3), *[on_gpu()] * 9]
    assert find_invalidity(little, 2) is None
    assert disturbances(little, 2)
    assert find_invalidity([on_gpu(processes=("idle notebook (7)",))], 2) is None


def test_power_that_held_the_clock_down_is_a_warning() -> None:
    limited = on_gpu(power_limited_s=4.3, throttle=("power cap",))
    assert judge(limited, 2) == ()
    (warning,) = list_warnings(limited, [1.0])
    assert (warning.code, "43 %" in warning.sentence) == ("gpu-power-limit", True)


def test_a_gpu_whose_users_are_unknown_says_so() -> None:
    unknown = on_gpu(foreign_share=None, foreign_share_before=None, processes=None)
    assert [warning.code for warning in list_warnings(unknown, [1.0])] == ["gpu-others-unknown"]


def test_conditions_of_a_processor_have_nothing_of_a_gpu() -> None:
    assert "gpu" not in codec.encode(QUIET)
    assert codec.loads(Conditions, codec.dumps(on_gpu())) == on_gpu()


def test_samples_too_short_for_the_clock_are_a_warning() -> None:
    assert list_warnings(QUIET, [51e-6] * 9) == ()
    (warning,) = list_warnings(QUIET, [49e-6] * 9 + [1.0])
    assert warning.code == "clock-too-coarse"
    assert all(figure in warning.sentence for figure in ("49.00 µs", "0.050 µs"))
    assert list_warnings(replace(QUIET, clock_cost_s=1e-3), [0.5]) != ()


def test_conditions_survive_json() -> None:
    assert codec.loads(Conditions, codec.dumps(QUIET)) == QUIET


class Stepping:
    """A clock that costs ``cost_s`` to read and shows whole steps of ``step_s``."""

    def __init__(self, cost_s: float, step_s: float) -> None:
        self.now_s = 0.0
        self._cost_s, self._step_s = cost_s, step_s

    def __call__(self) -> float:
        self.now_s += self._cost_s
        return self.now_s // self._step_s * self._step_s


@pytest.mark.parametrize(("cost_s", "step_s"), [(2.0**-20, 2.0**-20), (2.0**-20, 2.0**-15)])
def test_the_clocks_step_and_cost(cost_s: float, step_s: float) -> None:
    resolution_s, cost_seen_s = clock(Stepping(cost_s, step_s))
    assert resolution_s == step_s
    assert cost_seen_s == pytest.approx(cost_s, abs=step_s / monitor.READS)


def test_this_machines_clock_steps_and_costs_something() -> None:
    resolution_s, cost_s = clock()
    assert resolution_s > 0
    assert cost_s > 0


@pytest.mark.parametrize(("share", "seen"), [(1.0, 1.0), (0.5, 0.5), (1.5, 1.0)])
def test_the_sentinel_is_processor_time_over_wall_time(share: float, seen: float) -> None:
    wall = Stepping(2.0**-10, 2.0**-10)
    assert spin(0.25, wall, lambda: wall.now_s * share) == pytest.approx(seen, rel=0.02)
    assert wall.now_s == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(("spins_s", "waited_s"), [(0.0, 0.005), (0.004, 0.010), (0.038, 0.045), (9.0, 0.250)])
def test_a_process_is_waited_for_until_its_threads_are_at_rest(spins_s: float, waited_s: float) -> None:
    now_s = 0.0

    def sleep(duration_s: float) -> None:
        nonlocal now_s
        now_s = round(now_s + duration_s, 6)

    wait_until_idle(lambda: now_s, lambda: min(now_s, spins_s), sleep)
    assert now_s == waited_s


def test_a_turn_ends_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(monitor, "wait_until_idle", lambda: told.append("rest"))
    with MachineMonitor(tmp_path, sentinel_s=0.0).turn():
        told.append("work")
    assert told == ["work", "rest"]


def turn(idle_s: float, steal_s: float = 0.0, cpu_s: float = 0.9, **told: object) -> TurnConditions:
    """A second on two processors, as the kernel tells it."""
    ticks = Ticks(1.0, idle_s / 2, steal_s / 2)
    seen = SnapshotDelta(Account(1.0, cpu_s, {0: ticks, 1: ticks}), 0.01, 0.1, 1, 3000.0)
    return TurnConditions(0.99, 1.0, cpu_s, 3, replace(seen, **told))  # type: ignore[arg-type]


def test_turns_are_added_up_to_the_digit() -> None:
    turns = [turn(1.0, mhz=3100.0), turn(0.5, steal_s=0.1, throttled=2), replace(turn(0.2), sentinel=0.5, switches=10)]
    assert combine_turns(turns, 2, 1e-9, 2e-9) == Conditions(
        wall_s=3.0,
        cpu_s=2.7,
        involuntary_switches=16,
        sentinel=0.99,
        foreign_cores=round((6.0 - 1.7 - 0.1 - 2.7) / 3, 4),
        steal_share=round(0.1 / 6, 4),
        pressure_share=0.1,
        mhz=(3100.0, 3000.0),
        throttled=4,
        clock_resolution_s=1e-9,
        clock_cost_s=2e-9,
        processors=2,
        foreign_error_cores=0.01,  # three of sqrt(3 turns x 2 processors / 6) ticks of 10 ms, over 3 s
        waited_s=0.03,
    )


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("account", "foreign_cores"),
        ("account", "steal_share"),
        ("waited_s", "waited_s"),
        ("pressure_s", "pressure_share"),
        ("throttled", "throttled"),
        ("mhz", "mhz"),
    ],
)
def test_what_one_turn_does_not_tell_is_not_guessed(name: str, field: str) -> None:
    untold: dict[str, Any] = {name: None}
    seen = combine_turns([turn(1.0), turn(1.0, **untold)], 2, 1e-9, 1e-9)
    assert getattr(seen, field) is None


def test_accounts_that_stand_still_tell_nothing() -> None:
    still = turn(0.0, account=Account(1.0, 0.9, {0: Ticks(0.0, 0.0, 0.0), 1: Ticks(0.0, 0.0, 0.0)}))
    assert combine_turns([still], 2, 1e-9, 1e-9).foreign_cores is None


def test_own_work_that_was_counted_late_is_no_negative_load() -> None:
    assert combine_turns([turn(1.2)], 2, 1e-9, 1e-9).foreign_cores == 0.0


STAT = """cpu  1 1 1 1 1 1 1 1 1 1
cpu0 100 5 20 300 40 1 2 7 9 9
cpu1 1 1 1 50 1 1 1 1
cpu10 0 0 0 60
intr 5 5 5
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def a_machine(root: Path) -> Path:
    after_name = " ".join(["0"] * 36)
    throttle = "sys/devices/system/cpu/cpu{}/thermal_throttle/{}_throttle_count"
    write(
        root,
        {
            "proc/stat": STAT,
            "proc/pressure/cpu": "some avg10=0.45 avg60=0.46 avg300=1.32 total=4500000\nfull avg10=0 total=9\n",
            "proc/self/task/11/schedstat": "900 2000000000 7\n",
            "proc/self/task/12/schedstat": "900 500000000 7\n",
            "proc/thread-self/stat": f"11 (a) name) {after_name} 10 0 0",
            "sys/devices/system/cpu/cpu10/cpufreq/scaling_cur_freq": "3200000\n",
            "proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 2600.500\n\nprocessor\t: 1\ncpu MHz\t\t: 1.0\n",
            throttle.format(0, "core"): "5\n",
            throttle.format(0, "package"): "8\n",
            throttle.format(1, "core"): "1\n",
        },
    )
    return root


def test_a_machine_that_tells_everything(tmp_path: Path) -> None:
    seen = take_snapshot(a_machine(tmp_path), (0, 1, 10))
    assert seen.account is not None
    assert seen.account.processors == {
        0: Ticks(4.75, 3.4, 0.07),
        1: Ticks(0.57, 0.51, 0.01),
        10: Ticks(0.6, 0.6, 0.0),
    }
    assert seen.waited_s == {"11": 2.0, "12": 0.5}
    assert seen.pressure_s == 4.5
    assert seen.throttled == {"0 core_throttle_count": 5, "0 package_throttle_count": 8, "1 core_throttle_count": 1}
    assert seen.mhz == 3200.0


def test_a_virtual_machine_tells_the_nominal_frequency(tmp_path: Path) -> None:
    a_machine(tmp_path)
    (tmp_path / "sys/devices/system/cpu/cpu10/cpufreq/scaling_cur_freq").unlink()
    assert take_snapshot(tmp_path, (0,)).mhz == 2600.5
    write(tmp_path, {"proc/cpuinfo": "cpu MHz : unknown\n"})
    assert take_snapshot(tmp_path, (0,)).mhz is None


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    seen = take_snapshot(tmp_path, (0,))
    assert (seen.account, seen.waited_s, seen.pressure_s, seen.throttled, seen.mhz) == (None, None, None, None, None)
    told = change(seen, seen)
    assert (told.account, told.waited_s, told.pressure_s, told.throttled, told.mhz) == (None, None, None, None, None)


def test_a_container_with_numbers_of_its_own_is_unknown(tmp_path: Path) -> None:
    assert take_snapshot(a_machine(tmp_path), (0, 2)).account is None


def test_between_two_looks(tmp_path: Path) -> None:
    before = take_snapshot(a_machine(tmp_path), (0, 1))
    write(
        tmp_path,
        {
            "proc/stat": STAT.replace("cpu0 100 5 20 300 40 1 2 7", "cpu0 130 5 20 320 50 1 2 9"),
            "proc/pressure/cpu": "some avg10=0.45 avg60=0.46 avg300=1.32 total=4750000\n",
            "proc/self/task/11/schedstat": "900 2250000000 7\n",
            "proc/self/task/13/schedstat": "900 125000000 7\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "10\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
        },
    )
    (tmp_path / "proc/self/task/12/schedstat").unlink()
    told = change(before, take_snapshot(tmp_path, (0, 1)))
    assert told.account is not None
    grown = told.account.processors
    assert (grown[0].total_s, grown[0].idle_s, grown[0].steal_s) == pytest.approx((0.62, 0.3, 0.02))
    assert grown[1] == Ticks(0.0, 0.0, 0.0)
    assert told.waited_s == 0.375
    assert (told.pressure_s, told.throttled, told.mhz) == (0.25, 3, 3200.0)


def test_a_watcher_sees_what_changes_in_its_turns_alone(tmp_path: Path) -> None:
    pressure = tmp_path / "proc/pressure/cpu"
    watcher = MachineMonitor(a_machine(tmp_path), sentinel_s=0.0)
    pressure.write_text("some avg10=0 total=10000000\n")
    with watcher.turn():
        pressure.write_text("some avg10=0 total=10000100\n")
        end = time.perf_counter() + 0.01
        while time.perf_counter() < end:
            pass
    pressure.write_text("some avg10=0 total=99000000\n")
    seen = watcher.conditions()
    assert seen.pressure_share == round(100e-6 / seen.wall_s, 4)
    assert seen.wall_s >= 0.01
    assert seen.cpu_s > 0
    assert seen.processors == len(USABLE)


def test_a_turn_that_raises_does_not_count(tmp_path: Path) -> None:
    watcher = MachineMonitor(tmp_path, sentinel_s=0.0)
    with pytest.raises(ZeroDivisionError), watcher.turn():
        raise ZeroDivisionError
    assert watcher.conditions().wall_s == 0.0


def test_this_machine_tells_of_its_processors_and_threads() -> None:
    watcher = MachineMonitor()
    for _ in range(2):
        with watcher.turn():
            work(1, 0.03)
    seen = watcher.conditions()
    assert seen.sentinel is not None
    assert 0 < seen.sentinel <= 1
    assert seen.foreign_cores is not None
    assert 0 <= seen.foreign_cores <= len(USABLE)
    assert seen.waited_s is not None
    assert codec.loads(Conditions, codec.dumps(seen)) == seen


def work(threads: int, duration_s: float) -> None:
    """Keeps so many threads at work: hashing large blocks lets go of the interpreter's lock."""
    block, end = bytes(1 << 18), time.perf_counter() + duration_s

    def one() -> None:
        while time.perf_counter() < end:
            hashlib.sha256(block).digest()

    others = [threading.Thread(target=one) for _ in range(threads - 1)]
    for other in others:
        other.start()
    one()
    for other in others:
        other.join()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_busy_loop_on_the_same_processor_is_noticed_each_time(threads: int) -> None:
    with busy(USABLE[0]):
        for _ in range(5):
            watcher = MachineMonitor()
            for _ in range(3):
                with watcher.turn():
                    work(threads, 0.08)
            assert judge(watcher.conditions(), threads), watcher.conditions()


def test_a_worker_beside_a_busy_loop_is_marked(tmp_path: Path) -> None:
    """In a process of its own, as rbench's workers are, with ONNX Runtime."""
    path = str(tmp_path / "tiny.onnx")
    image, same = (helper.make_tensor_value_info(name, 1, ["batch", 3, 32, 32]) for name in ("input", "logits"))
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["logits"])], "tiny", [image], [same])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    seen = watch_worker(path, Case("one thread", 1, (USABLE[0],), USABLE[0]))
    assert seen.processors == 1
    assert judge(seen, 1)


def test_a_worker_that_breaks_is_no_quiet_one(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=r"none\.onnx"):
        watch_worker(str(tmp_path / "none.onnx"), Case("one thread", 1, (USABLE[0],), None))
