"""Drift and correlation within a series of samples."""

from __future__ import annotations

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
"""Of a process, for a trend."""

MIN_TREND_PROCESSES = 6
"""For a trend from one to the next: five are all in order in one of sixty cases, more often than ``SIGNIFICANCE``."""

SIGNIFICANCE = 0.01
"""A trend is found beneath this: a table has many rows, and each is tested."""

STRONG_CORRELATION = 0.5
"""Lag-1 autocorrelation from which on two of three samples tell nothing new."""


@dataclass(frozen=True)
class Drift:
    """A trend of the latency from the beginning to the end of its processes, or from the first of them to the last.

    Attributes:
        change: how much longer the last third took than the first: 0.05 is 5 % slower; of rounds the mean over the
            processes.
        p: how likely so clear an order of the rounds is where there is no trend.
    """

    change: float
    p: float

    @property
    def found(self) -> bool:
        """Whether it is beyond chance and beyond ``RESOLUTION``."""
        return self.p < SIGNIFICANCE and abs(self.change) > RESOLUTION


def drift(processes: Processes) -> Drift | None:
    """The trend of the rounds' medians in their order; ``None`` where no process has ``MIN_TREND_ROUNDS`` rounds.

    Kendall's test, summed over the processes (Hirsch, Slack and Smith 1982): each is compared with itself alone, for
    two differ without any trend, which the intervals know of.
    """
    medians = [np.array([quantile(samples, 0.5) for samples in rounds if len(samples)]) for rounds in processes]
    levels = [_logs(each) for each in medians if len(each) >= MIN_TREND_ROUNDS]
    return _trend(levels) if levels else None


def drift_between(processes: Processes) -> Drift | None:
    """The trend of the processes' medians in their order, by the same test; ``None`` of fewer than
    ``MIN_TREND_PROCESSES``, in which chance alone would be in order too often."""
    medians = [quantile(samples, 0.5) for samples in map(_join_rounds, processes) if len(samples)]
    return _trend([_logs(np.array(medians))]) if len(medians) >= MIN_TREND_PROCESSES else None


def _trend(levels: Sequence[Floats]) -> Drift:
    signs = (np.sign(each[None, :] - each[:, None])[np.triu_indices(len(each), 1)] for each in levels)
    ascents = sum(int(each.sum()) for each in signs)  # pairs that ascend less those that descend
    variance = sum(n * (n - 1) * (2 * n + 5) / 18 for n in map(len, levels))
    score = max(0, abs(ascents) - 1) / math.sqrt(variance)
    changes = [np.median(each[-(len(each) // 3) :]) - np.median(each[: len(each) // 3]) for each in levels]
    return Drift(math.expm1(float(np.mean(changes))), math.erfc(score / math.sqrt(2)))


def autocorrelation(samples: Samples) -> float:
    """How much a sample leans on the one before: at lag 1, of the ranks, so that one stall does not decide it; -1..1.

    0 of fewer than three samples, and of equal ones.
    """
    values = np.asarray(samples, dtype=np.float64)
    if len(values) < 3 or np.all(values == values[0]):
        return 0.0
    variance, covariance = autocovariance(ranks(values), 1)
    return float(covariance / variance)


def is_strongly_correlated(samples: Samples) -> bool:
    """Whether ``autocorrelation`` is beyond ``STRONG_CORRELATION``, and beyond chance (Bartlett 1946)."""
    found = autocorrelation(samples)
    return found >= STRONG_CORRELATION and found > student(math.inf) / math.sqrt(len(samples))
