from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.process import worker_process
from benchmarks.process.job import JobOutcome, TurnPlan
from benchmarks.process.worker_process import Worker
from runtimes.errors import Reason
from tests.benchmarks.scripts import JOB, SCRIPT, artifact


def program(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def ended(code: str, folder: Path, silence_s: float = 30.0) -> JobOutcome:
    return worker_process.run(JOB, folder, lambda _: None, silence_s, program=program(code))[0]


def assert_ended(outcome: JobOutcome, code: str, *values: str) -> None:
    """The process gave no outcome of its own, and the reason has this code and names the values."""
    assert (outcome.status, outcome.reason and outcome.reason.code) == ("error", code)
    for value in values:
        assert value in str(outcome.reason)


def test_a_real_worker_brings_back_its_outcome(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    steps: list[str] = []
    outcome, answers = worker_process.run(replace(JOB, artifact=str(artifact(tmp_path))), folder, steps.append, 60.0)
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert answers.exists()
    assert outcome.sitting is not None
    assert len(outcome.sitting.latency.rounds_s) == len(outcome.sitting.compute.rounds_s) == 1
    assert [step for step in steps if step in ("open", "warm-up", "profile")] == ["open", "warm-up", "profile"]


CHEATING = """
import sys, runtimes
from benchmarks.worker.__main__ import main
from tests.benchmarks import doubles
runtimes.open = doubles.opening(doubles.{kind})
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("kind", "codes"), [("Queueing", {"runs-unfinished"}), ("FillingLater", {"output-late", "output-changed"})]
)
def test_a_backend_that_returns_early_gets_no_number(tmp_path: Path, kind: str, codes: set[str]) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    job = replace(JOB, artifact=str(artifact(tmp_path, replace(SCRIPT, delays_s=(2e-4,)))))
    plan = replace(job.plan, duration_s=0.03, min_samples=40)
    code = CHEATING.format(kind=kind)
    outcome, answers = worker_process.run(replace(job, plan=plan), folder, lambda _: None, 60.0, program=program(code))
    assert (outcome.status, outcome.sitting) == ("failed", None)
    assert outcome.reason is not None
    assert outcome.reason.code in codes
    assert not answers.exists()


def test_a_worker_takes_its_turns_when_it_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    job = replace(JOB, artifact=str(artifact(tmp_path)), evaluate=False)
    with Worker(job, folder, lambda _: None, 60.0) as worker:
        resident, usual_s = worker.wait_until_open(), worker.warm()
        medians = [worker.turn(TurnPlan(0.01, 1, most)) for most in (5, 3)]
        worker.finish()
        outcome = worker.outcome()
    assert outcome.sitting is not None
    assert 1 << 20 < (resident or 0) <= (outcome.sitting.peak_bytes or 0)
    assert usual_s is not None
    rounds_s = outcome.sitting.latency.rounds_s
    assert [len(samples) for samples in rounds_s] == [5, 3]
    assert medians == [pytest.approx(statistics.median(samples), abs=1e-9) for samples in rounds_s]
    assert usual_s > 0


def test_a_worker_that_is_not_told_to_finish_gives_no_outcome(tmp_path: Path) -> None:
    with Worker(JOB, tmp_path, lambda _: None, 30.0, program=program(ANSWERING)) as worker:
        assert worker.wait_until_open() == 4096
        assert worker.warm() == 0.5
        assert worker.turn(TurnPlan(1.0, 1, 1)) == 0.25
    assert_ended(worker.outcome(), "process-killed", "SIGKILL", "'late'")


ANSWERING = r"""
import sys
def told():
    line = sys.stdin.readline().split()
    return line[0] if line else sys.exit()
assert told() == "call"
print("open\n\x01opened 40", end="", flush=True)
print("96\nlater", flush=True)
assert told() == "warm"
print("\x01ready 0.5", flush=True)
while told() == "turn":
    print("late\n\x01turned 0.25", flush=True)
open(sys.argv[2], "w").write('{"status": "ok"}')
"""


def test_what_comes_in_pieces_or_together_is_heard_alike(tmp_path: Path) -> None:
    steps: list[str] = []
    outcome, _ = worker_process.run(JOB, tmp_path, steps.append, 30.0, program=program(ANSWERING))
    assert outcome == JobOutcome("ok")
    assert steps[-1] == "late"
    assert set(steps) <= {"open", "later", "late"}


@pytest.mark.parametrize(("word", "answers"), [('"warm"', 1), ('"turn"', 2)])
def test_a_worker_that_dies_in_place_of_an_answer_is_an_error(tmp_path: Path, word: str, answers: int) -> None:
    line = next(line for line in ANSWERING.splitlines() if word in line)
    code = ANSWERING.replace(line, f"told(); sys.exit(7)\n{line}")
    with Worker(JOB, tmp_path, lambda _: None, 30.0, program=program(code)) as worker:
        given = [
            worker.wait_until_open(),
            worker.warm(),
            worker.turn(TurnPlan(1.0, 1, 1)),
            worker.turn(TurnPlan(1.0, 1, 1)),
        ]
        assert [value is not None for value in given] == [True] * answers + [False] * (4 - answers)
        outcome = worker.outcome()
    assert_ended(outcome, "process-crashed", " 7 ", "'later'")


def test_a_worker_that_is_killed_while_it_waits_is_an_error(tmp_path: Path) -> None:
    with Worker(JOB, tmp_path, lambda _: None, 30.0, program=program(ANSWERING)) as worker:
        assert worker.wait_until_open() == 4096
        os.kill(worker._process.pid, signal.SIGKILL)
        assert worker.warm() is None
        assert worker.turn(TurnPlan(1.0, 1, 1)) is None
        worker.finish()
    outcome = worker.outcome()  # which step it had come to when it was killed is the scheduler's choice
    assert_ended(outcome, "process-killed", "SIGKILL")


def test_a_worker_that_its_library_kills_names_signal_and_step(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    path = artifact(tmp_path, replace(SCRIPT, die_at=0))
    outcome, _ = worker_process.run(replace(JOB, artifact=str(path)), folder, lambda _: None, 60.0)
    assert_ended(outcome, "process-killed", "SIGSEGV", "'first call'")


EXITS = "import sys; sys.exit(3)"
IS_KILLED = "import os; os.kill(os.getpid(), 9)"
EXPLAINS = "print('open', flush=True); raise SystemExit('no room')"


@pytest.mark.parametrize(
    ("code", "expected", "values"),
    [
        (EXITS, "process-crashed", (" 3 ", "first step")),
        (IS_KILLED, "process-killed", ("SIGKILL", "(out of memory?)", "first step")),
        (EXPLAINS, "process-crashed", (" 1 ", "'open': no room")),
    ],
)
def test_a_worker_that_dies_is_an_error(tmp_path: Path, code: str, expected: str, values: tuple[str, ...]) -> None:
    assert_ended(ended(code, tmp_path), expected, *values)


@pytest.mark.parametrize("stop", ["time.sleep(3600)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_a_worker_that_hangs_is_ended(tmp_path: Path, stop: str) -> None:
    outcome = ended(f"import os, signal, time; print('latency', flush=True); {stop}", tmp_path, silence_s=0.5)
    assert_ended(outcome, "process-hung", "0.5 s", "'latency'")


def test_a_worker_that_dies_after_its_outcome_has_still_given_it(tmp_path: Path) -> None:
    reason = json.dumps({"status": "failed", "reason": {"code": "c", "sentence": "r"}})
    code = f"import os, sys; open(sys.argv[2], 'w').write({reason!r}); os.abort()"
    assert ended(code, tmp_path) == JobOutcome("failed", Reason("c", "r"))


FAMILY = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL)
print(grandchild.pid, flush=True)
time.sleep(60)
"""


def test_an_interrupt_ends_the_worker_and_what_it_started(tmp_path: Path) -> None:
    family: list[int] = []

    def interrupted(step: str) -> None:
        family.append(int(step))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker_process.run(JOB, tmp_path, interrupted, 30.0, program=program(FAMILY))
    deadline = time.monotonic() + 10
    while _runs(family[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(family[0])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state not in ("Z", "X")


def test_the_signal_that_ends_hung_workers_cannot_be_ignored(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    assert_ended(ended(code, tmp_path, silence_s=0.5), "process-hung", "0.5 s")
