"""Accuracy of predictions: top-1, top-5, and the comparison with a reference, each with its interval.

Predictions are kept for each image, so that two runs are compared image by image and not by their totals.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.proportions import Interval, difference_interval, wilson
from runtimes import files
from runtimes.errors import ArtifactError, CheckFailedError, ModelMismatchError, RexportError, quote
from runtimes.protocol import Array

Logits = NDArray[np.floating]
"""Logits (n, classes)."""

Indices = NDArray[np.int64]
"""Positions of images in a data set, or classes."""

KEPT = 5
"""The number of classes with the largest logits that are kept for each image."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of one runtime on n images.

    Attributes:
        indices: The positions of the images in the data set, int64 (n,).
        targets: The labels, int64 (n,), or ``None`` without labels, as for noise.
        best: The classes with the largest logits, best first, int64 (n, k). k is 5, or the number of classes if it is
            smaller, or 1 for predictions that were packed.
        margins: The largest logit minus the second largest, float32 (n,).
        classes: The number of classes.
        among_five: Whether the label is among the top-5 classes, bool (n,), if ``best`` does not have five classes.
    """

    indices: Indices
    targets: Indices | None
    best: Indices
    margins: NDArray[np.float32]
    classes: int
    among_five: NDArray[np.bool_] | None = None

    @property
    def right(self) -> NDArray[np.bool_] | None:
        """Whether the top-1 class is the label, bool (n,); ``None`` without labels."""
        return None if self.targets is None else self.best[:, 0] == self.targets

    @property
    def right_among_five(self) -> NDArray[np.bool_] | None:
        """Whether the label is among the top-5 classes, bool (n,); ``None`` without labels or for up to 5 classes."""
        if self.targets is None or self.classes <= KEPT:
            return None
        return (self.best == self.targets[:, None]).any(axis=1) if self.among_five is None else self.among_five


@dataclass(frozen=True)
class ShareEstimate:
    """A share of images, or a difference of two shares.

    Attributes:
        value: The share or difference.
        interval: The 95 % interval.
        images: The number of images.
    """

    value: float
    interval: Interval
    images: int


def predict(
    logits_of: Callable[[Array], Logits], batches: Iterable[tuple[Indices, Array]], targets: Indices | None
) -> Predictions:
    """Return the predictions for all images.

    Of equal logits the lower class is the better one, as for ``argmax``.

    Args:
        logits_of: Returns the logits (b, classes) of b images.
        batches: The batches of indices and images.
        targets: The labels of the whole data set, or ``None``.

    Raises:
        CheckFailedError: A logit is NaN or infinite. The message names the image.
        ModelMismatchError: There are no images, or fewer than two classes.
    """
    seen: list[Indices] = []
    best: list[Indices] = []
    margins: list[NDArray[np.float32]] = []
    classes = 0
    for indices, images in batches:
        logits = logits_of(images)
        not_finite = ~np.isfinite(logits).all(axis=1)
        if not_finite.any():
            raise CheckFailedError(
                f"the logits of {int(not_finite.sum())} of {len(indices)} images are not finite, first those of image "
                f"{int(indices[np.argmax(not_finite)])}",
                code="logits-not-finite",
            )
        classes = logits.shape[1]
        if classes < 2:
            raise ModelMismatchError(f"the output has {classes} classes, expected at least 2", code="classes-too-few")
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
    """Return the best classes (b, k) of finite logits (b, classes), and their logits.

    The function calls ``argmax`` for each rank. For a thousand classes this is faster than sorting, and unlike a
    partition it orders equal logits.
    """
    left, rows = logits.copy(), np.arange(len(logits))
    ranked = np.empty((len(logits), min(KEPT, logits.shape[1])), np.int64)
    for rank in range(ranked.shape[1]):
        ranked[:, rank] = left.argmax(axis=1)
        left[rows, ranked[:, rank]] = -np.inf
    return ranked, np.take_along_axis(logits, ranked, axis=1)


def top1(predictions: Predictions) -> ShareEstimate | None:
    """Return the top-1 accuracy, or ``None`` without labels."""
    return None if predictions.right is None else _share(predictions.right)


def top5(predictions: Predictions) -> ShareEstimate | None:
    """Return the top-5 accuracy, or ``None`` without labels or with at most 5 classes."""
    return None if predictions.right_among_five is None else _share(predictions.right_among_five)


def agreement(predictions: Predictions, reference: Predictions) -> ShareEstimate:
    """Return the share of images whose top-1 class is that of the reference.

    Args:
        predictions: The predictions.
        reference: The predictions of the reference.

    Raises:
        ModelMismatchError: The predictions are on different images.
    """
    check_same_images(predictions, reference)
    return _share(predictions.best[:, 0] == reference.best[:, 0])


def drop(predictions: Predictions, reference: Predictions) -> ShareEstimate | None:
    """Return the top-1 accuracy of the reference minus that of the predictions, or ``None`` without labels.

    The difference is taken image by image. Below 0 the predictions are better.

    Args:
        predictions: The predictions.
        reference: The predictions of the reference.

    Raises:
        ModelMismatchError: The predictions are on different images.
    """
    check_same_images(predictions, reference)
    if predictions.right is None or reference.right is None:
        return None
    value, interval = difference_interval(reference.right, predictions.right)
    return ShareEstimate(value, interval, len(predictions.right))


def check_same_images(predictions: Predictions, reference: Predictions) -> None:
    """Check that ``predictions`` and ``reference`` are on the same images with the same labels.

    Raises:
        ModelMismatchError: The images or labels differ.
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
        raise ModelMismatchError(f"the labels of {other} images differ between the predictions", code="classes-differ")


def _share(hits: NDArray[np.bool_]) -> ShareEstimate:
    count, images = int(hits.sum()), len(hits)
    return ShareEstimate(count / images, wilson(count, images), images)


def save(predictions: Predictions, path: str | os.PathLike[str]) -> None:
    """Write ``predictions`` to the ``.npz`` file ``path``, for ``load``. Attributes of ``None`` are left out."""
    arrays: dict[str, Any] = {name: value for name, value in vars(predictions).items() if value is not None}
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: str | os.PathLike[str]) -> Predictions:
    """Read the predictions that ``save`` wrote.

    Raises:
        ArtifactError: The file does not hold predictions.
        ResourceError: The file cannot be opened.
    """
    try:
        with files.open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            values: dict[str, Any] = dict(arrays)
            return Predictions(**{"targets": None, **values, "classes": int(values["classes"])})
    except RexportError:
        raise
    except Exception as error:  # NumPy's reader raises many kinds of errors
        raise ArtifactError(
            f"not a file of predictions: {quote(error)}", code="predictions-unreadable", path=path
        ) from error
