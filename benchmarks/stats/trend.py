"""Drift and correlation within a series of samples."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.stats.comparison import RESOLUTION
from benchmarks.stats.intervals import (
    Floats,
    Processes,
    Samples,
    _join_rounds,
    _logs,
    autocovariance,
    quantile,
    ranks,
    student,
)

MIN_TREND_ROUNDS = 4
"""The minimum number of rounds of a process for a trend."""

MIN_TREND_PROCESSES = 6
"""The minimum number of processes for a trend from one to the next.

Five processes are all in order in one of sixty cases by chance, which is more often than ``SIGNIFICANCE``.
"""

SIGNIFICANCE = 0.01
"""The p-value below which a trend counts. It is low because each of the many rows of a table is tested."""

STRONG_CORRELATION = 0.5
"""The lag-1 autocorrelation from which on correlation is strong: two of three samples then add no information."""


@dataclass(frozen=True)
class Drift:
    """A trend of the latency from the beginning to the end of processes, or from the first process to the last.

    Attributes:
        change: The relative change from the first third to the last: 0.05 is 5 % slower. For rounds it is the mean over
            the processes.
        p: The p-value: the probability of an order at least this clear without a trend.
    """

    change: float
    p: float

    @property
    def found(self) -> bool:
        """Whether the trend is significant and beyond ``RESOLUTION``."""
        return self.p < SIGNIFICANCE and abs(self.change) > RESOLUTION


def drift(processes: Processes) -> Drift | None:
    """Return the trend of the rounds' medians, or ``None`` if no process has ``MIN_TREND_ROUNDS`` rounds.

    Kendall's test is summed over the processes (Hirsch, Slack and Smith 1982). Each process is compared only with
    itself, because processes differ without any trend, which the intervals cover.
    """
    medians = [np.array([quantile(samples, 0.5) for samples in rounds if len(samples)]) for rounds in processes]
    levels = [_logs(each) for each in medians if len(each) >= MIN_TREND_ROUNDS]
    return _trend(levels) if levels else None


def drift_between(processes: Processes) -> Drift | None:
    """Return the trend of the processes' medians by the same test as ``drift``.

    The result is ``None`` for fewer than ``MIN_TREND_PROCESSES`` processes, which are too often in order by chance.
    """
    medians = [quantile(samples, 0.5) for samples in map(_join_rounds, processes) if len(samples)]
    return _trend([_logs(np.array(medians))]) if len(medians) >= MIN_TREND_PROCESSES else None


def _trend(levels: Sequence[Floats]) -> Drift:
    ascents = sum(map(_count_ascents, levels))
    variance = sum(n * (n - 1) * (2 * n + 5) / 18 for n in map(len, levels))
    score = max(0, abs(ascents) - 1) / math.sqrt(variance)
    changes = [np.median(each[-(len(each) // 3) :]) - np.median(each[: len(each) // 3]) for each in levels]
    return Drift(math.expm1(float(np.mean(changes))), math.erfc(score / math.sqrt(2)))


def _count_ascents(levels: Floats) -> int:
    """Return the number of pairs in ascending order minus that of pairs in descending order.

    Each level is compared with a sorted list of the earlier ones: 100,000 rounds have 5,000,000,000 pairs.
    """
    earlier, ascents = list[float](), 0
    for level in levels.tolist():
        place = bisect.bisect_right(earlier, level)
        ascents += bisect.bisect_left(earlier, level) - (len(earlier) - place)
        earlier.insert(place, level)
    return ascents


def autocorrelation(samples: Samples) -> float:
    """Return the lag-1 autocorrelation of the ranks of ``samples``, -1 to 1. Ranks limit the effect of outliers.

    The result is 0 for fewer than three samples and for equal samples.
    """
    values = np.asarray(samples, dtype=np.float64)
    if len(values) < 3 or np.all(values == values[0]):
        return 0.0
    variance, covariance = autocovariance(ranks(values), 1)
    return float(covariance / variance)


def is_strongly_correlated(samples: Samples) -> bool:
    """Return whether ``autocorrelation`` is beyond ``STRONG_CORRELATION`` and beyond chance (Bartlett 1946)."""
    correlation = autocorrelation(samples)
    return correlation >= STRONG_CORRELATION and correlation > student(math.inf) / math.sqrt(len(samples))
