"""The program that interrupts commands sees what a careless one does."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from scripts.figures import interrupts
from scripts.figures.interrupts import Target, judge, strike

CAREFUL = """
import signal, sys, time
def end(number, frame):
    print("\\x1b[Jinterrupted", file=sys.stderr)
    sys.exit(130 if number == signal.SIGINT else 143)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
"""


def problems(folder: Path, body: str, number: signal.Signals, after_s: float = 0.2) -> list[str]:
    """What is wrong with a command of that body, which is struck."""
    target = Target(("rexport", "onnx"), folder / "out", folder / "temporary")
    for each in (target.out, target.temporary):
        each.mkdir()
    program = f"import os\nout, temporary = {str(target.out)!r}, os.environ['TMPDIR']\n{CAREFUL}{body}"
    ending = strike((sys.executable, "-c", program), number, after_s, target.temporary)
    return list(judge(ending, number, target))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_ends_at_once_has_no_problem(tmp_path: Path, number: signal.Signals) -> None:
    assert problems(tmp_path, "time.sleep(60)", number) == []


def test_a_command_that_was_over_before_has_none(tmp_path: Path) -> None:
    assert problems(tmp_path, "sys.exit()", signal.SIGINT, 60) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("signal.signal(signal.SIGINT, lambda *_: None); time.sleep(2)", "went on"),
        ("signal.signal(signal.SIGINT, lambda *_: sys.exit(70)); time.sleep(60)", "exit code 70"),
        ("sys.exit(3)", "exit code 3"),
        ("signal.signal(signal.SIGINT, lambda *_: sys.exit(130)); time.sleep(60)", "silent"),
        ("signal.signal(signal.SIGINT, lambda *_: 1 / 0); time.sleep(60)", "traceback"),
        ("open(temporary + '/half', 'w'); time.sleep(60)", "left over: half"),
        ("open(out + '/.net.onnx.1.tmp', 'w'); time.sleep(60)", "left over: .net.onnx.1.tmp"),
        ("open(out + '/net.onnx', 'w'); time.sleep(60)", "damaged"),
    ],
)
def test_a_careless_command_is_seen(tmp_path: Path, body: str, problem: str) -> None:
    assert [each for each in problems(tmp_path, body, signal.SIGINT, 1.0) if each.startswith(problem)]


def test_a_command_that_does_not_end_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "LIMIT_S", 0.5)
    body = "signal.signal(signal.SIGTERM, lambda *_: None)\nwhile True: time.sleep(60)"
    assert problems(tmp_path, body, signal.SIGTERM) == ["hung"]
