"""How much a latency and an accuracy changed between two results, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.accuracy import predictions
from benchmarks.accuracy.differences import Flips, flips
from benchmarks.analysis.figures import Figures, compare_latencies, took_turns
from benchmarks.format import TOO_NOISY, is_too_noisy, with_margin
from benchmarks.stats.comparison import Units, Verdict
from exporter.proportions import Interval, newcombe
from runtimes.errors import Reason


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
        """The slowdown in percent, without the percent sign, with its margin: of one process a side there is none."""
        if self.units != "processes":
            return with_margin(self.slowdown, None, 1, 100, "+")
        if is_too_noisy(self.ratio, self.interval):
            return f"{100 * self.slowdown:+.1f} {TOO_NOISY}"
        return with_margin(self.slowdown, self.slowdown_interval, 1, 100, "+")


@dataclass(frozen=True)
class AccuracyChange:
    """Top-1 as it was and as it is.

    Attributes:
        old, new: shares of the images.
        value: the old less the new, with its interval: below 0 it is better now.
        paired: whether the predictions were compared image by image; else the totals are, and the interval is wider.
        images: how many.
        flips: of predictions, against the old ones; ``None`` of totals.
    """

    old: float
    new: float
    value: float
    interval: Interval
    paired: bool
    images: int
    flips: Flips | None


def change(old: Figures, new: Figures, q: float) -> LatencyChange | None:
    """Of the ``q``-quantile; ``None`` where one side has too few samples for it."""
    before, now = old.quantile(q), new.quantile(q)
    if before is None or now is None:
        return None
    found, paired = compare_latencies(old.result, new.result, q), took_turns(old.result, new.result)
    return LatencyChange(before.value, now.value, found.ratio, found.interval, found.verdict, paired, found.units)


def drop(old: Figures, new: Figures) -> AccuracyChange | None:
    """Of top-1, from the predictions where both have them, else from the totals; ``None`` where there is none to
    compare.

    Raises:
        ArtifactError: as ``benchmarks.accuracy.packing.unpack_predictions``.
    """
    if old.top1 is None or new.top1 is None or why_no_drop(old, new):
        return None
    if old.predictions is not None and new.predictions is not None:
        lost, changed = predictions.drop(new.predictions, old.predictions), flips(new.predictions, old.predictions)
        if lost is None:
            return None
        return AccuracyChange(
            old.top1.value, new.top1.value, lost.value, lost.interval, paired=True, images=lost.images, flips=changed
        )
    images = old.images or 0
    right = [round(share.value * images) for share in (old.top1, new.top1)]
    value, shares = (right[0] - right[1]) / images, (right[0] / images, right[1] / images)
    interval = newcombe(shares[0], images, shares[1], images)
    return AccuracyChange(*shares, value, interval, paired=False, images=images, flips=None)


def why_no_drop(old: Figures, new: Figures) -> Reason | None:
    """Why their top-1 cannot be compared, where one of them has any."""
    if old.top1 is None and new.top1 is None:
        return None
    if old.top1 is None or new.top1 is None:
        return Reason("top1-on-one-side", f"{'OLD' if old.top1 is None else 'NEW'} has none")
    before, now = old.result.predictions, new.result.predictions
    if before is not None and now is not None:
        if before.asked == now.asked:
            return None
        return Reason("images-differ", "the two were asked about different images")
    seen = [f"{side.result.identity.data}, {side.images} images" for side in (old, new)]
    return None if seen[0] == seen[1] else Reason("data-differ", f"{seen[0]} before, {seen[1]} now")
