"""Quantiles of samples and their confidence intervals, by a bootstrap at two levels: blocks within processes, and whole
processes.

Calls that follow each other are not independent: clocks ramp, caches fill, neighbours wake. Resampling single values
would pretend that they are and give intervals that are too narrow, so whole blocks of neighbours are resampled
(Carlstein 1986), on a circle whose beginning is drawn too (Politis and Romano 1992), with the block length taken from
the samples' own autocorrelation (Politis and White 2004, with the correction of 2009).

The values are sorted once. A resample is how often each of them counts, and its quantile is where the sum of the counts
reaches it: no resample is sorted, and 50,000 values take a tenth of a second.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.proportions import Interval
from runtimes.errors import UsageError

Samples: TypeAlias = Sequence[float] | NDArray[np.float64]

Rounds: TypeAlias = Sequence[Samples]
"""The samples of one process, a turn each."""

Processes: TypeAlias = Sequence[Rounds]

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]

CONFIDENCE = 0.95

MIN_SAMPLES: dict[float, int] = {0.5: 5, 0.9: 20, 0.99: 1000, 0.999: 10_000}
"""A quantile is given from this many samples of all processes on: beneath, too few lie beyond it to say where it is."""

_NANOSECOND = 1e-9
"""What the clock tells: a shorter sample counts as this long, so that every ratio is defined."""

RESAMPLES = 1000

MOST_BLOCKS = 2000
"""Of a series. More would cost time and tell the spread of a sum of them no better."""

_CIRCLES = 20
"""Beginnings of the circle that are drawn; as many resamples for each."""

_CHUNK = 1 << 16
"""Counts held at once."""

_RUN = 5
"""Correlations in a row that are too small to tell from none: after these the rest counts as none."""


def quantile(samples: Samples, q: float) -> float:
    """The ``q``-quantile, between two order statistics by linear interpolation. ``samples`` is not empty."""
    return float(np.quantile(np.asarray(samples, dtype=np.float64), q))


def enough_for(samples: Samples, q: float) -> bool:
    """Whether there are the samples that ``MIN_SAMPLES`` asks for."""
    return len(samples) >= MIN_SAMPLES[q]


def together(processes: Processes) -> Floats:
    """All samples of all processes, in their order."""
    return np.concatenate([np.empty(0), *map(_join_rounds, processes)])


def quantile_intervals(processes: Processes, quantiles: Sequence[float], seed: int = 0) -> tuple[Interval, ...]:
    """A 95 % interval (low end, high end) on each quantile of all samples together, by bootstrap at two levels.

    Blocks of neighbours are resampled within each process; and, apart from that, whole processes. Of one process the
    interval holds the middle 95 % of the former. Of several it is the value times exp(± t s). s is the standard
    deviation of the resampled quantile's logarithm: of the processes', times the square root of P / (P - 1), by which
    resampling so few understates it (Davison and Hinkley 1997, 2.3 and 3.8), or of the blocks', whichever is larger.
    They are not added: what varies within a process varies between them already. t is Student's with P - 1 degrees of
    freedom.

    On simulated machines (``scripts.figures.noise``) 3 to 10 processes' intervals hold a p50 in 92 to 97 of 100 runs,
    and a p99 in 87 to 97 where layout decides it: the slowest kind of process may not have been among so few.

    Raises:
        UsageError: there are no samples.
    """
    series, random = _collect_samples(processes), np.random.default_rng(seed)
    blocks = resample_blocks(series, quantiles, random)
    if len(series) == 1:
        return tuple(_middle(estimates) for estimates in blocks)
    wholes = resample_series(series, quantiles, random)
    scale = len(series) / (len(series) - 1)
    values = np.quantile(np.concatenate(series), quantiles)
    around = [(_logs(estimates.T) - _logs(values)).var(axis=0) for estimates in (blocks, wholes)]
    reach = np.exp(student(len(series) - 1) * np.sqrt(np.maximum(around[0], around[1] * scale)))
    return tuple((float(value / factor), float(value * factor)) for value, factor in zip(values, reach, strict=True))


def _join_rounds(rounds: Rounds) -> Floats:
    return np.concatenate([np.empty(0), *(np.asarray(samples, dtype=np.float64) for samples in rounds)])


def _collect_samples(processes: Processes) -> list[Floats]:
    """Each process's samples; processes without any are left out."""
    series = [samples for rounds in processes if len(samples := _join_rounds(rounds))]
    if not series:
        raise UsageError("there are no samples to take an interval of", code="samples-missing")
    return series


def _logs(values: Floats) -> Floats:
    return np.log(np.maximum(values, _NANOSECOND))


def _middle(estimates: Floats) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(estimates, (tail, 1 - tail))
    return float(low), float(high)


@functools.cache
def student(freedom: float) -> float:
    """What Student's t exceeds, to both sides, with 1 - ``CONFIDENCE``; with infinite ``freedom`` the normal does.

    With t = sqrt(freedom) tan(angle) the density is that of cos(angle) ** (freedom - 1), summed here by trapezoids.
    """
    freedom = min(freedom, 1e6)
    angles = np.linspace(0, min(math.pi / 2, 40 / math.sqrt(freedom)), 20_001)
    density = np.cos(angles) ** (freedom - 1)
    area = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(CONFIDENCE * area[-1], area, angles)))


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
