from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from benchmarks.accuracy import predictions
from benchmarks.harness import room
from benchmarks.harness.room import GPU_SPARE_BYTES, GPU_UNKNOWN_BYTES, Room
from benchmarks.harness.scheduler import (
    HELD,
    ScheduledJob,
    expect_processes,
    gather,
    in_rounds,
    plan_turns,
)
from benchmarks.machine.gpu_monitor import GpuMemory
from benchmarks.process.job import JobOutcome, ProcessOutcomes, TurnPlan
from benchmarks.records.plan import LEAST_PROCESSES, MOST_PROCESSES, Plan
from benchmarks.records.request import BenchmarkRequest
from benchmarks.records.samples import ProcessSamples
from runtimes.errors import Reason
from tests.benchmarks.scripts import JOB, SCRIPT, artifact

METHOD = BenchmarkRequest(duration_s=0.025, processes=2, rounds=2, max_samples=1000, seed=0, silence_s=60.0)

STANDING_IN = r"""
import json, os, sys
number, told = json.load(open(sys.argv[1]))["number"], lambda: sys.stdin.readline().split() or sys.exit()
print(f"pid {os.getpid()}", flush=True)
told()
print("\x01opened 1000000", flush=True)
told()
print("\x01ready 0.001", flush=True)
while told()[0] == "turn":
    print("\x01turned 0.001", flush=True)
open(sys.argv[2], "w").write(json.dumps({"status": "ok", "notes": [{"code": "number", "sentence": str(number)}]}))
"""
"""Speaks as a worker does, and measures nothing: it starts in a few hundredths of a second."""

ANNOUNCED = """
import os, sys
print("pid", os.getpid(), flush=True)
from benchmarks.worker.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""A real worker, which tells its process first."""


def number(value: int) -> tuple[Reason, ...]:
    """What a process that stands in notes: its number."""
    return (Reason("number", str(value)),)


def program(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code)


def standing_in(name: str, code: str = STANDING_IN) -> ScheduledJob:
    return ScheduledJob(name, JOB, program(code))


def real(name: str, path: Path, code: str = ANNOUNCED) -> ScheduledJob:
    plan = Plan(max_samples=1000, window_s=0.001, warmup_limit_s=0.02)
    return ScheduledJob(name, replace(JOB, artifact=str(path), plan=plan), (sys.executable, "-c", code))


@dataclass
class Ears:
    """Hears a field; ``when`` may do something at a line."""

    when: Callable[[str], None] = lambda _: None
    lines: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    estimates: list[tuple[float | None, float | None]] = field(default_factory=list)

    def __call__(self, name: str, step: str, left_s: float | None, whole_s: float | None) -> None:
        self.names.append(name)
        self.estimates.append((left_s, whole_s))
        self.lines.append(step)
        self.when(step)

    def pid(self, name: str) -> int:
        """Of its latest process."""
        return [int(line.split()[-1]) for line in self.lines if f"{name}: pid " in line][-1]

    @property
    def pids(self) -> list[int]:
        return [int(line.split()[-1]) for line in self.lines if ": pid " in line]


def last(
    entries: list[ScheduledJob], folder: Path, heard: Ears | None = None, method: BenchmarkRequest = METHOD
) -> list[ProcessOutcomes]:
    *_, found = gather(entries, method, folder, heard or Ears())
    return found


def sittings(gathered: ProcessOutcomes) -> list[ProcessSamples]:
    found = [outcome.sitting for outcome in gathered.outcomes if outcome.sitting is not None]
    assert gathered.sound
    assert len(found) == len(gathered.outcomes)
    return found


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def gone(pids: list[int], limit_s: float = 10.0) -> bool:
    deadline = time.monotonic() + limit_s
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(runs, pids))


def test_in_each_round_everyone_has_one_turn_in_a_shuffled_order() -> None:
    def orders(seed: int) -> list[tuple[str, ...]]:
        taken = list(in_rounds("abcd", 20, random.Random(seed)))
        assert [number for number, _ in taken] == [number for number in range(20) for _ in "abcd"]
        return [tuple(name for _, name in taken[start : start + 4]) for start in range(0, 80, 4)]

    assert all(sorted(order) == list("abcd") for order in orders(0))
    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert len(set(orders(0))) > 8  # shuffled anew in each round
    first = Counter(order[0] for seed in range(50) for order in orders(seed))
    assert all(200 < count < 300 for count in first.values())  # each is as often the first


