"""Intervals on what was sampled, and comparisons. Pure functions: the same samples and seed give the same figures.

Another start of the same program lands elsewhere, for where its code and its memory happen to lie (Mytkowicz et al.
2009). So the independent unit is the process (Kalibera and Jones 2013): however many calls one process makes, they say
nothing of the next. Of few processes the spread is itself uncertain, hence Student's t in place of the normal
distribution. An interval from one process speaks of that process alone.
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

NO_DIFFERENCE: Verdict = "no significant difference"

Units: TypeAlias = Literal["processes", "rounds", "samples"]

RESOLUTION = 0.01
"""A difference is significant if its whole interval lies beyond this. One percent is what moving the same code in
memory makes (Mytkowicz et al. 2009, Curtsinger and Berger 2013), and no reason to choose."""

ONE_PROCESS_RESOLUTION = 0.05
"""The same where each side is one process: its interval knows nothing of where another start of it would land."""

SMALL_DIFFERENCE = 0.10
"""Half the width of an interval, relative to its ratio, up to which two without a significant difference are alike."""

MIN_ROUNDS = 5
"""From this many rounds on, one pair of processes is compared by its rounds; with fewer, by its samples."""


@dataclass(frozen=True)
class LatencyComparison:
    """Two configurations' latencies, one over the other.

    Attributes:
        ratio: the reference's over the other's: 2.0 is twice as fast as the reference.
        interval: at 95 %, on the ratio.
        verdict: on the other. The difference is significant if the whole interval lies beyond ``RESOLUTION``, so
            ``faster`` says: by more than one percent, at 95 %.
        units: what was taken as independent of each other. ``processes`` where there are two or more; otherwise the
            interval speaks of these two processes alone, and a verdict asks for ``ONE_PROCESS_RESOLUTION``.
    """

    ratio: float
    interval: Interval
    verdict: Verdict
    units: Units

    @property
    def is_clear(self) -> bool:
        """Whether the ratio may be told as a number: the difference is significant, and half the interval is at most
        half of the difference to 1 and a quarter of the ratio."""
        return self.verdict != NO_DIFFERENCE and self._reach <= min(abs(self.ratio - 1) / 2, self.ratio / 4)

    @property
    def is_alike(self) -> bool:
        """Whether the two may be called alike: there is no significant difference, and the interval would show one of
        ``SMALL_DIFFERENCE``."""
        return self.verdict == NO_DIFFERENCE and self._reach <= SMALL_DIFFERENCE * self.ratio

    @property
    def _reach(self) -> float:
        return (self.interval[1] - self.interval[0]) / 2


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
        raise UsageError(
            "there is no round in which both were sampled",
            code="rounds-missing",
            hint="compare_unpaired takes two runs",
        )
    ratios = [_round_ratios(pairs, q) for pairs in sittings]
    if len(ratios) > 1 or len(ratios[0]) >= MIN_ROUNDS:
        return _by_student(*_middle_mean(ratios), "processes" if len(ratios) > 1 else "rounds")
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
        max((lent if spread is None else spread) / len(series), float(_resample(series, q, seed, stream).var()))
        for stream, (spread, series) in enumerate(zip(between, sides, strict=True))
    ]
    centre = float(levels[0].mean() - levels[1].mean())
    return _by_student(centre, sum(errors), welch_freedom(errors, counts), "processes")


def _pairs(mine: Rounds, its: Rounds) -> list[tuple[Samples, Samples]]:
    return [(one, two) for one, two in zip(mine, its, strict=False) if len(one) and len(two)]


def _round_ratios(pairs: Sequence[tuple[Samples, Samples]], q: float) -> Floats:
    """The logarithm of the ratio in each round; of another quantile than the median, of all rounds together."""
    if q != 0.5:
        pairs = [(_join_rounds([one for one, _ in pairs]), _join_rounds([two for _, two in pairs]))]
    levels = _logs(np.array([[quantile(one, q), quantile(two, q)] for one, two in pairs]))
    return np.asarray(levels[:, 0] - levels[:, 1])


def _middle_mean(processes: Sequence[Floats]) -> tuple[float, float, float]:
    """The mean of the middle half of all values, a quarter cut off at both ends; its variance, and the degrees of
    freedom of that.

    The variance is the winsorised one (Tukey and McLaughlin 1963); of several processes no smaller than with each one's
    values taken as one draw.
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
    """(RESAMPLES,), the logarithms of the quantile of all values together, with blocks resampled."""
    return _logs(resample_blocks(series, [q], np.random.default_rng(seed))[0])


def welch_freedom(errors: Sequence[float], counts: Sequence[int]) -> float:
    """Degrees of freedom (Satterthwaite 1946); a side of one process has no variance of its own, and so none."""
    if min(counts) == 1 or not any(errors):
        return max(counts) - 1
    return sum(errors) ** 2 / sum(error**2 / (count - 1) for error, count in zip(errors, counts, strict=True))


def _by_student(centre: float, variance: float, freedom: float, units: Units) -> LatencyComparison:
    reach = student(freedom) * math.sqrt(variance)
    return _comparison(centre, (centre - reach, centre + reach), units)


def _by_samples(mine: Floats, its: Floats, seed: int, q: float) -> LatencyComparison:
    """Each side's blocks are resampled for themselves."""
    ratios = _resample([mine], q, seed, 0) - _resample([its], q, seed, 1)
    centre = float(np.diff(_logs(np.array([quantile(its, q), quantile(mine, q)])))[0])
    return _comparison(centre, _middle(ratios), "samples")


def _comparison(centre: float, interval: Interval, units: Units) -> LatencyComparison:
    """From the logarithm of the ratio."""
    low, high = math.exp(interval[0]), math.exp(interval[1])
    least = 1 + (RESOLUTION if units == "processes" else ONE_PROCESS_RESOLUTION)
    verdict: Verdict = "faster" if low > least else "slower" if high < 1 / least else NO_DIFFERENCE
    return LatencyComparison(math.exp(centre), (low, high), verdict, units)
