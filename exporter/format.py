"""Formatting of numbers for people, shared by ``rexport`` and ``rbench``."""

from __future__ import annotations

ABSENT = "–"
"""The text of a table cell without a value."""


def milliseconds(seconds: float | None) -> str:
    """Return a duration in milliseconds as text, without unit and exponent, or ``ABSENT`` for ``None``.

    From 1 ms on, the text has at least three digits; below, it has three decimals.
    """
    if seconds is None:
        return ABSENT
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.{2 if value >= 1 else 3}f}"


def count(number: int, noun: str) -> str:
    """Return ``number`` with its ``noun``, for example ``1 thread`` or ``1,000 rows``. The plural ends in s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