def test_one_that_is_taken_out_has_no_further_turns() -> None:
    names, turns = dict.fromkeys("abcd", 0), Counter[str]()
    for number, name in in_rounds(names.keys(), 5, random.Random(3)):
        turns[name] += 1
        if (number, name) in ((0, "c"), (1, "b")):
            del names[name]
    assert turns == {"a": 5, "b": 2, "c": 1, "d": 5}
    assert list(in_rounds((), 5, random.Random(0))) == []


@pytest.mark.parametrize(
    ("method", "slowest_s", "rounds", "turn"),
    [
        (
            replace(METHOD, duration_s=0.2, processes=5, rounds=10, max_samples=10_000),
            1e-4,
            10,
            TurnPlan(0.02, 1, 1000),
        ),
        (replace(METHOD, duration_s=0.2, processes=5, rounds=10, max_samples=10_000), 0.05, 4, TurnPlan(0.05, 1, 2500)),
        (replace(METHOD, duration_s=0.2, processes=5, rounds=10, max_samples=10_000), 3.0, 4, TurnPlan(0.05, 1, 2500)),
        (replace(METHOD, duration_s=0.2, processes=5, rounds=1, max_samples=10_000), 3.0, 1, TurnPlan(0.2, 2, 10_000)),
        (
            replace(METHOD, duration_s=0.2, processes=None, rounds=1, max_samples=10_000),
            3.0,
            1,
            TurnPlan(0.2, 4, 10_000),
        ),
        (replace(METHOD, duration_s=2.0, processes=1, rounds=10, max_samples=50_000), 0.0, 10, TurnPlan(0.2, 1, 5000)),
        (replace(METHOD, duration_s=2.0, processes=1, rounds=10, max_samples=50_000), 9.0, 4, TurnPlan(0.5, 3, 12_500)),
        (replace(METHOD, duration_s=2.0, processes=1, rounds=1, max_samples=50_000), 9.0, 1, TurnPlan(2.0, 10, 50_000)),
        (replace(METHOD, duration_s=0.5, processes=2, rounds=2, max_samples=2), 1e-4, 2, TurnPlan(0.25, 1, 1)),
        (replace(METHOD, duration_s=0.2, processes=5, rounds=10, max_samples=1), 1e-4, 10, TurnPlan(0.02, 1, 1)),
        (replace(METHOD, duration_s=1.0, processes=1, rounds=1, max_samples=7), 1e-4, 1, TurnPlan(1.0, 7, 7)),
    ],
)
def test_turns_share_the_duration_and_the_samples(
    method: BenchmarkRequest, slowest_s: float, rounds: int, turn: TurnPlan
) -> None:
    found, given = plan_turns(method, slowest_s)
    assert (found, given.least, given.most) == (rounds, turn.least, turn.most)
    assert given.duration_s == pytest.approx(turn.duration_s)


def test_real_processes_take_turns_and_the_first_tells_for_all(tmp_path: Path) -> None:
    path, ears = artifact(tmp_path), Ears()
    entries = [
        real("a", path),
        real("b", path),
        replace(real("c", path), job=replace(JOB, artifact=str(path), evaluate=False)),
    ]
    found: list[ProcessOutcomes] = []
    for given, found in enumerate(gather(entries, METHOD, tmp_path, ears)):
        assert [len(one.outcomes) for one in found] == [given] * 3
    assert given == 2
    for one in found:
        rounds = [len(sitting.latency.rounds_s) for sitting in sittings(one)]
        assert rounds == [len(sitting.starts_s) for sitting in sittings(one)] == [2, 2]
        assert [outcome.arithmetic for outcome in one.outcomes] == ["float32", None]
        assert not one.alone
    for number in range(2):
        starts_s = sorted(
            (start_s, place, turn)
            for place, one in enumerate(found)
            for turn, start_s in enumerate(sittings(one)[number].starts_s)
        )
        assert [turn for _, _, turn in starts_s] == [0, 0, 0, 1, 1, 1]  # round by round
    assert max(sittings(found[0])[0].starts_s) < min(sittings(found[1])[1].starts_s)
    evaluated = [[outcome.evaluated_per_s is not None for outcome in one.outcomes] for one in found]
    assert evaluated == [[True, False], [True, False], [False, False]]
    for one in found[:2]:
        assert one.predictions is not None
        assert len(predictions.load(one.predictions).indices) == 64
    assert found[2].predictions is not None
    assert not found[2].predictions.exists()
    assert len(set(ears.pids)) == 6  # fresh ones each time
    assert gone(ears.pids)


