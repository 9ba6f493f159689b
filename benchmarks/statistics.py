"""Intervals on what was sampled, and comparisons. Pure functions: the same samples and seed give the same figures.

Another start of the same program lands elsewhere, for where its code and its memory happen to lie (Mytkowicz et al.
2009). So the independent unit is the process (Kalibera and Jones 2013): however many calls one process makes, they say
nothing of the next. Of few processes the spread is itself uncertain, hence Student's t in place of the normal
distribution. An interval from one process speaks of that process alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks import resampling
from exporter.proportions import Interval
from runtimes.errors import UsageError

Samples: TypeAlias = Sequence[float] | NDArray[np.float64]
Rounds: TypeAlias = Sequence[Samples]
"""The samples of one process, a turn each."""
Processes: TypeAlias = Sequence[Rounds]
Floats: TypeAlias = NDArray[np.float64]
Verdict: TypeAlias = Literal["faster", "slower", "tie"]
Units: TypeAlias = Literal["processes", "rounds", "samples"]

CONFIDENCE = 0.95
MIN_SAMPLES: dict[float, int] = {0.5: 5, 0.9: 20, 0.99: 1000, 0.999: 10_000}
"""A quantile is given from this many samples of all processes on: beneath, too few lie beyond it to say where it is."""

RESOLUTION = 0.01
"""A comparison is a tie unless its whole interval lies beyond this: one percent is what moving the same code in memory
makes (Mytkowicz et al. 2009, Curtsinger and Berger 2013), and no reason to choose."""

ONE_PROCESS_RESOLUTION = 0.05
"""The same where each side is one process: its interval knows nothing of where another start of it would land."""

MIN_ROUNDS = 5
"""From this many rounds on, one pair of processes is compared by its rounds; with fewer, by its samples."""

MIN_TREND_ROUNDS = 4
"""Of a process, for a trend."""

MIN_TREND_PROCESSES = 6
"""For a trend from one to the next: five are all in order in one of sixty cases, more often than ``SIGNIFICANCE``."""

SIGNIFICANCE = 0.01
"""A trend is found beneath this: a table has many rows, and each is tested."""

STRONG_CORRELATION = 0.5
"""Lag-1 autocorrelation from which on two of three samples tell nothing new."""

_NANOSECOND = 1e-9
"""What the clock tells: a shorter sample counts as this long, so that every ratio is defined."""


@dataclass(frozen=True)
class LatencyComparison:
    """Two configurations' latencies, one over the other.

    Attributes:
        ratio: the reference's over the other's: 2.0 is twice as fast as the reference.
        interval: at 95 %, on the ratio.
        verdict: on the other. ``tie`` unless the whole interval lies beyond ``RESOLUTION``, so ``faster`` says: by more
            than one percent, at 95 %.
        units: what was taken as independent of each other. ``processes`` where there are two or more; otherwise the
            interval speaks of these two processes alone, and a verdict asks for ``ONE_PROCESS_RESOLUTION``.
    """

    ratio: float
    interval: Interval
    verdict: Verdict
    units: Units


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

    On simulated machines (``benchmarks.simulation``) 3 to 10 processes' intervals hold a p50 in 92 to 97 of 100 runs,
    and a p99 in 87 to 97 where layout decides it: the slowest kind of process may not have been among so few.

    Raises:
        UsageError: there are no samples.
    """
    series, random = _collect_samples(processes), np.random.default_rng(seed)
    blocks = resampling.resample_blocks(series, quantiles, random)
    if len(series) == 1:
        return tuple(_middle(estimates) for estimates in blocks)
    wholes = resampling.resample_series(series, quantiles, random)
    scale = len(series) / (len(series) - 1)
    values = np.quantile(np.concatenate(series), quantiles)
    around = [(_logs(estimates.T) - _logs(values)).var(axis=0) for estimates in (blocks, wholes)]
    reach = np.exp(student(len(series) - 1) * np.sqrt(np.maximum(around[0], around[1] * scale)))
    return tuple((float(value / factor), float(value * factor)) for value, factor in zip(values, reach, strict=True))


