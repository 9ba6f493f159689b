"""How numbers are written for people: milliseconds, percent and points, and their intervals."""

from __future__ import annotations

import math

from exporter.format import ABSENT as ABSENT
from exporter.format import count as count
from exporter.format import decimals as decimals
from exporter.format import milliseconds as milliseconds
from exporter.proportions import Interval
from runtimes.escaping import printable

TOO_NOISY = "too noisy"
"""Printed in place of an interval that is wider than its value."""


def number(value: float | None, form: str = ",.0f", scale: float = 1) -> str:
    """``scale`` times the value, by the format's rules."""
    return ABSENT if value is None else format(scale * value, form)


def megabytes(size_bytes: int | None, form: str = ",.0f") -> str:
    """Bytes in units of a million, by the format's rules."""
    return ABSENT if size_bytes is None else format(size_bytes / 1e6, form)


def is_too_noisy(value: float, interval: Interval) -> bool:
    """Whether the interval is wider than its value, which then has no digit that can be relied on."""
    return interval[1] - interval[0] > abs(value)


def with_margin(value: float, interval: Interval | None, digits: int, scale: float = 1, sign: str = "") -> str:
    """``scale`` times the value and the larger distance to an end of its interval, rounded up: ``2.50 ± 0.06``.

    The one place that decides how an interval is printed. Without an interval the value stands alone.
    """
    rounded = round(scale * value, digits)
    text = f"{rounded:{sign},.{digits}f}" if rounded else f"{0:.{digits}f}"  # no "-0.00"
    if interval is None:
        return text
    margin = scale * max(interval[1] - value, value - interval[0])
    return f"{text} ± {math.ceil(margin * 10**digits - 1e-6) / 10**digits:,.{digits}f}"


def _with_bounded_margin(value: float, interval: Interval | None, digits: int, scale: float = 1, unit: str = "") -> str:
    """The same of a time, a ratio or a share, whose margin gives way to "too noisy" where the value has no digit."""
    if interval is not None and is_too_noisy(value, interval):
        return f"{with_margin(value, None, digits, scale)}{unit} {TOO_NOISY}"
    number, space, margin = with_margin(value, interval, digits, scale).partition(" ")
    return f"{number}{unit}{space}{margin}"


def duration(seconds: float | None, interval: Interval | None) -> str:
    """Milliseconds with their margin."""
    return ABSENT if seconds is None else _with_bounded_margin(seconds, interval, decimals(1000 * seconds), 1000)


def roughly(seconds: float) -> str:
    """An estimate of a duration, as coarse as it is: seconds, minutes or hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def times(ratio: float | None, interval: Interval | None) -> str:
    """How many times as fast, with the margin: ``6.10x ± 0.13``."""
    return ABSENT if ratio is None else _with_bounded_margin(ratio, interval, min(2, decimals(ratio)), unit="x")


def rounded_times(ratio: float) -> str:
    """How many times as fast, for a sentence: two digits from 2 on, as ``6.1x``, and three below, as ``1.05x``."""
    return f"{ratio:,.{0 if ratio >= 9.95 else 1 if ratio >= 1.995 else 2}f}x"


def percent(value: float | None) -> str:
    """A share of 1, without the sign."""
    return number(value, ".2f", 100)


def share(value: float | None, interval: Interval | None) -> str:
    """A share in percent with its margin."""
    return ABSENT if value is None else _with_bounded_margin(value, interval, 2, 100)


def points(value: float | None, interval: Interval | None) -> str:
    """A difference of shares in percentage points with its margin; below 0 with its sign."""
    return ABSENT if value is None else with_margin(value, interval, 2, 100)


def change(value: float | None, interval: Interval | None) -> str:
    """A change of a share in percentage points with its margin and its sign: ``-0.12 ± 0.17``."""
    return ABSENT if value is None else with_margin(value, interval, 2, 100, "+")


def one_line(text: object) -> str:
    """A reason fit for a table: no line breaks or control characters, 500 characters at most."""
    return printable(" ".join(str(text).split()), 500)
