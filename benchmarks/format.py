"""How numbers are written for people: milliseconds, percent and points, and their intervals."""

from __future__ import annotations

from collections.abc import Callable

from exporter.format import ABSENT as ABSENT
from exporter.format import count as count
from exporter.format import milliseconds as milliseconds
from exporter.proportions import Interval


def number(value: float | None, form: str = ",.0f", scale: float = 1) -> str:
    """``scale`` times the value, by the format's rules."""
    return ABSENT if value is None else format(scale * value, form)


def megabytes(size_bytes: int | None, form: str = ",.0f") -> str:
    """Bytes in units of a million, by the format's rules."""
    return ABSENT if size_bytes is None else format(size_bytes / 1e6, form)


def format_interval(interval: Interval | None, form: Callable[[float], str]) -> str:
    """The interval behind a number, with a space before it; nothing for ``None``."""
    return "" if interval is None else f" [{form(interval[0])}–{form(interval[1])}]"


def duration(seconds: float | None, interval: Interval | None) -> str:
    """Milliseconds with their interval."""
    return milliseconds(seconds) + format_interval(interval, milliseconds)


def roughly(seconds: float) -> str:
    """An estimate of a duration, as coarse as it is: seconds, minutes or hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def times(ratio: float | None, interval: Interval | None) -> str:
    """A ratio with its interval."""
    return number(ratio, ".2f") + format_interval(interval, "{:.2f}".format)


def percent(value: float | None) -> str:
    """A share of 1, without the sign."""
    return number(value, ".2f", 100)


def share(value: float | None, interval: Interval | None) -> str:
    """A share in percent with its interval."""
    return percent(value) + format_interval(interval, lambda end: f"{100 * end:.1f}")


def points(value: float | None, interval: Interval | None) -> str:
    """A difference of shares in percentage points; below 0 with its sign."""
    ends = "" if interval is None else f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"
    return percent(value) + ends


def one_line(text: object) -> str:
    """A reason fit for a table: no line breaks or control characters, 500 characters at most."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(line.split())[:500]
