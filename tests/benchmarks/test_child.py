from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import child
from benchmarks.job import Outcome
from tests.benchmarks.scripts import JOB, SCRIPT, artifact


def program(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def ended(code: str, folder: Path, silence_s: float = 30.0) -> Outcome:
    return child.run(JOB, folder, lambda _: None, silence_s, program=program(code))[0]


def test_a_real_worker_brings_back_its_outcome(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    steps: list[str] = []
    outcome, answers = child.run(replace(JOB, artifact=str(artifact(tmp_path))), folder, steps.append, 60.0)
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert answers.exists()
    assert steps[-2:] == ["accuracy 0 of 64", "profile"]


def test_a_worker_that_is_killed_by_its_library_is_an_error_with_the_signal_and_the_step(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    path = artifact(tmp_path, replace(SCRIPT, die_at=0))
    outcome, _ = child.run(replace(JOB, artifact=str(path)), folder, lambda _: None, 60.0)
    assert outcome == Outcome("error", "its process was ended by SIGSEGV during step 'first call'")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.exit(3)", "its process ended with exit code 3 before its first step"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL (out of memory?) before its first step"),
        ("print('open', flush=True); raise SystemExit('no room')", "exit code 1 during step 'open': no room"),
    ],
)
def test_a_worker_that_dies_is_an_error(tmp_path: Path, code: str, reason: str) -> None:
    outcome = ended(code, tmp_path)
    assert outcome.status == "error"
    assert reason in (outcome.reason or "")


@pytest.mark.parametrize("stop", ["time.sleep(60)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_a_worker_that_hangs_is_ended(tmp_path: Path, stop: str) -> None:
    start = time.monotonic()
    outcome = ended(f"import os, signal, time; print('latency', flush=True); {stop}", tmp_path, silence_s=0.5)
    assert outcome == Outcome("error", "its process gave no sign of life for 0.5 s during step 'latency'")
    assert time.monotonic() - start < 20


def test_a_worker_that_dies_after_its_outcome_has_still_given_it(tmp_path: Path) -> None:
    code = 'import os, sys; open(sys.argv[2], \'w\').write(\'{"status": "failed", "reason": "r"}\'); os.abort()'
    assert ended(code, tmp_path) == Outcome("failed", "r")


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
        child.run(JOB, tmp_path, interrupted, 30.0, program=program(FAMILY))
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
    assert "no sign of life" in (ended(code, tmp_path, silence_s=0.5).reason or "")
