"""What a model answered, image by image, small enough to stand in a result row; and how two rows' answers differ."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.predictions import KEPT, Predictions
from runtimes.errors import ArtifactError, ModelMismatchError

MOST_IMAGES, MOST_CLASSES = 10_000_000, 1 << 20
"""That answers are unpacked of: so much memory a foreign row may claim, and no more."""


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
