"""What is being measured, on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from benchmarks.request import Listener

CLEAR_LINE = "\r\x1b[K"


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """A listener that tells on standard error what is being measured, and cleans up after itself."""
    progress = _Progress()
    try:
        yield Listener(progress.step, progress.notice)
    finally:
        progress.clear()


class _Progress:
    """Tells on standard error what is being measured: one line that changes on a terminal, else a line for each.

    It writes when a step begins and not in between: a spinner would take processor time from what is measured.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._subject: str | None = None

    def step(self, subject: str, step: str) -> None:
        if self._terminal:
            sys.stderr.write(f"{CLEAR_LINE}{subject}: {step}")
        elif subject != self._subject:
            sys.stderr.write(f"{subject}\n")
        self._subject = subject
        sys.stderr.flush()

    def notice(self, text: str) -> None:
        self.clear()
        sys.stderr.write(f"{text}\n")

    def clear(self) -> None:
        if self._terminal:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()
