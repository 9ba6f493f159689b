from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from benchmarks.commands import progress
from benchmarks.commands.progress import CLEAR_LINE
from benchmarks.records.request import RunListener
from tests.benchmarks.terminals import Terminal


def told(columns: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[RunListener], None]) -> list[str]:
    """The lines that stood on a terminal one after another, the empty last one too."""
    with Terminal(columns) as terminal, terminal.file() as file:
        monkeypatch.setattr(sys, "stderr", file)
        with progress.listening() as listener:
            work(listener)
        first, *lines = terminal.read().split(CLEAR_LINE)
    assert first == ""
    return lines


def test_a_terminal_shows_one_line_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(listener: RunListener) -> None:
        listener.step("net", "open")
        listener.left(42.4)
        listener.step("net", "round 1")
        listener.left(None)
        listener.step("net", "accuracy")

    assert told(60, monkeypatch, work) == [
        "net: open",
        "42 s left · net: round 1",
        "net: accuracy",
        "",
    ]


def test_a_line_is_cut_to_the_width_of_its_own_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # as a shell says it of standard output

    def work(listener: RunListener) -> None:
        listener.left(3600.0)
        listener.step("net", "x" * 100)

    assert told(30, monkeypatch, work)[0] == f"60 min left · net: {'x' * 100}"[:29]
    assert len(told(0, monkeypatch, work)[0]) == progress.USUAL_COLUMNS - 1  # it does not tell


def test_a_notice_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(listener: RunListener) -> None:
        listener.step("net", "export")
        listener.notice("a notice")
        listener.step("net", "open")

    assert told(60, monkeypatch, work) == [
        "net: export",
        "a notice\r\n",
        "net: open",
        "",
    ]


def test_elsewhere_each_configuration_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.listening() as listener:
        for configuration in ("fake · batch 1", "fake · batch 4"):
            listener.left(10.0)
            listener.step(f"net · {configuration}", "start")
            listener.step(f"net · {configuration}", "open")
        listener.step("net", "round 1 of 2")  # of those that were told
        listener.step("other", "export")
        listener.step("netter", "export")
        listener.notice("a notice")
    lines = ["net · fake · batch 1", "net · fake · batch 4", "other", "netter", "a notice", ""]
    assert capsys.readouterr().err.split("\n") == lines


@pytest.mark.parametrize("terminal", [False, True])
def test_a_name_cannot_write_to_the_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\x1b[31m\nb\r\x07\x9b2J.onnx"

    def work(listener: RunListener) -> None:
        listener.step(name, "open")
        listener.notice(f"of {name}")

    if terminal:
        text = "".join(told(100, monkeypatch, work)).replace("\r\n", "")
    else:
        with progress.listening() as listener:
            work(listener)
        text = capsys.readouterr().err.replace("\n", "")
    assert text.isprintable()
    assert "a [31m b" in text


def test_an_error_leaves_no_line_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with Terminal(60) as terminal, terminal.file() as file:
        monkeypatch.setattr(sys, "stderr", file)
        interrupted = pytest.raises(KeyboardInterrupt)
        with interrupted, progress.listening() as listener:
            listener.step("net", "open")
            raise KeyboardInterrupt
        assert terminal.read() == f"{CLEAR_LINE}net: open{CLEAR_LINE}"


@pytest.mark.parametrize(
    ("left_s", "words"),
    [(0.2, "1 s"), (1.6, "2 s"), (89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (36000, "10.0 h")],
)
def test_an_estimate_is_as_coarse_as_it_is(left_s: float, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(listener: RunListener) -> None:
        listener.left(left_s)
        listener.step("net", "open")

    assert told(60, monkeypatch, work)[0] == f"{words} left · net: open"
