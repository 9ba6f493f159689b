"""Formatting of numbers for people, shared by ``rexport`` and ``rbench``."""

from __future__ import annotations

ABSENT = "–"
"""The text of a table cell without a value."""


def decimals(value: float) -> int:
    """Return the number of decimals with which ``value`` has at least three digits, but at most three decimals."""
    return 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3


def milliseconds(seconds: float | None) -> str:
    """Return a duration in milliseconds as text, without unit and exponent, or ``ABSENT`` for ``None``.

    From 1 ms on, the text has at least three digits; below, it has three decimals.
    """
    return ABSENT if seconds is None else f"{1000 * seconds:,.{decimals(1000 * seconds)}f}"


def count(number: int, noun: str) -> str:
    """Return ``number`` with its ``noun``, for example ``1 thread`` or ``1,000 rows``. The plural ends in s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float | None) -> str:
    """Return a ``share`` in per cent with three digits: ``6.01``, ``0.0329``, ``<0.001``, or ``inf`` for ``None``."""
    if share is None:
        return "inf"
    value = 100 * share
    return "<0.001" if 0 < value < 0.001 else "0" if value == 0 else f"{value:#.3g}".rstrip(".")
