"""Accuracy by class, and the confusions that differ between two runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy.packing import PackedPredictions, unpack_predictions
from exporter.proportions import Interval, wilson
from runtimes.errors import ModelMismatchError


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
            "the predictions are on different images",
            code="packed-images-differ",
            hint="measure both on the same data",
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
