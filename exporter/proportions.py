"""Confidence intervals of shares of images. All functions are pure, and all intervals have a confidence of 95 %."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Interval: TypeAlias = tuple[float, float]
"""The (low, high) of an interval."""

_Z = 1.959963984540054
"""The 0.975 quantile of the standard normal distribution."""


def wilson(successes: float, trials: float) -> Interval:
    """Return the Wilson score interval of the share ``successes / trials`` (Wilson 1927).

    Args:
        successes: The number of successes, 0 to ``trials``.
        trials: The number of trials, at least 1. Of correlated trials, their effective number.
    """
    share = successes / trials
    scale = 1 + _Z * _Z / trials
    centre = (share + _Z * _Z / (2 * trials)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / trials + _Z * _Z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe(first: float, of_first: int, second: float, of_second: int) -> Interval:
    """Return the interval of ``first - second`` for two independent samples (Newcombe 1998, method 10).

    Args:
        first: The share in the first sample, 0 to 1.
        of_first: The size of the first sample, at least 1.
        second: The share in the second sample, 0 to 1.
        of_second: The size of the second sample, at least 1.
    """
    low_first, high_first = wilson(round(first * of_first), of_first)
    low_second, high_second = wilson(round(second * of_second), of_second)
    below = math.hypot(first - low_first, high_second - second)
    above = math.hypot(high_first - first, second - low_second)
    return first - second - below, first - second + above


def difference_interval(reference: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[float, Interval]:
    """Return how much smaller the share of ``other`` is than the share of ``reference``, and its interval.

    The two samples are paired. Only images that exactly one of them gets right count, so the interval is much narrower
    than for independent samples. It is Wald's interval with half an image added to each of the four kinds of pairs
    (Agresti and Min 2005).

    Args:
        reference: Whether the reference is right for each image: bool (n,), n at least 1.
        other: Whether the other network is right for the same images: bool (n,).

    Returns:
        The difference of the shares, -1 to 1, and its interval.
    """
    n = len(reference)
    lost, won = int((reference & ~other).sum()), int((~reference & other).sum())
    more, less, total = lost + 0.5, won + 0.5, n + 2.0
    centre = (more - less) / total
    half = _Z * math.sqrt(more + less - (more - less) ** 2 / total) / total
    return (lost - won) / n, (max(-1.0, centre - half), min(1.0, centre + half))