SECOND_DIES = """
import json, os, signal, sys
if json.load(open(sys.argv[1]))["number"] == 1:
    os.kill(os.getpid(), signal.SIGSEGV)
from benchmarks.worker.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_those_that_fail_leave_the_others_in_peace(tmp_path: Path) -> None:
    """One dies at its first call, one in its second process, one in the middle of a turn, one raises there, one is
    killed while it waits, and one hangs then: the sound one has all of its turns."""
    sound = artifact(tmp_path)
    slow = replace(SCRIPT, delays_s=(1e-4,))
    paths = {"first": replace(SCRIPT, die_at=0), "dies": replace(slow, die_at=400), "fails": replace(slow, fail_at=400)}
    entries = [real(name, artifact(tmp_path, script, f"{name}.fake")) for name, script in paths.items()]
    entries += [real("second", sound, SECOND_DIES), standing_in("killed"), standing_in("hangs"), real("sound", sound)]
    done: set[str] = set()

    def disturb(line: str) -> None:
        if "round 1 of 2 · killed" in line and "killed" not in done:
            done.add("killed")
            os.kill(ears.pid("killed"), signal.SIGKILL)
        if "round 1 of 2 · hangs" in line and "hangs" not in done:
            done.add("hangs")
            os.kill(ears.pid("hangs"), signal.SIGSTOP)

    ears = Ears(disturb)
    method = replace(METHOD, duration_s=0.4, silence_s=1.5)
    found = dict(zip([entry.name for entry in entries], last(entries, tmp_path, ears, method), strict=True))
    reasons = {name: [outcome.reason for outcome in one.outcomes] for name, one in found.items()}
    codes = {name: [outcome.reason and outcome.reason.code for outcome in one.outcomes] for name, one in found.items()}
    assert codes["first"] == codes["dies"] == codes["killed"] == ["process-killed"]
    assert codes["second"] == [None, "process-killed"]
    assert codes["hangs"] == ["process-hung"]
    assert codes["fails"] != ["process-crashed"]
    for name, values in {
        "first": ("SIGSEGV", "'first call'"),
        "dies": ("SIGSEGV", "'warm-up'"),
        "second": ("SIGSEGV", "first step"),
        "fails": ("400",),
        "killed": ("SIGKILL", f"'pid {ears.pid('killed')}'"),
        "hangs": ("1.5 s", f"'pid {ears.pid('hangs')}'"),
    }.items():
        assert all(value in str(reasons[name][-1]) for value in values), reasons[name]
    assert [len(sitting.latency.rounds_s) for sitting in sittings(found["sound"])] == [2, 2]
    assert len(sittings(replace(found["second"], outcomes=found["second"].outcomes[:1]))) == 1
    assert gone(ears.pids)


def test_an_interrupt_ends_all_and_leaves_the_complete_processes(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if "process 2 of 3 · round 1 of 2 · a" in line:
            raise KeyboardInterrupt

    ears = Ears(interrupt)
    entries = [standing_in("a"), standing_in("b"), real("c", artifact(tmp_path))]
    sat = gather(entries, replace(METHOD, processes=3), tmp_path, ears)
    found = next(sat)
    assert next(sat) is found
    assert gone(ears.pids)
    with pytest.raises(KeyboardInterrupt):
        next(sat)
    assert [len(one.outcomes) for one in found] == [1, 1, 1]
    assert all(one.sound for one in found)
    assert len(ears.pids) == 6
    assert gone(ears.pids)


PARENT = """
import sys
from pathlib import Path
from benchmarks.harness.scheduler import gather
from tests.benchmarks.harness.test_scheduler import METHOD, real, replace
path, folder = map(Path, sys.argv[1:])
method = replace(METHOD, duration_s=60.0, rounds=1000)
for _ in gather([real("a", path), real("b", path)], method, folder, lambda _, step, *__: print(step, flush=True)):
    pass
