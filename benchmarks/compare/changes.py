"""Changes of latency and accuracy between two results, each with its interval."""

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
    """A quantile of the latency in an old and a new result.

    Attributes:
        old_s: The quantile of all old samples, in seconds.
        new_s: The quantile of all new samples, in seconds.
        ratio: The old latency divided by the new one; below 1 the new result is slower. It comes from the quantiles of
            each process, so it is not exactly ``old_s / new_s``.
        interval: The 95 % interval of ``ratio``.
        verdict: The verdict on the new result. It is ``slower`` or ``faster`` if the whole interval lies beyond the
            resolution of ``benchmarks.stats.comparison``.
        paired: Whether the processes of both results took turns.
        units: The independent units, as in ``benchmarks.stats.comparison.LatencyComparison``.
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
        """The relative increase of the latency; below 0 the new result is faster."""
        return 1 / self.ratio - 1

    @property
    def slowdown_interval(self) -> Interval:
        """The 95 % interval of ``slowdown``."""
        return 1 / self.interval[1] - 1, 1 / self.interval[0] - 1

    @property
    def percent_text(self) -> str:
        """The slowdown in percent with its margin, without the percent sign.

        Without several processes on each side there is no margin.
        """
        if self.units != "processes":
            return with_margin(self.slowdown, None, 1, 100, "+")
        if is_too_noisy(self.ratio, self.interval):
            return f"{100 * self.slowdown:+.1f} {TOO_NOISY}"
        return with_margin(self.slowdown, self.slowdown_interval, 1, 100, "+")


@dataclass(frozen=True)
class AccuracyChange:
    """Top-1 accuracy in an old and a new result.

    Attributes:
        old: The old accuracy, 0 to 1.
        new: The new accuracy, 0 to 1.
        value: The old accuracy minus the new one; below 0 the new result is better.
        interval: The 95 % interval of ``value``.
        paired: Whether the predictions were compared image by image. If only totals were compared, the interval is
            wider.
        images: The number of images.
        flips: The changed predictions; ``None`` if only totals were compared.
    """

    old: float
    new: float
    value: float
    interval: Interval
    paired: bool
    images: int
    flips: Flips | None


def change(old: Figures, new: Figures, q: float) -> LatencyChange | None:
    """Return the change of the ``q``-quantile from ``old`` to ``new``, or ``None`` if a side has too few samples."""
    before, now = old.quantile(q), new.quantile(q)
    if before is None or now is None:
        return None
    comparison, paired = compare_latencies(old.result, new.result, q), took_turns(old.result, new.result)
    return LatencyChange(
        before.value, now.value, comparison.ratio, comparison.interval, comparison.verdict, paired, comparison.units
    )


def drop(old: Figures, new: Figures) -> AccuracyChange | None:
    """Return the change of top-1 accuracy from ``old`` to ``new``, or ``None`` if it cannot be compared.

    The predictions are compared if both results have them, otherwise the totals.

    Raises:
        ArtifactError: The packed predictions of a result are damaged.
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
    """Return why the top-1 accuracies cannot be compared, or ``None`` if they can or neither result has any.

    Args:
        old: The figures of the old result.
        new: The figures of the new result.
    """
    if old.top1 is None and new.top1 is None:
        return None
    if old.top1 is None or new.top1 is None:
        return Reason("top1-on-one-side", f"{'OLD' if old.top1 is None else 'NEW'} has no accuracy")
    before, now = old.result.predictions, new.result.predictions
    if before is not None and now is not None:
        if before.asked == now.asked:
            return None
        return Reason("images-differ", "the two results were evaluated on different images")
    data = [f"{side.result.identity.data}, {side.images} images" for side in (old, new)]
    return None if data[0] == data[1] else Reason("data-differ", f"{data[0]} before, {data[1]} now")
