"""What a model answered, image by image, small enough to stand in a result row; and how two rows' answers differ."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import KEPT, Predictions, check_same_images
from exporter.proportions import Interval, wilson
from runtimes.errors import ArtifactError, ModelMismatchError

MOST_IMAGES, MOST_CLASSES = 10_000_000, 1 << 20
"""That answers are unpacked of: so much memory a foreign row may claim, and no more."""

ORDINARY = 0.95
"""The share of images whose change of margin counts as what the rows' arithmetic ordinarily does."""

CLEAR = 0.1
"""Of the median margin: from here on an answer was no near tie, however coarse the arithmetic."""

FINEST = 2.0**-10
"""Of the median margin: what half precision, in which margins are packed, tells apart."""

_TRUTH, _AMONG_FIVE = 1, 2


@dataclass(frozen=True)
class PackedPredictions:
    """One configuration's answers on n images, packed: so that rows of different runs are compared image by image.

    Attributes:
        images: how many.
        classes: how many the model tells apart.
        labels: the classes' names; ``None`` where they have none.
        asked: SHA-256 of the images' places in the data set and of their true classes: rows with the same one were
            asked the same.
        packed: base64 of the compressed arrays.
    """

    images: int
    classes: int
    labels: tuple[str, ...] | None
    asked: str
    packed: str


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


def pack_predictions(predictions: Predictions, labels: tuple[str, ...] | None) -> PackedPredictions:
    """The predictions as they stand in a row: best class, margin to half precision, whether the true class is among
    the best five.

    Raises:
        ModelMismatchError: there are not as many ``labels`` as classes.
    """
    if labels is not None and len(labels) != predictions.classes:
        raise ModelMismatchError(f"{len(labels)} labels for {predictions.classes} classes")
    compressed = zlib.compress(_content(predictions), level=9)
    return PackedPredictions(
        images=len(predictions.indices),
        classes=predictions.classes,
        labels=labels,
        asked=_digest_questions(predictions.indices, predictions.targets),
        packed=base64.b64encode(compressed).decode("ascii"),
    )


def _content(predictions: Predictions) -> bytes:
    """The arrays one after another: little-endian, and so that those that hold little compress to little.

    A byte of flags; the images' places as steps from one to the next; the best classes, less the true ones modulo the
    classes where these are known; these; a bit for each image; the margins, their low bytes first and then their high
    ones.
    """
    number, best = _number(predictions.classes), predictions.best[:, 0]
    targets, five = predictions.targets, _among_five(predictions)
    flags = (targets is not None) * _TRUTH + (five is not None) * _AMONG_FIVE
    steps = np.diff(predictions.indices, prepend=0).astype("<i8")
    parts = [bytes([flags]), steps.tobytes()]
    if targets is None:
        parts.append(best.astype(number).tobytes())
    else:
        parts += [((best - targets) % predictions.classes).astype(number).tobytes(), targets.astype(number).tobytes()]
    if five is not None:
        parts.append(np.packbits(five).tobytes())
    halves = np.minimum(predictions.margins, np.finfo(np.float16).max).astype("<f2")
    parts.append(halves.view(np.uint8).reshape(-1, 2).T.tobytes())
    return b"".join(parts)


def _number(classes: int) -> str:
    """The dtype that a class's number fits in."""
    return "<u1" if classes <= 1 << 8 else "<u2" if classes <= 1 << 16 else "<u4"


def _among_five(predictions: Predictions) -> NDArray[np.bool_] | None:
    if predictions.targets is None or predictions.classes <= KEPT:
        return None
    if predictions.among_five is not None:
        return predictions.among_five
    found: NDArray[np.bool_] = (predictions.best == predictions.targets[:, None]).any(axis=1)
    return found


def _digest_questions(indices: NDArray[np.int64], targets: NDArray[np.int64] | None) -> str:
    digest = hashlib.sha256(indices.astype("<i8").tobytes())
    digest.update(b"" if targets is None else targets.astype("<i8").tobytes())
    return digest.hexdigest()


def unpack_predictions(answers: PackedPredictions) -> Predictions:
    """The predictions of a row: ``best`` holds the best class alone, (n, 1), and margins are to half precision.

    Raises:
        ArtifactError: they are damaged, or not of so many images and classes. No more memory is taken than these need.
    """
    if not 1 <= answers.images <= MOST_IMAGES or not 2 <= answers.classes <= MOST_CLASSES:
        raise _damage_error(f"{answers.images} images and {answers.classes} classes")
    if answers.labels is not None and len(answers.labels) != answers.classes:
        raise _damage_error(f"{len(answers.labels)} labels for {answers.classes} classes")
    found = _arrays(_ArrayReader(_decompress(answers)), answers)
    if _digest_questions(found.indices, found.targets) != answers.asked:
        raise _damage_error("they are not on the images that they say")
    return found


def _damage_error(how: str) -> ArtifactError:
    return ArtifactError(f"the answers are damaged: {how}", hint="measure again with rbench run")


def _decompress(answers: PackedPredictions) -> bytes:
    width = np.dtype(_number(answers.classes)).itemsize
    most = 1 + answers.images * (8 + 2 * width + 2) + (answers.images + 7) // 8
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(base64.b64decode(answers.packed, validate=True), most + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise _damage_error(str(error)) from error
    if len(content) > most or not unpacker.eof or unpacker.unused_data:
        raise _damage_error(f"not {answers.images} images")
    return content


class _ArrayReader:
    """Takes arrays off the front of some bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def read_array(self, dtype: str, count: int) -> NDArray[np.generic]:
        end = self._at + np.dtype(dtype).itemsize * count
        if end > len(self._content):
            raise _damage_error("cut short")
        taken: NDArray[np.generic] = np.frombuffer(self._content[self._at : end], dtype)
        self._at = end
        return taken

    def finish(self) -> None:
        if self._at != len(self._content):
            raise _damage_error("too long")


def _arrays(reader: _ArrayReader, answers: PackedPredictions) -> Predictions:
    images, classes, number = answers.images, answers.classes, _number(answers.classes)
    flags = int(reader.read_array("<u1", 1)[0])
    indices = np.cumsum(reader.read_array("<i8", images).astype(np.int64))
    best = reader.read_array(number, images).astype(np.int64)
    targets = reader.read_array(number, images).astype(np.int64) if flags & _TRUTH else None
    if best.max() >= classes or (targets is not None and targets.max() >= classes) or indices.min() < 0:
        raise _damage_error("a class or a place that there is not")
    if targets is not None:
        best = (best + targets) % classes
    five = None
    if flags & _AMONG_FIVE:
        bits = reader.read_array("<u1", (images + 7) // 8).astype(np.uint8)
        five = np.unpackbits(bits, count=images).astype(np.bool_)
    margins = reader.read_array("<u1", 2 * images).astype(np.uint8).reshape(2, images).T.copy().view("<f2")[:, 0]
    reader.finish()
    if not (np.isfinite(margins) & (margins >= 0)).all():
        raise _damage_error("a margin below 0 or not finite")
    if flags != (_TRUTH if targets is not None else 0) + (_AMONG_FIVE if targets is not None and classes > KEPT else 0):
        raise _damage_error(f"flags {flags}")
    return Predictions(indices, targets, best[:, None], margins.astype(np.float32), classes, five)


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
    return Flips(
        better=better,
        worse=worse,
        p_value=None if this.targets is None or reference.targets is None else mcnemar(better, worse),
        near_ties=int(flipped.sum()) - real,
        real=real,
        real_share_interval=wilson(real, len(flipped)),
    )


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
        raise ModelMismatchError("the answers are on different images", hint="measure both on the same data")
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