"""


def test_workers_leave_by_themselves_when_their_parent_is_killed(tmp_path: Path) -> None:
    path, pids = artifact(tmp_path), list[int]()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        for line in parent.stdout:
            if ": pid " in line:
                pids.append(int(line.split()[-1]))
            if "round 3" in line:
                break
        assert len(pids) == 2
        assert all(map(runs, pids))
        parent.send_signal(signal.SIGKILL)
        assert gone(pids)


def test_those_beyond_the_number_held_are_measured_alone_later(tmp_path: Path) -> None:
    names = [f"n{number:02}" for number in range(HELD + 2)]
    ears = Ears()
    found = last([standing_in(name) for name in names], tmp_path, ears, replace(METHOD, rounds=1))
    assert [one.alone and one.alone.code for one in found] == [None] * HELD + ["processes-held"] * 2
    assert all([outcome.notes for outcome in one.outcomes] == [number(0), number(1)] for one in found)
    begun = [line.split(" · ")[-1].removesuffix(": start") for line in ears.lines if line.endswith(": start")]
    assert begun == [*names[:HELD] * 2, *[names[HELD]] * 2, *[names[HELD + 1]] * 2]
    assert len(set(ears.pids)) == 2 * (HELD + 2)


def test_those_for_which_there_is_no_memory_are_measured_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([room.SPARE_BYTES + 1_000_001, room.SPARE_BYTES + 1_000_000])
    monkeypatch.setattr(room, "available_bytes", lambda: next(left))
    ears = Ears()
    found = last([standing_in(name) for name in "abcd"], tmp_path, ears)
    assert [one.alone and one.alone.code for one in found] == [None, None, "memory-short", "memory-short"]
    assert all([outcome.notes for outcome in one.outcomes] == [number(0), number(1)] for one in found)
    begun = [line.split(" · ")[-1][0] for line in ears.lines if line.endswith(": start")]
    assert begun == list("ababccdd")


ON_A_GPU = STANDING_IN.replace(
    r'print("\x01opened 1000000", flush=True)',
    r"""print('\x01gpu {"own_bytes": 3000, "free_bytes": FREE, "growth_bytes": 500, "exclusive": false}')
print("\x01opened 1000000", flush=True)""",
)
"""One on a GPU, whose memory it tells."""


def test_those_that_find_no_gpu_memory_are_measured_alone(tmp_path: Path) -> None:
    """The second leaves room for the others' inputs, and not for another process."""
    free = [9000, 4500, 0]
    entries = [
        standing_in(name, ON_A_GPU.replace("FREE", str(GPU_SPARE_BYTES + left)))
        for name, left in zip("abc", free, strict=True)
    ]
    found = last(entries, tmp_path)
    assert [one.alone and one.alone.code for one in found] == [None, None, "gpu-memory-short"]
    assert all([outcome.notes for outcome in one.outcomes] == [number(0), number(1)] for one in found)


def test_room_on_a_gpu_is_what_is_free_less_what_comes() -> None:
    """Two processes will take 500 each for their inputs, and the next one is as large as the largest: 3,000 and 500."""

    def shortage(free_bytes: int) -> str | None:
        held = Room()
        held.add(1.0, GpuMemory(3000, 1 << 40, 500))
        held.add(1.0, GpuMemory(100, free_bytes, 500))
        reason = held.find_shortage()
        return reason and reason.code

    assert shortage(GPU_SPARE_BYTES + 4501) is None
    assert shortage(GPU_SPARE_BYTES + 4500) == "gpu-memory-short"


