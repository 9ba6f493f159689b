"""The status line of a terminal: what a command is doing, and how long it still takes.

Example:
    ``[3/8] openvino int8 · batch 1  ▓▓▓▓▓▓▓▓░░░░  process 2 of 3, 1:10 left``
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from runtimes.errors import Reason
from runtimes.escaping import MAX_LINE, printable

USUAL_COLUMNS = 80
"""Width of a terminal that does not tell its width."""

BAR_CELLS = 12
LEAST_TEXT_CELLS = 12
"""Width that the text keeps on a very narrow terminal."""

SEPARATOR = " · "
"""Between the parts of a text or a detail."""

REDRAW_S = 0.2
"""Least time between two drawings, so that quick steps neither flicker nor keep the terminal busy."""

TICK_S = 1.0

CLEAR_BELOW = "\x1b[J"
"""ANSI: erase from the cursor to the end of the screen. It also reaches a line that a narrower window has wrapped."""

WITHOUT_CURSOR = ("", "dumb", "unknown")
"""Values of ``TERM`` that promise no ANSI sequences."""


@dataclass(frozen=True)
class Status:
    """The content of the line.

    Attributes:
        text: The current work.
        position: The position of the current work in the plan, as ``3/8``.
        share: The completed share, from 0 to 1. ``None`` draws no bar.
        detail: The progress of the current work in words. ``SEPARATOR`` joins its parts.
        left_s: The estimated seconds that are left, or ``None`` without an estimate.
    """

    text: str
    position: str = ""
    share: float | None = None
    detail: str = ""
    left_s: float | None = None

    def render(self, columns: int, elapsed_s: float | None = None, encoding: str = "utf-8") -> str:
        """Return the line. It ends in the time left, or else in the elapsed time.

        A line that is too long loses the last parts of the detail first, then the bar, then the end of the text.

        Args:
            columns: The largest width in cells.
            elapsed_s: The elapsed time in seconds, or ``None`` to leave it out.
            encoding: The encoding of the stream. Characters that it lacks are replaced.
        """
        from rich.cells import cell_len

        text = printable(f"[{self.position}] {self.text}" if self.position else self.text)
        bar = "" if self.share is None else _bar(self.share)
        time_s = elapsed_s if self.left_s is None else self.left_s
        end = "" if time_s is None else f"{clock_time(time_s)}{'' if self.left_s is None else ' left'}"
        details = self._shorter_details()
        lines = [_join(text, shown, detail, end) for shown in dict.fromkeys((bar, "")) for detail in details]
        fitting = next((line for line in lines if cell_len(line) <= columns), None)
        if fitting is None:
            rest = columns - cell_len(_join("", "", "", end)) - 2
            fitting = cut(_join(cut(text, max(LEAST_TEXT_CELLS, rest)), "", "", end), columns)
        return _encodable(fitting, encoding)

    def _shorter_details(self) -> list[str]:
        """Return the detail, then the detail without its last part, and so on. The last one is empty."""
        parts = printable(self.detail).split(SEPARATOR)
        return [SEPARATOR.join(parts[:number]) for number in range(len(parts), -1, -1)]


def _join(text: str, bar: str, detail: str, left: str) -> str:
    return "  ".join(filter(None, (text, bar, ", ".join(filter(None, (detail, left))))))


def _bar(share: float) -> str:
    filled = round(BAR_CELLS * min(1.0, max(0.0, share)))
    return "▓" * filled + "░" * (BAR_CELLS - filled)


_ASCII = str.maketrans({"▓": "#", "░": "-", "·": "-", "…": "."})


def _encodable(line: str, encoding: str) -> str:
    """Return the line in characters of the encoding."""
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return line.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return line


def cut(text: str, cells: int) -> str:
    """Return the text in at most ``cells`` cells. An ellipsis marks a cut."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= cells else f"{set_cell_size(text, max(0, cells - 1)).rstrip()}…"[:cells]


