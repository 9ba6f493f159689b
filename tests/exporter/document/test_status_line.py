from __future__ import annotations

import errno
import io
import itertools
from dataclasses import replace
from functools import partial

import pytest
from rich.cells import cell_len

from exporter.document.status_line import (
    CLEAR_BELOW,
    Status,
    StatusLine,
    clock_time,
    coded_line,
    cut,
    is_live,
    notice_line,
)
from runtimes.errors import Reason
from runtimes.escaping import printable
from tests.interrupts import Use, interrupt_in_process
from tests.processes import wait_for

FULL = Status("openvino int8 · batch 1", "3/8", 2 / 3, "process 2 of 3 · round 4 of 10 · ov int8 2 ms", 70)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (120, "[3/8] openvino int8 · batch 1  ▓▓▓▓▓▓▓▓░░░░  process 2 of 3 · round 4 of 10 · ov int8 2 ms, 1:10 left"),
        (90, "[3/8] openvino int8 · batch 1  ▓▓▓▓▓▓▓▓░░░░  process 2 of 3 · round 4 of 10, 1:10 left"),
        (79, "[3/8] openvino int8 · batch 1  ▓▓▓▓▓▓▓▓░░░░  process 2 of 3, 1:10 left"),
        (60, "[3/8] openvino int8 · batch 1  ▓▓▓▓▓▓▓▓░░░░  1:10 left"),
        (40, "[3/8] openvino int8 · batch 1  1:10 left"),
        (30, "[3/8] openvino int…  1:10 left"),
        (10, "[3/8] ope…"),
        (0, ""),
    ],
)  # fmt: skip
def test_a_narrow_line_loses_the_least_first(columns: int, line: str) -> None:
    assert FULL.render(columns) == line


def test_no_line_is_wider_than_the_terminal_whatever_its_letters() -> None:
    texts = ("net", "目录" * 20, "e\u0301" * 60, "🙂" * 50)
    for text, detail, share, columns in itertools.product(texts, ("", "一 · 二" * 9), (None, 0.5), range(0, 100, 7)):
        assert cell_len(Status(text, "1/2", share, detail, 5).render(columns)) <= columns


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (Status("exporting to ONNX"), "exporting to ONNX  0:12"),
        (Status("exporting to ONNX", left_s=3), "exporting to ONNX  0:03 left"),
        (Status("reading", share=0), "reading  ░░░░░░░░░░░░  0:12"),
        (Status("reading", share=7.5, detail="46 of 98 MB"), "reading  ▓▓▓▓▓▓▓▓▓▓▓▓  46 of 98 MB, 0:12"),
    ],
)
def test_the_time_is_that_which_is_left_or_has_gone_by(status: Status, line: str) -> None:
    assert status.render(79, elapsed_s=12.4) == line


def test_an_encoding_without_these_letters_gets_others() -> None:
    assert replace(FULL, detail="").render(79, encoding="ascii") == (
        "[3/8] openvino int8 - batch 1  ########----  1:10 left"
    )
    assert Status("目").render(79, encoding="latin-1") == "?"


@pytest.mark.parametrize(
    ("seconds", "words"), [(-3, "0:00"), (0.4, "0:00"), (69.6, "1:10"), (3599.4, "59:59"), (3900, "1:05:00")]
)
def test_a_time_is_written_as_a_clock_shows_it(seconds: float, words: str) -> None:
    assert clock_time(seconds) == words


def test_a_cut_text_says_so() -> None:
    assert (cut("resnet20", 8), cut("resnet20", 5), cut("resnet20", 0)) == ("resnet20", "resn…", "")


def test_a_name_cannot_write_to_the_terminal() -> None:
    name = "a\x1b[31m\nb\r\x07\x9b2J\u202e.onnx"
    for text in (printable(name), Status(name, detail=name).render(200), notice_line(name)):
        assert text.isprintable()
        assert "a\\x1b[31m\\nb" in text


def test_a_notice_of_a_reason_has_its_kind_and_code() -> None:
    reason = Reason("untrained", "random weights")
    assert notice_line(reason) == "warning[untrained]: random weights"
    assert coded_line("notice", *reason) == "notice[untrained]: random weights"
    assert notice_line("a plain line") == "a plain line"


class Recorder(io.StringIO):
    """A stream that counts its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


def test_the_line_is_drawn_over_itself_and_cleared_at_the_end() -> None:
    stream = Recorder()
    with StatusLine(stream, live=True) as line:
        line.show(Status("open"))
        wait_for(lambda: len(stream.writes) == 1)
        line.print_line("a notice")
        wait_for(lambda: len(stream.writes) == 3)
    drawn, cleared = f"\ropen{CLEAR_BELOW}\r", f"\r{CLEAR_BELOW}"
    assert stream.writes == [drawn, f"{cleared}a notice\n", drawn, cleared]


def test_what_has_not_changed_is_not_drawn_again() -> None:
    stream = Recorder()
    with StatusLine(stream, live=True) as line:
        line.show(Status("open"))
        wait_for(lambda: stream.writes)
        for _ in range(3):
            line.show(Status("open"))
            line.draw()
    assert len(stream.writes) == 2


def test_quick_steps_are_drawn_seldom_but_the_last_always() -> None:
    stream = Recorder()
    with StatusLine(stream, live=True) as line:
        for number in range(1000):
            line.show(Status(f"step {number}"))
        wait_for(lambda: "step 999" in stream.writes[-1])
    assert len(stream.writes) <= 4


def test_a_ticking_line_shows_the_time_that_goes_by() -> None:
    stream, now = Recorder(), [100.0]
    with StatusLine(stream, live=True, ticks=True, clock=lambda: now[0]) as line:
        line.show(Status("exporting"))
        wait_for(lambda: stream.writes)
        now[0] += 61
        wait_for(lambda: len(stream.writes) == 2)
    assert [text.split(CLEAR_BELOW)[0].strip("\r") for text in stream.writes] == [
        "exporting  0:00",
        "exporting  1:01",
        "",
    ]


def test_elsewhere_only_whole_lines_are_written() -> None:
    stream = Recorder()
    with StatusLine(stream, live=False) as line:
        line.show(Status("open"))
        line.print_line("a notice")
        line.draw()
    assert stream.getvalue() == "a notice\n"


def test_a_terminal_that_has_gone_ends_nothing() -> None:
    stream = Gone()
    with StatusLine(stream, live=True) as line:
        line.show(Status("open"))
        line.print_line("a notice")
        wait_for(lambda: len(stream.writes) >= 2)
    assert stream.getvalue() == ""


class Gone(Recorder):
    """The end of a terminal whose window was closed."""

    def write(self, text: str) -> int:
        self.writes.append(text)
        raise OSError(errno.EIO, "gone")


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False), ("unknown", False), ("", False)])
def test_a_terminal_without_a_cursor_gets_plain_lines(term: str, live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    assert is_live(Tty()) == live
    assert not is_live(io.StringIO())


def use_line(live: bool) -> Use:
    line = StatusLine(io.StringIO(), live)

    def use() -> None:
        for number in range(10):
            line.print_line("a notice")
            line.show(Status(str(number)))

    return use, line.__exit__


use_live_line, use_plain_line = partial(use_line, True), partial(use_line, False)


@pytest.mark.parametrize("name", ["use_live_line", "use_plain_line"])
def test_an_interrupt_at_any_moment_ends_the_line(name: str) -> None:
    assert interrupt_in_process(__name__, name, longest_s=1e-4) > 1000