def test_a_gpu_that_tells_nothing_is_assumed_to_be_large() -> None:
    held = Room()
    held.add(1.0, GpuMemory(None, None))
    assert held.find_shortage() is None
    held.add(1.0, GpuMemory(None, GPU_SPARE_BYTES + GPU_UNKNOWN_BYTES))
    assert held.find_shortage() is not None


def test_an_exclusive_gpu_has_room_for_one() -> None:
    held = Room()
    assert held.find_shortage() is None
    held.add(1.0, GpuMemory(1, 1 << 40, exclusive=True))
    reason = held.find_shortage()
    assert reason is not None
    assert reason.code == "gpu-one-process"


ON_A_SHARED_GPU = """
import os, sys
from dataclasses import replace
from pathlib import Path
import pytest
from benchmarks.machine import gpu_monitor
from benchmarks.worker.__main__ import main
from runtimes.backends import registry
from tests.benchmarks.nvml import Card, installed
place = Path(PLACE)
with place.open("a") as file:
    file.write(f"{os.getpid()}\\n")
class Shared(Card):
    @property
    def processes(self):
        return {1 << 30: 900, **dict.fromkeys(map(int, place.read_text().split()), 500)}
    @processes.setter
    def processes(self, value):
        pass
installed(pytest.MonkeyPatch(), Shared())
gpu_monitor.ENERGY_WARMUP_S = gpu_monitor.ENERGY_LEAST_S = 1e-9
rows = tuple(replace(row, devices=("cpu", "cuda")) for row in registry.all_backends() if row.name == "fake")
registry.all_backends = lambda: rows
sys.exit(main(sys.argv[1:]))
"""
"""A real worker of the scripted backend on a scripted GPU, which lists the workers in a file, and another process."""


def test_on_a_shared_gpu_workers_tell_each_other_from_strangers(tmp_path: Path) -> None:
    code = ON_A_SHARED_GPU.replace("PLACE", repr(str(tmp_path / "workers")))
    entries = [real(name, artifact(tmp_path, name=f"{name}.fake"), code) for name in "ab"]
    entries = [replace(entry, job=replace(entry.job, device="cuda", evaluate=False)) for entry in entries]
    found = last(entries, tmp_path, method=replace(METHOD, processes=1))
    assert len((tmp_path / "workers").read_text().split()) == 2
    for gathered in found:
        (sitting,) = sittings(gathered)
        assert sitting.conditions is not None
        assert sitting.conditions.gpu is not None
        assert sitting.conditions.gpu.processes == (f"process {1 << 30}",)
        assert gathered.outcomes[0].device_peak_bytes == 500


WARMING = STANDING_IN.replace('told()\nprint("\\x01ready', "print('warm', *told()[1:], flush=True)\nprint(\"\\x01ready")
"""One that tells how long it has to work before its warm-up."""


@pytest.mark.parametrize(("device", "first"), [("cuda", ["warm 1.0"]), ("cpu", ["warm"])])
def test_on_a_gpu_the_first_of_a_set_works_before(tmp_path: Path, device: str, first: list[str]) -> None:
    ears = Ears()
    last([standing_in(name, WARMING) for name in "ab"], tmp_path, ears, replace(METHOD, device=device))
    told = [line.split(": ")[-1] for line in ears.lines if ": warm" in line]
    assert told == [*first, "warm"] * 2


def test_only_the_first_processes_load_one_at_a_time(tmp_path: Path) -> None:
    ears = Ears()
    last([standing_in(name) for name in "abc"], tmp_path, ears)
    steps = [line.split(": ")[1].split()[0] for line in ears.lines if ": start" in line or ": pid" in line]
    assert steps == [*["start", "pid"] * 3, *["start"] * 3, *["pid"] * 3]


CALLING = r"""
import os, sys, time
told = lambda: sys.stdin.readline().split() or sys.exit()
def note(word): os.write(log, f"{word} {os.getpid()}\n".encode())
log = os.open(PLACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
note("loaded")
told()
note("calls")
time.sleep(0.1)
note("called")
print("\x01opened 1", flush=True)
told()
print("\x01ready 0.001", flush=True)
while told()[0] == "turn":
    print("\x01turned 0.001", flush=True)
open(sys.argv[2], "w").write('{"status": "ok"}')
"""


