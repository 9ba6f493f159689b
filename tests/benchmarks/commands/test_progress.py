from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from benchmarks.commands import progress
from benchmarks.commands.progress import RunProgress
from exporter.document.status_line import Status, StatusLine
from runtimes.errors import Reason
from tests.benchmarks.doubles import Now
from tests.screens import watch


class Line(StatusLine):
    """A status line that keeps what it is to show."""

    def __init__(self) -> None:
        super().__init__(sys.stderr, live=True)
        self.shown: list[Status] = []

    def show(self, status: Status) -> None:
        self.shown.append(status)


def shown(work: Callable[[RunProgress, Now], None]) -> list[str]:
    """The lines of a terminal with 80 columns, one for each step."""
    line, now = Line(), Now()
    work(RunProgress(line, now), now)
    return [status.render(79) for status in line.shown]


def test_the_line_tells_the_position_the_share_and_the_time_left() -> None:
    def work(run: RunProgress, now: Now) -> None:
        run.set_time_left(100.0)
        run.set_position(3, 3, 8)
        run.step("openvino int8 · batch 1", "loading")
        now.s = 30.0
        run.set_time_left(70.0)
        run.set_position(1, 8, 8)
        run.step("net · batch 1", "process 2 of 3 · round 4 of 10")
        run.set_time_left(None)
        run.set_position(0, 0, 0)
        run.step("net", "writing the artifact")

    assert shown(work) == [
        "[3/8] openvino int8 · batch 1  ░░░░░░░░░░░░  loading, 1:40 left",
        "[1-8/8] net · batch 1  ▓▓▓▓░░░░░░░░  process 2 of 3 · round 4 of 10, 1:10 left",
        "net  writing the artifact",
    ]


def test_elsewhere_each_configuration_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.listening() as listener:
        listener.step("net", "exporting to ONNX")
        listener.step("net", "checking parity")
        listener.notice("Plan: 2 configurations")
        for number, configuration in enumerate(("fake · batch 1", "fake · batch 4"), start=1):
            listener.left(10.0)
            listener.position(number, number, 2)
            listener.step(f"net · {configuration}", "start")
            listener.step(f"net · {configuration}", "open")
        listener.position(1, 2, 2)
        listener.step("net", "round 1 of 2")
        listener.position(1, 1, 2)
        listener.step("net · fake · batch 1", "start")
        listener.position(0, 0, 0)
        listener.step("net", "writing the artifact")
        listener.step("other", "writing the artifact")
        listener.notice(Reason("a-code", "a notice"))
    assert capsys.readouterr().err.splitlines() == [
        "net",
        "Plan: 2 configurations",
        "[1/2] net · fake · batch 1",
        "[2/2] net · fake · batch 4",
        "warning[a-code]: a notice",
    ]


def test_a_name_cannot_write_to_a_file_of_lines(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\nb\r\x07\x9b2J.onnx"
    with progress.listening() as listener:
        listener.step(name, "open")
        listener.notice(f"of {name}")
    text = capsys.readouterr().err
    assert text.replace("\n", "").isprintable()
    shown = r"a\x1b[31m\nb\r\x07\x9b2J.onnx"
    assert text.splitlines() == [shown, f"of {shown}"]


RUN = """
import sys, time
from benchmarks.commands.progress import listening
with listening() as listener:
    listener.notice("Plan: 2 configurations")
    for number in (1, 2):
        listener.left(10.0 / number)
        listener.position(number, number, 2)
        for step in range(40):
            listener.step(f"fake · batch {number}", f"round {step} of 40")
            time.sleep(0.01)
    if len(sys.argv) > 1:
        sys.exit(130)
"""


@pytest.mark.parametrize(("arguments", "code"), [((), 0), (("interrupt",), 130)])
def test_a_terminal_shows_one_line_that_is_gone_at_the_end(arguments: tuple[str, ...], code: int) -> None:
    session = watch([sys.executable, "-c", RUN, *arguments])
    assert (session.code, session.lines, session.column, session.hidden) == (
        code,
        ("Plan: 2 configurations",),
        0,
        False,
    )
    assert max(map(len, session.frames)) == 2
    statuses = session.statuses()
    assert 2 <= len(statuses) <= 10
    assert all(status.startswith(("[1/2] fake · batch 1", "[2/2] fake · batch 2")) for status in statuses)
    assert "0:05 left" in statuses[-1]
