"""The bootstrap at two levels: blocks of neighbours within processes, and whole processes.

Calls that follow each other are not independent: clocks ramp, caches fill, neighbours wake. Resampling single values
would pretend that they are and give intervals that are too narrow, so whole blocks of neighbours are resampled
(Carlstein 1986), on a circle whose beginning is drawn too (Politis and Romano 1992), with the block length taken from
the samples' own autocorrelation (Politis and White 2004, with the correction of 2009).

The values are sorted once. A resample is how often each of them counts, and its quantile is where the sum of the counts
reaches it: no resample is sorted, and 50,000 values take a tenth of a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]

RESAMPLES = 1000

MOST_BLOCKS = 2000
"""Of a series. More would cost time and tell the spread of a sum of them no better."""

_CIRCLES = 20
"""Beginnings of the circle that are drawn; as many resamples for each."""

_CHUNK = 1 << 16
"""Counts held at once."""

_RUN = 5
"""Correlations in a row that are too small to tell from none: after these the rest counts as none."""


def resample_blocks(series: Sequence[Floats], quantiles: Sequence[float], random: np.random.Generator) -> Floats:
    """The quantiles of all values together, with the blocks of each series resampled: (quantiles, RESAMPLES)."""
    blocks = [min(MOST_BLOCKS, len(values) // block_length(values)) for values in series]

    grids = [np.arange(len(values)) * n // len(values) for values, n in zip(series, blocks, strict=True)]

    def groups() -> list[Counts]:
        return [np.roll(grid, random.integers(len(grid))) for grid in grids]

    return _resample_groups(series, quantiles, blocks, groups, random)


def resample_series(series: Sequence[Floats], quantiles: Sequence[float], random: np.random.Generator) -> Floats:
    """The quantiles of all values together, with whole series resampled: (quantiles, RESAMPLES)."""
    owners = np.repeat(np.arange(len(series)), [len(values) for values in series])
    return _resample_groups([np.concatenate(series)], quantiles, [len(series)], lambda: [owners], random)


def block_length(samples: Sequence[float] | Floats) -> int:
    """How many neighbours are resampled together: 1 for independent samples, more for correlated ones.

    Taken on the samples' ranks, so that one stall does not decide it, and never more than a tenth of the samples.
    """
    values = np.asarray(samples, dtype=np.float64)
    n = len(values)
    if n < 20 or np.all(values == values[0]):
        return 1
    covariance = autocovariance(ranks(values), min(math.ceil(math.sqrt(n)) + _RUN, n - 1))
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


def ranks(values: Floats) -> Floats:
    """The place of each value in ascending order, from 0; equal ones share the middle of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles: Floats = np.cumsum(counts) - (counts + 1) / 2
    return middles[places]


def autocovariance(values: Floats, last_lag: int) -> Floats:
    """(last_lag + 1,): of lag 0, which is the variance, and on."""
    centred = values - values.mean()
    n = len(values)
    return np.array([centred[: n - lag] @ centred[lag:] for lag in range(last_lag + 1)]) / n


def _significant_lag(correlation: Floats, n: int) -> int:
    """The lag after which a run of correlations is too small to tell from none."""
    bound = 2 * math.sqrt(math.log10(n) / n)
    small = np.abs(correlation[1:]) < bound
    for lag in range(len(small) - _RUN + 1):
        if small[lag : lag + _RUN].all():
            return lag
    return len(small)


def _resample_groups(
    series: Sequence[Floats],
    quantiles: Sequence[float],
    sizes: Sequence[int],
    groups: Callable[[], list[Counts]],
    random: np.random.Generator,
) -> Floats:
    """``groups()`` says, for each series, in which of its ``sizes`` groups each value is; groups are what is drawn."""
    values = np.concatenate(series)
    order = np.argsort(values)
    ordered = values[order]
    firsts = np.cumsum([0, *sizes[:-1]])
    circle, most = RESAMPLES // _CIRCLES, max(1, _CHUNK // len(values))
    estimates = []
    for _ in range(_CIRCLES):
        owners = np.concatenate([first + each for first, each in zip(firsts, groups(), strict=True)])[order]
        for done in range(0, circle, most):
            rows = min(most, circle - done)
            drawn = np.concatenate([_draw_counts(size, rows, random) for size in sizes], axis=1)
            estimates.append(_weighted_quantiles(ordered, np.take(drawn, owners, axis=1), quantiles))
    return np.concatenate(estimates, axis=1)


def _draw_counts(n: int, rows: int, random: np.random.Generator) -> Counts:
    """(rows, n): how often each of ``n`` came up in ``n`` draws."""
    places = random.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * n).reshape(rows, n)


def _weighted_quantiles(ordered: Floats, counts: Counts, quantiles: Sequence[float]) -> Floats:
    """(quantiles, rows), by linear interpolation; ``ordered`` (n,) ascends, and ``counts`` is (rows, n)."""
    rows, n = counts.shape
    upto = np.cumsum(counts)  # on from row to row, so that one search serves all
    ends = upto[n - 1 :: n]
    totals = np.diff(ends, prepend=0)
    begin, row = ends - totals, n * np.arange(rows)

    def value_at(place: Counts) -> Floats:
        found: Floats = ordered[np.searchsorted(upto, begin + place, side="right") - row]
        return found

    estimates = np.empty((len(quantiles), rows))
    for index, q in enumerate(quantiles):
        place = q * (totals - 1)
        below = place.astype(np.int64)
        low, high = value_at(below), value_at(np.minimum(below + 1, totals - 1))
        estimates[index] = low + (place - below) * (high - low)
    return estimates
