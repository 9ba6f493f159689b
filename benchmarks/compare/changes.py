"""How much a latency and an accuracy changed between two rows, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.accuracy import flips as answers_flips
from benchmarks.accuracy import packing, predictions
from benchmarks.accuracy.flips import Flips
from benchmarks.accuracy.packing import PackedPredictions
from benchmarks.compare import integrity
from benchmarks.records.result import Row
from benchmarks.stats import comparison as statistics
from benchmarks.stats import intervals
from benchmarks.stats.comparison import Units, Verdict
from exporter.proportions import Interval, newcombe


@dataclass(frozen=True)
class LatencyChange:
    """A quantile of the latency, as it was and as it is.

    Attributes:
        old_s, new_s: of all samples together.
        ratio: old over new, with its interval: below 1 it is slower now. From the processes' own quantiles, so not
            exactly ``old_s / new_s``.
        verdict: on the new one; of what is ``slower`` the whole interval is, by more than the resolution of
            ``benchmarks.stats.comparison``.
        paired: whether both were measured side by side, in turns.
        units: as in ``benchmarks.stats.comparison.LatencyComparison``.
    """

    old_s: float
    new_s: float
    ratio: float
    interval: Interval
    verdict: Verdict
    paired: bool
    units: Units

    @property
    def slowdown(self) -> float:
        """How much longer it takes, as a fraction of what it took; below 0 it is faster."""
        return 1 / self.ratio - 1

    @property
    def slowdown_interval(self) -> Interval:
        """At 95 %."""
        return 1 / self.interval[1] - 1, 1 / self.interval[0] - 1

    @property
    def percent_text(self) -> str:
        """The slowdown in percent, without the sign, and its interval."""
        low, high = self.slowdown_interval
        return f"{100 * self.slowdown:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


@dataclass(frozen=True)
class AccuracyChange:
    """Top-1 as it was and as it is.

    Attributes:
        old, new: shares of the images.
        value: the old less the new, with its interval: below 0 it is better now.
        paired: whether the answers were compared image by image; else the totals are, and the interval is wider.
        images: how many.
        flips: of answers, against the old ones; ``None`` of totals.
    """

    old: float
    new: float
    value: float
    interval: Interval
    paired: bool
    images: int
    flips: Flips | None


def change(old: Row, new: Row, q: float) -> LatencyChange | None:
    """Of the ``q``-quantile; ``None`` where one side has too few samples for it."""
    sides = integrity.latencies(old), integrity.latencies(new)
    together = [intervals.together(side) for side in sides]
    if not all(intervals.enough_for(samples, q) for samples in together):
        return None
    paired = old.run == new.run and old.field is not None and old.field == new.field
    found = (statistics.compare_paired if paired else statistics.compare_unpaired)(*sides, seed=new.seed, q=q)
    old_s, new_s = (intervals.quantile(samples, q) for samples in together)
    return LatencyChange(old_s, new_s, found.ratio, found.interval, found.verdict, paired, found.units)


def drop(old: Row, new: Row) -> AccuracyChange | None:
    """Of top-1, from the packed answers where both rows have them, else from the totals; ``None`` where there is none
    to compare.

    Raises:
        ArtifactError: as ``benchmarks.accuracy.packing.unpack_predictions``.
    """
    if old.top1 is None or new.top1 is None or why_no_drop(old, new):
        return None
    if old.answers is not None and new.answers is not None:
        return _compare_predictions(old.answers, new.answers)
    images, right = integrity.images(old), [integrity.right(row) for row in (old, new)]
    value = (right[0] - right[1]) / images
    shares = right[0] / images, right[1] / images
    return AccuracyChange(
        *shares, value, newcombe(shares[0], images, shares[1], images), paired=False, images=images, flips=None
    )


def _compare_predictions(old: PackedPredictions, new: PackedPredictions) -> AccuracyChange | None:
    before, now = packing.unpack_predictions(old), packing.unpack_predictions(new)
    shares = predictions.top1(before), predictions.top1(now)
    lost = predictions.drop(now, before)
    if lost is None or shares[0] is None or shares[1] is None:
        return None
    flips = answers_flips.flips(now, before)
    return AccuracyChange(shares[0].value, shares[1].value, lost.value, lost.interval, True, lost.images, flips)


def why_no_drop(old: Row, new: Row) -> str | None:
    """Why their top-1 cannot be compared, where one of them has any."""
    if old.top1 is None or new.top1 is None:
        return None if old.top1 is new.top1 else f"{'OLD' if old.top1 is None else 'NEW'} has none"
    if old.answers is not None and new.answers is not None:
        return None if old.answers.asked == new.answers.asked else "the two were asked about different images"
    seen = [f"{row.data}, {row.images} images" for row in (old, new)]
    return None if seen[0] == seen[1] else f"{seen[0]} before, {seen[1]} now"
