"""What is being measured, on standard error: the plan, a status line on a terminal, and notices."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.records.request import RunListener
from exporter.commands.terminal import status_line
from exporter.document.status_line import Status, StatusLine, notice_line
from runtimes.escaping import printable


@contextlib.contextmanager
def listening() -> Iterator[RunListener]:
    """A listener that shows on standard error what is being measured, and cleans up after itself."""
    with status_line() as line:
        progress = RunProgress(line)
        yield RunListener(
            progress.step,
            lambda notice: line.print_line(notice_line(notice)),
            progress.set_time_left,
            progress.set_position,
        )


class RunProgress:
    """One status line on a terminal; elsewhere one plain line for each configuration, when it begins."""

    def __init__(self, line: StatusLine, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._clock = clock
        self._began_s: float | None = None
        self._status = Status("")
        self._single = True
        self._begun: set[str] = set()

    def set_time_left(self, left_s: float | None) -> None:
        """The run takes so much longer; the bar shows the share of its time that has gone by."""
        now_s = self._clock()
        self._began_s = now_s if self._began_s is None else self._began_s
        spent_s = now_s - self._began_s
        share = None if left_s is None else spent_s / max(spent_s + left_s, 1e-9)
        self._status = replace(self._status, left_s=left_s, share=share)

    def set_position(self, first: int, last: int, total: int) -> None:
        """These of the configurations are at work; none of them where the total is 0."""
        self._single = first == last and total > 0
        which = f"{first}" if self._single else f"{first}-{last}"
        self._status = replace(self._status, position=f"{which}/{total}" if total else "")

    def step(self, subject: str, step: str) -> None:
        """The subject, a configuration or several side by side, is at this step."""
        self._status = replace(self._status, text=subject, detail=step)
        self._line.show(self._status)
        if self._line.live or not self._single or subject in self._begun:
            return
        self._begun.add(subject)
        position = f"[{self._status.position}] " if self._status.position else ""
        self._line.print_line(printable(f"{position}{subject}"))
