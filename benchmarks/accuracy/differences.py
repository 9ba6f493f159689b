"""Accuracy by class, and how the predictions of two runs differ: changed predictions, confusions, McNemar's test."""

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
"""The share of images whose change of margin counts as what the rows' arithmetic ordinarily does."""

CLEAR = 0.1
"""Of the median margin: from here on an answer was no near tie, however coarse the arithmetic."""


@dataclass(frozen=True)
class Flips:
    """Images whose best class is another than the reference row's.

    Attributes:
        better, worse: that this row alone, or the reference alone, has right; 0 where there is no truth.
        p_value: McNemar's exact test of these two; ``None`` where there is no truth.
        near_ties: flips where both rows' two best logits lie nearer to each other than ``logit_difference``.
        real: the others.
        real_share_interval: 95 %, of the real flips among all images.
    """

    better: int
    worse: int
    p_value: float | None
    near_ties: int
    real: int
    real_share_interval: Interval


def flips(this: Predictions, reference: Predictions, difference: float | None = None) -> Flips:
    """Where the best class is another than the reference's, and whether that means anything.

    A flip is a near tie if both rows' margins are below ``difference``, which is ``logit_difference`` unless given:
    there rounding alone decides. Which of them is right does not count for this.

    Raises:
        ModelMismatchError: the two did not see the same images.
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
    """By how much the two rows' arithmetic ordinarily moves the two best logits against each other.

    It is the 0.95-quantile of the changes of margin over the images that did not flip: neither the largest change,
    below which nearly every flip is by its nature, nor one that the flips themselves have widened. It is at most a
    tenth of the reference's median margin, so that coarse arithmetic does not make a tie of a clear answer, and at
    least what half precision tells apart of that, so that the same comes of packed margins.
    """
    median = float(np.median(reference.margins))
    same = this.best[:, 0] == reference.best[:, 0]
    changes = np.abs(this.margins[same].astype(np.float64) - reference.margins[same])
    ordinary = float(np.quantile(changes, ORDINARY)) if len(changes) else 0.0
    return min(max(ordinary, FINEST * median), CLEAR * median)


def mcnemar(better: int, worse: int) -> float:
    """The two-sided p-value of McNemar's exact test: how often one of two equally good models would be alone in the
    right so unequally often (1947; exact by the binomial distribution). 1 where there is nothing to tell by."""
    total, fewer = better + worse, min(better, worse)
    logarithms = (
        math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1) - total * math.log(2)
        for count in range(fewer + 1)
    )
    return min(1.0, 2 * math.fsum(map(math.exp, logarithms)))


@dataclass(frozen=True)
class ClassShare:
    """How many of one class's images are answered rightly, with a 95 % interval on the share."""

    name: str
    images: int
    right: int
    interval: Interval


@dataclass(frozen=True)
class Confusion:
    """``images`` that the reference called ``before`` and this row calls ``now``; ``true`` is what they are, or
    ``None`` where there is no truth."""

    true: str | None
    before: str
    now: str
    images: int


def per_class(answers: PackedPredictions) -> tuple[ClassShare, ...]:
    """Each class's share of right answers, in the classes' order; without those of no image, and none without truth.

    Raises:
        ArtifactError: as ``unpack_predictions``.
    """
    found = unpack_predictions(answers)
    if found.targets is None or found.right is None:
        return ()
    images = np.bincount(found.targets, minlength=answers.classes).tolist()
    right = np.bincount(found.targets[found.right], minlength=answers.classes).tolist()
    return tuple(
        ClassShare(_name(answers, index), asked, hits, wilson(hits, asked))
        for index, (asked, hits) in enumerate(zip(images, right, strict=True))
        if asked
    )


def count_confusions(this: PackedPredictions, reference: PackedPredictions, most: int = 10) -> tuple[Confusion, ...]:
    """The pairs of classes between which answers have changed most often: the most frequent first, ``most`` of them.

    Raises:
        ArtifactError: as ``unpack_predictions``.
        ModelMismatchError: the two were not asked the same.
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


def _name(answers: PackedPredictions, index: int) -> str:
    return str(index) if answers.labels is None else answers.labels[index]