def compare_paired(reference: Processes, other: Processes, seed: int = 0, q: float = 0.5) -> LatencyComparison:
    """Compares processes that ran side by side: sitting ``i`` and round ``j`` of the one beside those of the other.

    A round gives one figure, the logarithm of the ratio of medians: what meets both in it cancels. The ratio is the
    mean of the middle half of all rounds' figures, of all sittings together: a second in which a neighbour was at work,
    and met one side more than the other, is cut off wherever it fell. (Of another quantile than the median a round has
    too few samples, so a sitting's are taken together.) The interval is Student's over the sittings: the rounds of one
    are not independent, so their influences on that mean are added up before the spread is taken (Liang and Zeger
    1986). It is taken no smaller than what the rounds say, so that a few sittings that agree by luck do not narrow it.

    With one sitting the rounds are the units, and with fewer than ``MIN_ROUNDS`` of them the samples, by blocks.
    Sittings and rounds that only one side has are left out.

    Raises:
        UsageError: there is no round in which both were sampled.
    """
    sittings = [pairs for mine, its in zip(reference, other, strict=False) if (pairs := _pairs(mine, its))]
    if not sittings:
        raise UsageError("there is no round in which both were sampled", hint="statistics.unpaired compares two runs")
    ratios = [_round_ratios(pairs, q) for pairs in sittings]
    if len(ratios) > 1:
        return _by_processes(*_pool_processes(ratios), len(ratios) - 1)
    if len(ratios[0]) >= MIN_ROUNDS:
        reach = student(_count_kept(len(ratios[0])) - 1) * math.sqrt(_middle_mean_variance(ratios[0]))
        centre = _middle_mean(ratios[0])
        return _comparison(centre, (centre - reach, centre + reach), "rounds")
    mine, its = (_join_rounds([pair[side] for pair in sittings[0]]) for side in (0, 1))
    return _by_samples(mine, its, seed, q)


def compare_unpaired(reference: Processes, other: Processes, seed: int = 0, q: float = 0.5) -> LatencyComparison:
    """Compares two runs of different times: Welch's interval (1947) over the logarithms of the processes' quantiles.

    The variance between a side's processes is taken no smaller than what the blocks within them say. A side of one
    process is lent the other's variance between processes; where both are of one, the samples are the units, by blocks.
    What changed on the machine between the two times cannot be told from what changed in the program.

    Raises:
        UsageError: a side has no samples.
    """
    sides = [_collect_samples(processes) for processes in (reference, other)]
    counts = [len(series) for series in sides]
    if max(counts) == 1:
        return _by_samples(sides[0][0], sides[1][0], seed, q)
    levels = [_logs(np.array([quantile(samples, q) for samples in series])) for series in sides]
    between = [float(each.var(ddof=1)) if len(each) > 1 else None for each in levels]
    lent = max(spread for spread in between if spread is not None)
    errors = [
        max((lent if spread is None else spread) / len(series), _block_variance(series, q, [seed, stream]))
        for stream, (spread, series) in enumerate(zip(between, sides, strict=True))
    ]
    centre = float(levels[0].mean() - levels[1].mean())
    return _by_processes(centre, sum(errors), _welch_freedom(errors, counts))


def ratio_of_medians(numerator: Samples, denominator: Samples) -> float:
    """The median of the one over the median of the other."""
    return quantile(numerator, 0.5) / quantile(denominator, 0.5)


def ratio_interval(numerator: Samples, denominator: Samples, seed: int = 0) -> Interval:
    """A 95 % interval on ``ratio_of_medians`` in one process of each; both are resampled, each by its own blocks."""
    return _by_samples(_join_rounds([numerator]), _join_rounds([denominator]), seed, 0.5).interval


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
    ascents = sum(_ascents(each) for each in levels)
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
    variance, covariance = resampling.autocovariance(resampling.ranks(values), 1)
    return float(covariance / variance)


def is_strongly_correlated(samples: Samples) -> bool:
    """Whether ``autocorrelation`` is beyond ``STRONG_CORRELATION``, and beyond chance (Bartlett 1946)."""
    found = autocorrelation(samples)
    return found >= STRONG_CORRELATION and found > student(math.inf) / math.sqrt(len(samples))


def _join_rounds(rounds: Rounds) -> Floats:
    return np.concatenate([np.empty(0), *(np.asarray(samples, dtype=np.float64) for samples in rounds)])


