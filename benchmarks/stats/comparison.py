"""Comparisons of latencies with confidence intervals. Pure functions: equal samples and seeds give equal results.

Another start of the same program has another latency, because its code and memory have other addresses (Mytkowicz et
al. 2009). The independent unit is therefore the process (Kalibera and Jones 2013): the calls of one process say nothing
about the next, however many they are. The spread of few processes is itself uncertain, hence Student's t in place of
the normal distribution. An interval from one process is valid for that process alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from benchmarks.stats.intervals import (
    Floats,
    Processes,
    Rounds,
    Samples,
    _collect_samples,
    _join_rounds,
    _logs,
    _middle,
    quantile,
    resample_blocks,
    student,
)
from exporter.proportions import Interval
from runtimes.errors import UsageError

Verdict: TypeAlias = Literal["faster", "slower", "no significant difference"]
"""The verdict of a comparison."""

NO_DIFFERENCE: Verdict = "no significant difference"
"""The verdict unless the whole interval lies beyond the resolution."""

Units: TypeAlias = Literal["processes", "rounds", "samples"]
"""The units that a comparison takes as independent."""

RESOLUTION = 0.01
"""The smallest relative difference that counts: a difference is significant if its whole interval lies beyond it.

Moving the same code in memory changes the latency by one percent (Mytkowicz et al. 2009, Curtsinger and Berger 2013).
"""

ONE_PROCESS_RESOLUTION = 0.05
"""The resolution if each side is one process, because the interval does not cover the spread between processes."""

SMALL_DIFFERENCE = 0.10
"""The largest half width of an interval, relative to its ratio, at which two configurations may be called alike."""

MIN_ROUNDS = 5
"""The minimum number of rounds for a comparison of one pair of processes by rounds. Fewer are compared by samples."""


@dataclass(frozen=True)
class LatencyComparison:
    """The comparison of the latencies of two configurations.

    Attributes:
        ratio: The latency of the reference divided by that of the other: 2.0 is twice as fast as the reference.
        interval: The 95 % interval of the ratio.
        verdict: The verdict on the other. It is ``NO_DIFFERENCE`` unless the whole interval lies beyond the
            resolution.
        units: The units taken as independent. With two or more processes these are processes and the resolution is
            ``RESOLUTION``. Otherwise the interval is valid only for these processes and the resolution is
            ``ONE_PROCESS_RESOLUTION``.
    """

    ratio: float
    interval: Interval
    verdict: Verdict
    units: Units

    @property
    def is_clear(self) -> bool:
        """Whether the ratio may be given as a number.

        The difference must be significant. Half the interval must be at most half of the difference to 1 and a quarter
        of the ratio.
        """
        return self.verdict != NO_DIFFERENCE and self._reach <= min(abs(self.ratio - 1) / 2, self.ratio / 4)

    @property
    def is_alike(self) -> bool:
        """Whether the two are alike: not significantly different, with an interval that excludes larger differences.

        Half the interval must be at most ``SMALL_DIFFERENCE`` of the ratio.
        """
        return self.verdict == NO_DIFFERENCE and self._reach <= SMALL_DIFFERENCE * self.ratio

    @property
    def _reach(self) -> float:
        return (self.interval[1] - self.interval[0]) / 2


def compare_paired(reference: Processes, other: Processes, seed: int = 0, q: float = 0.5) -> LatencyComparison:
    """Compare processes that took turns: process ``i`` and round ``j`` of one side with those of the other.

    - A round gives one value, the logarithm of the ratio of medians. Disturbances that affect both sides cancel.
    - The ratio is the mean of the middle half of all values, from all pairs of processes. A disturbance that affects
      one side more than the other is cut off. For other quantiles than the median a round has too few samples, so all
      rounds of a process give one value.
    - The interval is Student's over the processes. The rounds of one process are not independent, so their influences
      on the mean are summed before the variance is taken (Liang and Zeger 1986). The variance is at least that of the
      rounds, so that few processes that agree by chance do not narrow the interval.
    - With one pair of processes the rounds are the units; with fewer than ``MIN_ROUNDS`` rounds, blocks of samples.

    Processes and rounds that only one side has are left out.

    Args:
        reference: The samples of the reference in seconds, by process and round.
        other: The samples of the other configuration.
        seed: The seed of the resampling.
        q: The quantile.

    Raises:
        UsageError: There is no round with samples of both sides.
    """
    pairs_by_process = [
        pairs for ours, theirs in zip(reference, other, strict=False) if (pairs := _pairs(ours, theirs))
    ]
    if not pairs_by_process:
        raise UsageError(
            "there is no round with samples of both sides",
            code="rounds-missing",
            hint="use compare_unpaired for two runs",
        )
    ratios = [_round_ratios(pairs, q) for pairs in pairs_by_process]
    if len(ratios) > 1 or len(ratios[0]) >= MIN_ROUNDS:
        return _by_student(*_middle_mean(ratios), "processes" if len(ratios) > 1 else "rounds")
    ours, theirs = (_join_rounds([pair[side] for pair in pairs_by_process[0]]) for side in (0, 1))
    return _by_samples(ours, theirs, seed, q)


def compare_unpaired(reference: Processes, other: Processes, seed: int = 0, q: float = 0.5) -> LatencyComparison:
    """Compare runs of different times: Welch's interval (1947) over the logarithms of the processes' quantiles.

    The variance between the processes of a side is at least that of the blocks within them. A side of one process uses
    the variance between processes of the other side. If both sides have one process, the units are blocks of samples.
    A change of the machine between the two runs cannot be distinguished from a change of the program.

    Args:
        reference: The samples of the reference in seconds, by process and round.
        other: The samples of the other configuration.
        seed: The seed of the resampling.
        q: The quantile.

    Raises:
        UsageError: A side has no samples.
    """
    sides = [_collect_samples(processes) for processes in (reference, other)]
    counts = [len(series) for series in sides]
    if max(counts) == 1:
        return _by_samples(sides[0][0], sides[1][0], seed, q)
    levels = [_logs(np.array([quantile(samples, q) for samples in series])) for series in sides]
    between = [float(each.var(ddof=1)) if len(each) > 1 else None for each in levels]
    largest = max(variance for variance in between if variance is not None)
    errors = [
        max((largest if variance is None else variance) / len(series), float(_resample(series, q, seed, stream).var()))
        for stream, (variance, series) in enumerate(zip(between, sides, strict=True))
    ]
    centre = float(levels[0].mean() - levels[1].mean())
    return _by_student(centre, sum(errors), welch_freedom(errors, counts), "processes")


def _pairs(ours: Rounds, theirs: Rounds) -> list[tuple[Samples, Samples]]:
    return [(first, second) for first, second in zip(ours, theirs, strict=False) if len(first) and len(second)]


def _round_ratios(pairs: Sequence[tuple[Samples, Samples]], q: float) -> Floats:
    """Return the logarithm of the ratio of each round; for other quantiles than the median, of all rounds together."""
    if q != 0.5:
        pairs = [(_join_rounds([first for first, _ in pairs]), _join_rounds([second for _, second in pairs]))]
    levels = _logs(np.array([[quantile(first, q), quantile(second, q)] for first, second in pairs]))
    return np.asarray(levels[:, 0] - levels[:, 1])


def _middle_mean(processes: Sequence[Floats]) -> tuple[float, float, float]:
    """Return the mean of the middle half of all values, its variance, and the degrees of freedom of the variance.

    A quarter of the values is cut off at both ends. The variance is the winsorised one (Tukey and McLaughlin 1963). For
    several processes it is at least the variance with the values of each process taken as one draw.
    """
    values = np.concatenate(processes)
    ordered, n, cut = np.sort(values), len(values), len(values) // 4
    kept, low, high = n - 2 * cut, ordered[cut], ordered[n - cut - 1]
    centre = float(ordered[cut : n - cut].mean())
    variance = float(np.clip(ordered, low, high).var(ddof=1)) * (n - 1) / (kept * (kept - 1))
    freedom = len(processes) - 1
    if freedom == 0:
        return centre, variance, kept - 1
    middle = np.clip(values, low, high).mean()
    influences = np.array([(np.clip(each, low, high) - middle).sum() for each in processes]) / kept
    between = float(np.square(influences).sum()) * len(processes) / freedom
    return centre, max(between, variance), freedom


def _resample(series: Sequence[Floats], q: float, *seed: int) -> Floats:
    """Return the logarithms of the quantile of all values after resampling blocks, (RESAMPLES,)."""
    return _logs(resample_blocks(series, [q], np.random.default_rng(seed))[0])


def welch_freedom(errors: Sequence[float], counts: Sequence[int]) -> float:
    """Return the degrees of freedom of Welch's interval (Satterthwaite 1946).

    Args:
        errors: The variance of each side's mean.
        counts: The number of processes of each side. A side of one process has no variance of its own.
    """
    if min(counts) == 1 or not any(errors):
        return max(counts) - 1
    return sum(errors) ** 2 / sum(error**2 / (count - 1) for error, count in zip(errors, counts, strict=True))


def _by_student(centre: float, variance: float, freedom: float, units: Units) -> LatencyComparison:
    margin = student(freedom) * math.sqrt(variance)
    return _comparison(centre, (centre - margin, centre + margin), units)


def _by_samples(ours: Floats, theirs: Floats, seed: int, q: float) -> LatencyComparison:
    """Compare two processes by resampling the blocks of each side separately."""
    ratios = _resample([ours], q, seed, 0) - _resample([theirs], q, seed, 1)
    centre = float(np.diff(_logs(np.array([quantile(theirs, q), quantile(ours, q)])))[0])
    return _comparison(centre, _middle(ratios), "samples")


def _comparison(centre: float, interval: Interval, units: Units) -> LatencyComparison:
    """Return the comparison from the logarithm of the ratio and its interval."""
    low, high = math.exp(interval[0]), math.exp(interval[1])
    least = 1 + (RESOLUTION if units == "processes" else ONE_PROCESS_RESOLUTION)
    verdict: Verdict = "faster" if low > least else "slower" if high < 1 / least else NO_DIFFERENCE
    return LatencyComparison(math.exp(centre), (low, high), verdict, units)
