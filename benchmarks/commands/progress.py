"""What is being measured, on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from benchmarks.format import roughly
from benchmarks.records.request import RunListener

CLEAR_LINE = "\r\x1b[K"

USUAL_COLUMNS = 80
"""Where the terminal does not tell."""


@contextlib.contextmanager
def listening() -> Iterator[RunListener]:
    """A listener that tells on standard error what is being measured, and cleans up after itself."""
    progress = _Progress()
    try:
        yield RunListener(progress.step, progress.notice, progress.set_time_left)
    finally:
        progress.clear()


class _Progress:
    """Tells on standard error what is being measured: one line that changes on a terminal, else a line for each.

    It writes when a step begins and not in between: a spinner would take processor time from what is measured.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._told: set[str] = set()
        self._left = ""

    def set_time_left(self, left_s: float | None) -> None:
        self._left = "" if left_s is None else f"{roughly(left_s)} left · "

    def step(self, subject: str, step: str) -> None:
        if self._terminal:
            line = _plain(f"{self._left}{subject}: {step}")
            sys.stderr.write(f"{CLEAR_LINE}{line[: _columns() - 1]}")
        elif not self._is_known(subject):
            sys.stderr.write(f"{_plain(subject)}\n")
        self._told.add(subject)
        sys.stderr.flush()

    def _is_known(self, subject: str) -> bool:
        """Whether it was told, or a configuration of it."""
        return any(told == subject or told.startswith(f"{subject} · ") for told in self._told)

    def notice(self, text: str) -> None:
        self.clear()
        sys.stderr.write(f"{_plain(text)}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._terminal:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()


def _columns() -> int:
    """Of the terminal that standard error is: standard output may lie elsewhere."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_COLUMNS
    return USUAL_COLUMNS


def _plain(text: str) -> str:
    """In one line and without control characters: names of files are anybody's."""
    return "".join(character if character.isprintable() else " " for character in text)