def _collect_samples(processes: Processes) -> list[Floats]:
    """Each process's samples; processes without any are left out."""
    series = [samples for rounds in processes if len(samples := _join_rounds(rounds))]
    if not series:
        raise UsageError("there are no samples to take an interval of")
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


def _pairs(mine: Rounds, its: Rounds) -> list[tuple[Samples, Samples]]:
    return [(one, two) for one, two in zip(mine, its, strict=False) if len(one) and len(two)]


def _round_ratios(pairs: Sequence[tuple[Samples, Samples]], q: float) -> Floats:
    """The logarithm of the ratio in each round; of another quantile than the median, of all rounds together."""
    if q != 0.5:
        pairs = [(_join_rounds([one for one, _ in pairs]), _join_rounds([two for _, two in pairs]))]
    levels = _logs(np.array([[quantile(one, q), quantile(two, q)] for one, two in pairs]))
    return np.asarray(levels[:, 0] - levels[:, 1])


def _count_kept(count: int) -> int:
    return count - 2 * (count // 4)


def _middle_mean(values: Floats) -> float:
    """The mean of the middle half: of those that are left when a quarter is cut off at both ends."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())


def _middle_mean_variance(values: Floats) -> float:
    """Of ``_middle_mean``, from the winsorised variance (Tukey and McLaughlin 1963); of two values at least."""
    n, cut = len(values), len(values) // 4
    ordered = np.sort(values)
    spread = float(np.clip(ordered, ordered[cut], ordered[n - cut - 1]).var(ddof=1))
    return spread * (n - 1) / (_count_kept(n) * (_count_kept(n) - 1))


def _pool_processes(processes: Sequence[Floats]) -> tuple[float, float]:
    """The ``_middle_mean`` of all values, and its variance, with each process's values taken as one draw."""
    values = np.concatenate(processes)
    ordered, cut = np.sort(values), len(values) // 4
    low, high = ordered[cut], ordered[len(values) - cut - 1]
    middle = np.clip(values, low, high).mean()
    influences = np.array([(np.clip(each, low, high) - middle).sum() for each in processes]) / _count_kept(len(values))
    between = float(np.square(influences).sum()) * len(processes) / (len(processes) - 1)
    return _middle_mean(values), max(between, _middle_mean_variance(values))


def _block_variance(series: Sequence[Floats], q: float, seed: Sequence[int]) -> float:
    return float(_logs(resampling.resample_blocks(series, [q], np.random.default_rng(seed))).var())


def _welch_freedom(errors: Sequence[float], counts: Sequence[int]) -> float:
    """Degrees of freedom (Satterthwaite 1946); a side of one process has no variance of its own, and so none."""
    if min(counts) == 1 or not any(errors):
        return max(counts) - 1
    return sum(errors) ** 2 / sum(error**2 / (count - 1) for error, count in zip(errors, counts, strict=True))


def _ascents(values: Floats) -> int:
    """Pairs that ascend less those that descend."""
    return int(np.sign(values[None, :] - values[:, None])[np.triu_indices(len(values), 1)].sum())


def _by_processes(centre: float, variance: float, freedom: float) -> LatencyComparison:
    reach = student(freedom) * math.sqrt(variance)
    return _comparison(centre, (centre - reach, centre + reach), "processes")


def _by_samples(mine: Floats, its: Floats, seed: int, q: float) -> LatencyComparison:
    """Each side's blocks are resampled for themselves."""
    levels = [
        _logs(resampling.resample_blocks([samples], [q], np.random.default_rng([seed, stream]))[0])
        for stream, samples in enumerate((mine, its))
    ]
    centre = float(np.diff(_logs(np.array([quantile(its, q), quantile(mine, q)])))[0])
    return _comparison(centre, _middle(levels[0] - levels[1]), "samples")


def _comparison(centre: float, interval: Interval, units: Units) -> LatencyComparison:
    """From the logarithm of the ratio."""
    low, high = math.exp(interval[0]), math.exp(interval[1])
    least = 1 + (RESOLUTION if units == "processes" else ONE_PROCESS_RESOLUTION)
    verdict: Verdict = "faster" if low > least else "slower" if high < 1 / least else "tie"
    return LatencyComparison(math.exp(centre), (low, high), verdict, units)
