"""How numbers are written for people, in both commands."""

from __future__ import annotations

ABSENT = "–"
"""Stands where nothing was measured."""


def decimals(value: float) -> int:
    """Decimals that show a value with three digits or more."""
    return 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3


def milliseconds(seconds: float | None) -> str:
    """Three digits or more, never an exponent."""
    return ABSENT if seconds is None else f"{1000 * seconds:,.{decimals(1000 * seconds)}f}"


def count(number: int, noun: str) -> str:
    """The number with its noun: ``1 thread``, ``2 threads``, ``1,000 rows``. The plural ends in s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
