"""How numbers are written for people, in both commands."""

from __future__ import annotations

ABSENT = "–"
"""Stands where nothing was measured."""


def milliseconds(seconds: float | None) -> str:
    """Three digits or more, never an exponent."""
    if seconds is None:
        return ABSENT
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.{2 if value >= 1 else 3}f}"


def count(number: int, noun: str) -> str:
    """The number with its noun: ``1 thread``, ``2 threads``, ``1,000 rows``. The plural ends in s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
