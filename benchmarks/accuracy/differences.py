"""Accuracy by class, and differences between two runs: changed predictions, confusions, McNemar's test."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy.packing import FINEST, PackedPredictions, unpack_predictions
from benchmarks.accuracy.predictions import Predictions, check_same_images
from exporter.proportions import Interval, wilson
from runtimes.errors import ModelMismatchError

ORDINARY = 0.95
"""The share of images whose change of margin is considered ordinary for the arithmetic of the two runs."""

CLEAR = 0.1
"""The margin, as a share of the median margin, from which on a prediction is confident for any arithmetic."""


@dataclass(frozen=True)
class Flips:
    """The changed predictions: images whose top-1 class differs from that of the reference.

    Attributes:
        better: The number of images that only this run predicts correctly; 0 without labels.
        worse: The number of images that only the reference predicts correctly; 0 without labels.
        p_value: The p-value of McNemar's exact test for ``better`` and ``worse``; ``None`` without labels.
        near_ties: The number of borderline changes: the margins of both runs are below ``logit_difference``.
        real: The number of confident changes, which are all others.
        real_share_interval: The 95 % interval of the share of confident changes among all images.
    """

    better: int
    worse: int
    p_value: float | None
    near_ties: int
    real: int
    real_share_interval: Interval


def flips(this: Predictions, reference: Predictions, difference: float | None = None) -> Flips:
    """Return the changed predictions against a reference.

    A change is borderline if the margins of both runs are below the limit, because rounding alone decides there. The
    labels do not matter for this.

    Args:
        this: The predictions.
        reference: The predictions of the reference.
        difference: The limit of the margins; ``None`` for ``logit_difference``.

    Raises:
        ModelMismatchError: The predictions are on different images.
    """
    check_same_images(this, reference)
    flipped = this.best[:, 0] != reference.best[:, 0]
    bound = logit_difference(this, reference) if difference is None else difference
    real = int((flipped & (np.maximum(this.margins, reference.margins) >= bound)).sum())
    better = worse = 0
    if this.right is not None and reference.right is not None:
        better, worse = int((this.right & ~reference.right).sum()), int((~this.right & reference.right).sum())
    near_ties = int(flipped.sum()) - real
    p_value = None if this.targets is None or reference.targets is None else mcnemar(better, worse)
    return Flips(better, worse, p_value, near_ties, real, wilson(real, len(flipped)))


def logit_difference(this: Predictions, reference: Predictions) -> float:
    """Return how much the arithmetic of the two runs ordinarily changes the margin of the two largest logits.

    The value is the 0.95-quantile of the changes of margin over images with the same top-1 class. It is neither the
    largest change, below which nearly every changed prediction lies, nor affected by the changed predictions. It is at
    most a tenth of the reference's median margin, so that coarse arithmetic does not make confident predictions
    borderline. It is at least the resolution of half precision at that median, so that packed margins give the same.

    Args:
        this: The predictions.
        reference: The predictions of the reference.
    """
    median = float(np.median(reference.margins))
    same = this.best[:, 0] == reference.best[:, 0]
    changes = np.abs(this.margins[same].astype(np.float64) - reference.margins[same])
    ordinary = float(np.quantile(changes, ORDINARY)) if len(changes) else 0.0
    return min(max(ordinary, FINEST * median), CLEAR * median)


def mcnemar(better: int, worse: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (1947, exact by the binomial distribution).

    The p-value is the probability that two equally good models differ at least this much; 1 if both numbers are 0.

    Args:
        better: The number of images that only the first model predicts correctly.
        worse: The number of images that only the second model predicts correctly.
    """
    total, fewer = better + worse, min(better, worse)
    logarithms = (
        math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1) - total * math.log(2)
        for count in range(fewer + 1)
    )
    return min(1.0, 2 * math.fsum(map(math.exp, logarithms)))


@dataclass(frozen=True)
class ClassShare:
    """The accuracy of one class.

    Attributes:
        name: The name of the class.
        images: The number of its images.
        right: The number of its images that are predicted correctly.
        interval: The 95 % interval of the share.
    """

    name: str
    images: int
    right: int
    interval: Interval


@dataclass(frozen=True)
class Confusion:
    """A change of predictions between two classes.

    Attributes:
        true: The name of the true class; ``None`` without labels.
        before: The name of the class that the reference predicts.
        now: The name of the class that this run predicts.
        images: The number of images.
    """

    true: str | None
    before: str
    now: str
    images: int


def per_class(packed: PackedPredictions) -> tuple[ClassShare, ...]:
    """Return the accuracy of each class with images, in the order of the classes; empty without labels.

    Raises:
        ArtifactError: The packed predictions are damaged.
    """
    predictions = unpack_predictions(packed)
    if predictions.targets is None or predictions.right is None:
        return ()
    images = np.bincount(predictions.targets, minlength=packed.classes).tolist()
    right = np.bincount(predictions.targets[predictions.right], minlength=packed.classes).tolist()
    return tuple(
        ClassShare(_name(packed, index), count, hits, wilson(hits, count))
        for index, (count, hits) in enumerate(zip(images, right, strict=True))
        if count
    )


def count_confusions(this: PackedPredictions, reference: PackedPredictions, most: int = 10) -> tuple[Confusion, ...]:
    """Return the pairs of classes between which predictions change most often, the most frequent first.

    Args:
        this: The predictions.
        reference: The predictions of the reference.
        most: The largest number of pairs.

    Raises:
        ArtifactError: Packed predictions are damaged.
        ModelMismatchError: The predictions are on different images.
    """
    if this.asked != reference.asked or this.classes != reference.classes:
        raise ModelMismatchError(
            "the predictions are on different images", code="packed-images-differ", hint="measure both on the same data"
        )
    now, before = unpack_predictions(this), unpack_predictions(reference)
    changed = np.flatnonzero(now.best[:, 0] != before.best[:, 0])
    truth = np.full(len(changed), -1) if now.targets is None else now.targets[changed]
    triples = zip(truth.tolist(), before.best[changed, 0].tolist(), now.best[changed, 0].tolist(), strict=True)
    counted = sorted(Counter(triples).items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        Confusion(None if true < 0 else _name(this, true), _name(this, old), _name(this, new), images)
        for (true, old, new), images in counted[:most]
    )


def _name(packed: PackedPredictions, index: int) -> str:
    return str(index) if packed.labels is None else packed.labels[index]
