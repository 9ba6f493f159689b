"""What a model's answers are worth: top-1, top-5, and how they compare with a reference's, each with its interval.

A runtime's answers are kept per image, so that two runtimes can be compared image by image and not by their totals.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.proportions import Interval, difference_interval, wilson
from runtimes.errors import ArtifactError, CheckFailedError, ModelMismatchError
from runtimes.protocol import Array

Logits = NDArray[np.floating]
Indices = NDArray[np.int64]

KEPT = 5
"""How many of an image's best classes are kept."""


@dataclass(frozen=True)
class Predictions:
    """One runtime's answers on n images.

    Attributes:
        indices: (n,) int64, which images of the data set.
        targets: (n,) int64, or ``None`` where there is no truth, as for noise.
        best: (n, k) int64, the classes with the largest logits, best first; k is 5, or all classes if they are fewer,
            or 1 of answers that were kept in a row.
        margins: (n,) float32, the largest logit less the second largest: near nothing in a tie.
        classes: how many there are.
        among_five: (n,), whether the true class is among the best five, where ``best`` does not hold five.
    """

    indices: Indices
    targets: Indices | None
    best: Indices
    margins: NDArray[np.float32]
    classes: int
    among_five: NDArray[np.bool_] | None = None

    @property
    def right(self) -> NDArray[np.bool_] | None:
        """(n,), whether the best class is the true one; ``None`` without truth."""
        return None if self.targets is None else self.best[:, 0] == self.targets

    @property
    def right_among_five(self) -> NDArray[np.bool_] | None:
        """(n,), whether the true class is among the best five; ``None`` without truth or where five are all classes."""
        if self.targets is None or self.classes <= KEPT:
            return None
        return (self.best == self.targets[:, None]).any(axis=1) if self.among_five is None else self.among_five


@dataclass(frozen=True)
class ShareEstimate:
    """A fraction of images, or a difference of two, with its 95 % interval."""

    value: float
    interval: Interval
    images: int


def predict(
    logits_of: Callable[[Array], Logits], batches: Iterable[tuple[Indices, Array]], targets: Indices | None
) -> Predictions:
    """The answers on all the batches of (indices, images); ``logits_of`` gives (b, classes) for b images.

    Of equal logits the lower class is the better, as with ``argmax``.

    Raises:
        CheckFailedError: a logit is NaN or infinite; the message names the image.
        ModelMismatchError: there are no images, or one class alone.
    """
    seen: list[Indices] = []
    best: list[Indices] = []
    margins: list[NDArray[np.float32]] = []
    classes = 0
    for indices, images in batches:
        logits = logits_of(images)
        bad = ~np.isfinite(logits).all(axis=1)
        if bad.any():
            raise CheckFailedError(
                f"{int(bad.sum())} of {len(indices)} images got logits that are not finite, the first is image "
                f"{int(indices[np.argmax(bad)])}",
                code="logits-not-finite",
            )
        classes = logits.shape[1]
        if classes < 2:
            raise ModelMismatchError(
                f"a classifier has 2 classes or more, this output has {classes}", code="classes-too-few"
            )
        ranked, values = _rank_classes(logits)
        seen.append(np.asarray(indices, dtype=np.int64))
        best.append(ranked)
        margins.append((values[:, 0] - values[:, 1]).astype(np.float32))
    if not seen:
        raise ModelMismatchError("the data set has no images", code="evaluation-without-images")
    order = np.concatenate(seen)
    truth = None if targets is None else np.asarray(targets, dtype=np.int64)[order]
    return Predictions(order, truth, np.concatenate(best), np.concatenate(margins), classes)


def _rank_classes(logits: Logits) -> tuple[Indices, Logits]:
    """The best classes (b, k) of finite logits (b, classes), and their logits.

    One ``argmax`` for each place: of a thousand classes that is cheaper than sorting, and unlike a partition it knows
    which of equal logits comes first.
    """
    left, rows = logits.copy(), np.arange(len(logits))
    ranked = np.empty((len(logits), min(KEPT, logits.shape[1])), np.int64)
    for place in range(ranked.shape[1]):
        ranked[:, place] = left.argmax(axis=1)
        left[rows, ranked[:, place]] = -np.inf
    return ranked, np.take_along_axis(logits, ranked, axis=1)


def top1(predictions: Predictions) -> ShareEstimate | None:
    """How often the best class is the true one; ``None`` without truth."""
    return None if predictions.right is None else _share(predictions.right)


def top5(predictions: Predictions) -> ShareEstimate | None:
    """How often the true class is among the best five; ``None`` without truth or where five are all the classes."""
    return None if predictions.right_among_five is None else _share(predictions.right_among_five)


def agreement(predictions: Predictions, reference: Predictions) -> ShareEstimate:
    """How often the best class is the reference's.

    Raises:
        ModelMismatchError: the two did not see the same images.
    """
    check_same_images(predictions, reference)
    return _share(predictions.best[:, 0] == reference.best[:, 0])


def drop(predictions: Predictions, reference: Predictions) -> ShareEstimate | None:
    """How much smaller top-1 is than the reference's, image by image: below 0 it is better; ``None`` without truth.

    Raises:
        ModelMismatchError: the two did not see the same images.
    """
    check_same_images(predictions, reference)
    if predictions.right is None or reference.right is None:
        return None
    value, interval = difference_interval(reference.right, predictions.right)
    return ShareEstimate(value, interval, len(predictions.right))


def check_same_images(predictions: Predictions, reference: Predictions) -> None:
    """Nothing, if both are on the same images with the same true classes.

    Raises:
        ModelMismatchError: they are not.
    """
    if not np.array_equal(predictions.indices, reference.indices):
        raise ModelMismatchError(
            f"the predictions are on different images: {len(predictions.indices)} and {len(reference.indices)}",
            code="images-not-same",
        )
    if predictions.targets is None or reference.targets is None:
        return
    other = int((predictions.targets != reference.targets).sum())
    if other:
        raise ModelMismatchError(
            f"the predictions are on images of different classes: {other} are of another class", code="classes-differ"
        )


def _share(hits: NDArray[np.bool_]) -> ShareEstimate:
    count, images = int(hits.sum()), len(hits)
    return ShareEstimate(count / images, wilson(count, images), images)


def save(predictions: Predictions, path: str | os.PathLike[str]) -> None:
    """Writes an ``.npz`` file for ``load``. What is ``None`` is left out."""
    arrays: dict[str, Any] = {name: value for name, value in vars(predictions).items() if value is not None}
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: str | os.PathLike[str]) -> Predictions:
    """What ``save`` wrote.

    Raises:
        ArtifactError: the file is something else.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            found: dict[str, Any] = dict(arrays)
            return Predictions(**{"targets": None, **found, "classes": int(found["classes"])})
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"not predictions: {error}", code="predictions-unreadable", path=path) from error
