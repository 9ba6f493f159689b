from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.process import isolated
from benchmarks.process.isolated import Failure, call, describe_ending

PRELUDE = "import os, signal, sys, time; from pathlib import Path; request, reply = sys.argv[-2:]; "


@dataclass(frozen=True)
class Sum:
    terms: tuple[int, ...]


@dataclass(frozen=True)
class Total:
    value: int


def ask(code: str, timeout_s: float = 30.0) -> Total | Failure:
    return call("", Sum((1, 2)), Total, timeout_s, (sys.executable, "-c", f"{PRELUDE}{code}"))


def main(arguments: list[str]) -> int:
    return isolated.answer(arguments, Sum, lambda request: Total(sum(request.terms)))


def test_a_module_answers_and_what_it_prints_is_not_in_the_way(capfd: pytest.CaptureFixture[str]) -> None:
    code = "print('noise'); os.write(1, b'noise'); from tests.benchmarks.process.test_isolated import main; "
    assert ask(f"{code}main([request, reply])") == Total(3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "expected", "exit_code", "values"),
    [
        ("sys.exit(7)", "process-crashed", 7, ("7",)),
        ("raise SystemExit('no memory')", "process-crashed", 1, ("1", ": no memory")),
        ("pass", "process-crashed", 0, ("0",)),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "process-killed", -signal.SIGSEGV, ("SIGSEGV",)),
        ("os.kill(os.getpid(), signal.SIGKILL)", "process-killed", -signal.SIGKILL, ("SIGKILL", "memory?")),
        ("time.sleep(60)", "process-hung", None, ("0.5 s",)),
        ("Path(reply).write_text('what?')", "reply-damaged", 0, ("JSON",)),
        ("Path(reply).write_text('{}')", "reply-damaged", 0, ("value",)),
    ],
)
def test_a_process_without_a_reply_says_how_it_ended(
    code: str, expected: str, exit_code: int | None, values: tuple[str, ...]
) -> None:
    failure = ask(code, 0.5 if "sleep" in code else 30.0)
    assert isinstance(failure, Failure)
    assert (failure.reason.code, failure.exit_code) == (expected, exit_code)
    for value in values:
        assert value in failure.reason.sentence


def test_the_last_line_of_standard_error_is_kept() -> None:
    failure = ask("sys.stderr.write('one\\n  two \\n\\n'); sys.exit(4)")
    assert isinstance(failure, Failure)
    assert failure.last_line == "two"
    assert failure.reason.sentence.endswith(": two")


def test_what_the_process_started_ends_with_it(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid"
    ask(f"import subprocess; Path({str(place)!r}).write_text(str({sleeper})); time.sleep(60)", 2.0)
    pid, deadline = int(place.read_text()), time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_all_processes_end_in_the_same_words() -> None:
    reason = describe_ending(-signal.SIGABRT, 1.0, "at the last step", "free(): invalid\tpointer")
    assert reason.code == "process-killed"
    for value in ("SIGABRT", "at the last step", "free(): invalid pointer"):
        assert value in reason.sentence