def clock_time(seconds: float) -> str:
    """Return minutes and seconds as ``1:10``, and from one hour on ``1:05:00``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def notice_line(notice: str | Reason) -> str:
    """Return the line of a notice: ``warning[CODE]: SENTENCE`` for a reason. Plain sentences stay as they are."""
    return coded_line("warning", *notice) if isinstance(notice, Reason) else printable(notice, MAX_LINE)


def coded_line(kind: str, code: str, sentence: str) -> str:
    """Return one line that cannot move the cursor of a terminal.

    Args:
        kind: ``error``, ``warning`` or ``notice``.
        code: The stable code.
        sentence: The sentence.

    Example:
        ``notice[folder-made]: created the folder out``
    """
    return printable(f"{kind}[{code}]: {sentence}" if code else f"{kind}: {sentence}", MAX_LINE)


def is_live(stream: TextIO) -> bool:
    """Return whether the stream is a terminal on which a line can be redrawn."""
    return stream.isatty() and os.environ.get("TERM", "") not in WITHOUT_CURSOR


class StatusLine:
    """A status line, and a context manager that clears it at the end.

    A thread draws the line when the status changes, at most every ``REDRAW_S``. The cursor stays visible and waits at
    the start of the line. So an interrupt, which a terminal echoes as ``^C``, leaves nothing behind.

    Attributes:
        live: Whether the line is drawn. If not, only the lines of ``print_line`` are written.
    """

    def __init__(
        self, stream: TextIO, live: bool, ticks: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare the line. Nothing is written before ``show`` or ``print_line``.

        Args:
            stream: The stream that receives the lines. It stays open.
            live: Whether ``show`` draws.
            ticks: Whether the line is redrawn every second and ends in the elapsed time if there is no estimate. Keep
                it off during measurements: redrawing takes processor time.
            clock: A function that returns seconds.
        """
        self.live = live
        self._stream = stream
        self._ticks = ticks
        self._clock = clock
        self._began_s = clock()
        self._status: Status | None = None
        self._drawn = ""
        self._lock = threading.RLock()
        # Queues, because an interrupt inside an Event leaves its lock held, and the next call would wait for ever.
        self._changes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._end: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ended = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._end.put(None)
        self._changes.put(None)
        if self._thread is not None and self._thread.is_alive():  # an interrupt can come while it starts
            self._thread.join()
        with self._lock:
            self._write(self._cleared())

    def show(self, status: Status) -> None:
        """Draw the status soon, in place of the previous one. Does not block."""
        if not self.live or status == self._status:
            return
        self._status = status
        self._changes.put(None)
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_drawing, name="status line", daemon=True)
            self._thread.start()

    def print_line(self, text: str) -> None:
        """Write a line that stays, above the status."""
        with self._lock:
            self._write(f"{self._cleared()}{_encodable(printable(text, MAX_LINE), self._stream.encoding or 'utf-8')}\n")
        if self._thread is not None:
            self._changes.put(None)

    def draw(self) -> None:
        """Draw the status at once, unless the line already shows it."""
        if self._status is None:
            return
        elapsed_s = self._clock() - self._began_s if self._ticks else None
        with self._lock:
            line = self._status.render(self._columns() - 1, elapsed_s, self._stream.encoding or "utf-8")
            if line != self._drawn:
                self._drawn = line
                self._write(f"\r{line}{CLEAR_BELOW}\r")

    def _keep_drawing(self) -> None:
        while not self._ended:
            with contextlib.suppress(queue.Empty):
                self._changes.get(timeout=TICK_S if self._ticks else None)
            while not self._changes.empty():
                self._changes.get()
            if not self._ended:
                self.draw()
                with contextlib.suppress(queue.Empty):
                    self._end.get(timeout=REDRAW_S)

    def _cleared(self) -> str:
        """Return the characters that clear the status from the screen."""
        drawn, self._drawn = self._drawn, ""
        return f"\r{CLEAR_BELOW}" if drawn else ""

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads stderr any more; the work goes on
            self._stream.write(text)
            self._stream.flush()

    def _columns(self) -> int:
        """Return the width of the stream's terminal. Standard output may be another one."""
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(self._stream.fileno()).columns or USUAL_COLUMNS
        return USUAL_COLUMNS
