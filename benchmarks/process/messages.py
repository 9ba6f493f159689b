"""What a worker and its parent say to each other.

The worker's lines are the steps that it takes, in words. Those that begin with ``MARK`` are answers:
``opened PEAK_BYTES``, ``ready USUAL_S`` and ``turned MEDIAN_S``. When it has loaded the model the worker waits for
``call``, after ``opened`` for ``warm``, after ``ready`` and each ``turned`` for ``turn DURATION_S LEAST MOST`` or
``finish``. When the parent has gone, so does the worker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import astuple
from typing import TextIO

from benchmarks.process.job import TurnPlan
from runtimes.stdout import redirect_stdout

MARK = "\x01"
CALL, WARM, TURN, FINISH = "call", "warm", "turn", "finish"


class HungUpError(BaseException):
    """The parent has gone: there is nobody to work for. Not an error of the work."""


class Pipes:
    """The worker's end, over standard input and output."""

    def __init__(self, heard: TextIO, said: TextIO) -> None:
        self._heard = heard
        self._said = said

    def step(self, name: str) -> None:
        """Says what is done next."""
        self._write_line(name)

    def wait_for_start(self) -> None:
        """Waits until the model, which is loaded, may be called."""
        self._next()

    def report_open(self, peak_bytes: int) -> None:
        """Says that it is opened and checked, and waits until it may warm up."""
        self._write_line(f"{MARK}opened {peak_bytes}")
        self._next()

    def ready(self, usual_s: float) -> None:
        """Says that it is warm."""
        self._write_line(f"{MARK}ready {usual_s!r}")

    def report_turn(self, median_s: float) -> None:
        """Says that the turn is over."""
        self._write_line(f"{MARK}turned {median_s!r}")

    def turns(self) -> Iterator[TurnPlan]:
        """The turns to take, each when it is due."""
        while (words := self._next())[0] == TURN:
            duration_s, least, most = words[1:]
            yield TurnPlan(float(duration_s), int(least), int(most))

    def _write_line(self, line: str) -> None:
        try:
            self._said.write(line + "\n")
        except BrokenPipeError:
            raise HungUpError from None

    def _next(self) -> list[str]:
        line = self._heard.readline()
        if not line.endswith("\n"):
            raise HungUpError
        return line.split()


def detach_stdout() -> Pipes:
    """This process's ends; from now on what is printed to standard output goes to standard error."""
    return Pipes(sys.stdin, os.fdopen(redirect_stdout(), "w", buffering=1, encoding="utf-8"))


def encode_turn(turn: TurnPlan) -> str:
    """The turn as the parent says it."""
    return " ".join((TURN, *map(str, astuple(turn))))