def test_no_two_call_their_models_at_once_before_the_turns(tmp_path: Path) -> None:
    """They load side by side, and would compute side by side too if nobody kept them from it."""
    place = tmp_path / "log"
    code = CALLING.replace("PLACE", repr(str(place)))
    last([standing_in(name, code) for name in "abc"], tmp_path)
    words = place.read_text().split()[::2]
    assert words[-9:].count("loaded") == 3
    assert [word for word in words if word != "loaded"] == ["calls", "called"] * 6


def test_without_a_number_time_decides_how_many_there_are(tmp_path: Path) -> None:
    ears, timely = Ears(), replace(METHOD, processes=None, rounds=1)
    (found,) = last([standing_in("a")], tmp_path, ears, timely)
    assert len(found.outcomes) == MOST_PROCESSES
    heads = [line.split(" · ")[0] for line in ears.lines if "round" in line]
    assert heads == ["process 1", "process 2", *(f"process {number} of 10" for number in range(3, 11))]
    (found,) = last([standing_in("a")], tmp_path, method=replace(timely, budget_s=1e-6))
    assert len(found.outcomes) == LEAST_PROCESSES


@pytest.mark.parametrize(
    ("taken_s", "expected"),
    [
        ([], 3),
        ([1.0], 3),
        ([40.0, 1.0], 10),
        ([40.0, 7.0], 3),
        ([40.0, 7.0, 7.0], 3),
        ([40.0, 5.0, 4.9], 5),
        ([40.0, 5.0, 5.1], 4),
        ([90.0, 5.0, 5.0], 3),
        ([0.0, 0.0, 0.0], 10),
        ([5.0] * 10, 10),
    ],
)
def test_how_many_there_will_be_follows_from_the_time_alone(taken_s: list[float], expected: int) -> None:
    assert expect_processes(replace(METHOD, processes=None, budget_s=60.0), taken_s) == expected
    assert expect_processes(replace(METHOD, processes=4), taken_s) == 4


def test_how_far_it_is_is_told_with_what_is_left(tmp_path: Path) -> None:
    ears = Ears()
    last([standing_in("a"), standing_in("b")], tmp_path, ears)
    assert [name for name in ears.names if name] == ["a", "a", "b", "b"]  # what is new, once
    rounds = [line for line in ears.lines if "round" in line]
    assert len(rounds) == 8
    assert rounds[0].split(" · ")[0::2] in [["process 1 of 2", f"{name} 1 ms"] for name in "ab"]
    first, second = (
        [
            (line, left_s, process_s)
            for line, (left_s, process_s) in zip(ears.lines, ears.estimates, strict=True)
            if line.startswith(f"process {number} of 2")
        ]
        for number in (1, 2)
    )
    assert {left_s for _, left_s, _ in first} == {None}  # it evaluates as well, which nothing tells
    assert {process_s for line, _, process_s in first if "round" not in line} == {None}
    assert all((process_s or 0.0) > 0 for line, _, process_s in first if "round" in line)
    for _, left_s, process_s in second:
        assert left_s is not None
        assert process_s is not None
        assert 0 <= left_s <= process_s


def test_a_field_of_one_process_each_does_not_number_them(tmp_path: Path) -> None:
    ears = Ears()
    (one,) = last([standing_in("a")], tmp_path, ears, replace(METHOD, processes=1))
    assert one.outcomes == [JobOutcome("ok", notes=number(0))]
    assert ears.lines[0] == "a: start"
    assert ears.lines[-1].split(" · ")[1:] == ["a 1 ms"]


def test_a_field_of_nothing_is_over_at_once(tmp_path: Path) -> None:
    assert last([], tmp_path) == []


def test_a_field_in_which_everyone_fails_ends(tmp_path: Path) -> None:
    found = last([standing_in(name, "import sys; sys.exit(3)") for name in "ab"], tmp_path)
    assert [[outcome.reason and outcome.reason.code for outcome in one.outcomes] for one in found] == [
        ["process-crashed"]
    ] * 2
    assert not any(one.alone for one in found)
