"""Shares of images and what they may be off by. Pure functions; all intervals are at 95 %."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Interval: TypeAlias = tuple[float, float]

_Z = 1.959963984540054
"""The standard normal's 0.975-quantile."""


def wilson(successes: int, trials: int) -> Interval:
    """An interval on the fraction ``successes / trials`` (Wilson 1927); ``trials`` is at least 1."""
    share = successes / trials
    scale = 1 + _Z * _Z / trials
    centre = (share + _Z * _Z / (2 * trials)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / trials + _Z * _Z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe(first: float, of_first: int, second: float, of_second: int) -> Interval:
    """An interval on the first share less the second, of samples that are independent of each other and of so many
    (Newcombe 1998, method 10)."""
    low_first, high_first = wilson(round(first * of_first), of_first)
    low_second, high_second = wilson(round(second * of_second), of_second)
    below = math.hypot(first - low_first, high_second - second)
    above = math.hypot(high_first - first, second - low_second)
    return first - second - below, first - second + above


def difference_interval(reference: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[float, Interval]:
    """How much smaller the share of ``other`` is than that of ``reference``, and an interval on it.

    Both are (n,), which images each got right, n at least 1. Only images that one got right and the other did not
    count, so the interval is far narrower than that of two separate samples (Agresti and Min 2005: Wald's, with half
    an image added to each of the four kinds of pair).
    """
    n = len(reference)
    lost, won = int((reference & ~other).sum()), int((~reference & other).sum())
    more, less, total = lost + 0.5, won + 0.5, n + 2.0
    centre = (more - less) / total
    half = _Z * math.sqrt(more + less - (more - less) ** 2 / total) / total
    return (lost - won) / n, (max(-1.0, centre - half), min(1.0, centre + half))
