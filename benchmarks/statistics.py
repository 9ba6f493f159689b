"""Intervals on what was sampled. Pure functions of arrays: the same samples and seed give the same figures anywhere.

Latencies of calls that follow each other are not independent: clocks ramp, caches fill, neighbours wake. Resampling
single values would pretend that they are and give intervals that are too narrow, so whole blocks of neighbours are
resampled (Künsch 1989), wrapped into a circle, with the block length taken from the samples' own autocorrelation
(Politis and White 2004, with the correction of 2009).

The intervals speak of the one process in which the samples were taken; another start of the same program may land
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.proportions import Interval

Samples: TypeAlias = Sequence[float] | NDArray[np.float64]
Floats: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 1000
MIN_SAMPLES: dict[float, int] = {0.5: 5, 0.9: 20, 0.99: 100}
"""A quantile is given from this many samples on: beneath, too few lie beyond it to say where it is."""

_CHUNK = 1 << 21
"""Resampled values held at once."""


def quantile(samples: Samples, q: float) -> float:
    """The ``q``-quantile, between two order statistics by linear interpolation. ``samples`` is not empty."""
    return float(np.quantile(np.asarray(samples, dtype=np.float64), q))


def enough_for(samples: Samples, q: float) -> bool:
    """Whether there are the samples that ``MIN_SAMPLES`` asks for."""
    return len(samples) >= MIN_SAMPLES[q]


def quantile_intervals(samples: Samples, quantiles: Sequence[float], seed: int = 0) -> tuple[Interval, ...]:
    """A 95 % interval (low end, high end) on each of the quantiles, by moving-block bootstrap."""
    values = np.asarray(samples, dtype=np.float64)
    chunks = _resamples(values, np.random.default_rng(seed))
    estimates = np.concatenate([np.quantile(chunk, quantiles, axis=1) for chunk in chunks], axis=1)
    return tuple(_ends(row) for row in estimates)


def ratio_of_medians(numerator: Samples, denominator: Samples) -> float:
    """The median of the one over the median of the other."""
    return quantile(numerator, 0.5) / quantile(denominator, 0.5)


def ratio_interval(numerator: Samples, denominator: Samples, seed: int = 0) -> Interval:
    """A 95 % interval on ``ratio_of_medians``; both are resampled, each by its own blocks."""
    above, below = (np.asarray(samples, dtype=np.float64) for samples in (numerator, denominator))
    first, second = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    medians_above = np.concatenate([np.median(chunk, axis=1) for chunk in _resamples(above, first)])
    medians_below = np.concatenate([np.median(chunk, axis=1) for chunk in _resamples(below, second)])
    return _ends(medians_above / medians_below)


def block_length(samples: Samples) -> int:
    """How many neighbours are resampled together: 1 for independent samples, more for correlated ones.

    Taken on the samples' ranks, so that one stall does not decide it, and never more than a tenth of the samples.
    """
    values = np.asarray(samples, dtype=np.float64)
    n = len(values)
    if n < 20 or np.all(values == values[0]):
        return 1
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)
    covariance = _autocovariance(ranks, _last_lag(n))
    width = 2 * _significant_lag(covariance / covariance[0], n)
    if width == 0:
        return 1
    lags = np.arange(1, min(width, len(covariance) - 1) + 1)
    taper = np.clip(2 * (1 - lags / width), 0, 1)  # the flat-top window: 1 up to half the width, then down to 0
    slope = 2 * float(np.sum(taper * lags * covariance[lags]))
    density = float(covariance[0] + 2 * np.sum(taper * covariance[lags]))
    if density <= 0:
        return 1
    best = (2 * slope**2 / (4 / 3 * density**2)) ** (1 / 3) * n ** (1 / 3)
    return int(min(max(1, math.ceil(best)), n // 10))


def _last_lag(n: int) -> int:
    return min(math.ceil(math.sqrt(n)) + _run(n), n - 1)


def _run(n: int) -> int:
    return max(5, math.ceil(math.sqrt(math.log10(n))))


def _autocovariance(values: Floats, last_lag: int) -> Floats:
    centred = values - values.mean()
    n = len(values)
    return np.array([centred[: n - lag] @ centred[lag:] for lag in range(last_lag + 1)]) / n


def _significant_lag(correlation: Floats, n: int) -> int:
    """The lag after which a run of correlations is too small to tell from none."""
    bound = 2 * math.sqrt(math.log10(n) / n)
    small = np.abs(correlation[1:]) < bound
    run = _run(n)
    for lag in range(len(small) - run + 1):
        if small[lag : lag + run].all():
            return lag
    return len(small)


def _resamples(values: Floats, random: np.random.Generator) -> Iterator[Floats]:
    """All the resamples, as arrays (some, n)."""
    n = len(values)
    length = block_length(values)
    blocks = math.ceil(n / length)
    circle = np.concatenate([values, values[: length - 1]])
    windows = np.lib.stride_tricks.sliding_window_view(circle, length)
    at_once = max(1, _CHUNK // n)
    for done in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - done)
        starts = random.integers(0, n, size=(count, blocks))
        yield windows[starts].reshape(count, blocks * length)[:, :n]


def _ends(estimates: Floats) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(estimates, (tail, 1 - tail))
    return float(low), float(high)
