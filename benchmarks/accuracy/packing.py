"""Predictions packed image by image, small enough to stand in a result: NumPy's ``.npz`` in base64."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.predictions import KEPT, Predictions
from runtimes.errors import ArtifactError, ModelMismatchError

MOST_IMAGES, MOST_CLASSES = 10_000_000, 1 << 20
"""The most images and classes of predictions that are unpacked: a foreign file may claim so much memory."""

FINEST = 2.0**-10
"""The smallest difference that half precision, in which margins are packed, tells apart, as a share of the median
margin."""

_IMAGE_BYTES, _HEADER_BYTES = 8 + 4 + 4 + 2 + 1, 1024
"""The most that an image takes in all arrays together, and the most of an array's header."""


@dataclass(frozen=True)
class PackedPredictions:
    """The predictions of one configuration on n images, so that results of different runs are compared image by image.

    Attributes:
        images: how many.
        classes: how many the model tells apart.
        labels: the classes' names; ``None`` where they have none.
        asked: SHA-256 of the images' places in the data set and of their true classes: results with the same one were
            asked the same.
        packed: base64 of an ``.npz`` file with an array of n for each of ``steps`` (from one image's place to the
            next), ``best`` (the class, less the true one where that is known), ``margins`` in half precision, and where
            they are known ``targets`` (the true classes) and ``among_five`` (whether the true class is among the best
            five).
    """

    images: int
    classes: int
    labels: tuple[str, ...] | None
    asked: str
    packed: str


def pack_predictions(predictions: Predictions, labels: tuple[str, ...] | None) -> PackedPredictions:
    """The best class of each image, its margin to half precision, and whether the true class is among the best five.

    Raises:
        ModelMismatchError: there are not as many ``labels`` as classes.
    """
    if labels is not None and len(labels) != predictions.classes:
        raise ModelMismatchError(f"{len(labels)} labels for {predictions.classes} classes", code="labels-not-classes")
    best, targets = predictions.best[:, 0], predictions.targets
    number = np.min_scalar_type(predictions.classes - 1)
    arrays: dict[str, NDArray[Any] | None] = {  # those that hold little compress to little
        "steps": np.diff(predictions.indices, prepend=0),
        "best": (best if targets is None else (best - targets) % predictions.classes).astype(number),
        "margins": np.minimum(predictions.margins, np.finfo(np.float16).max).astype(np.float16),
        "targets": None if targets is None else targets.astype(number),
        "among_five": predictions.right_among_five,
    }
    file = io.BytesIO()
    known = {name: array for name, array in arrays.items() if array is not None}
    np.savez_compressed(file, allow_pickle=False, **known)
    return PackedPredictions(
        images=len(predictions.indices),
        classes=predictions.classes,
        labels=labels,
        asked=digest_questions(predictions.indices, targets),
        packed=base64.b64encode(file.getvalue()).decode("ascii"),
    )


def digest_questions(indices: NDArray[np.int64], targets: NDArray[np.int64] | None) -> str:
    """SHA-256 of the images' places and of their true classes."""
    digest = hashlib.sha256(indices.astype("<i8").tobytes())
    digest.update(b"" if targets is None else targets.astype("<i8").tobytes())
    return digest.hexdigest()


def unpack_predictions(packed: PackedPredictions) -> Predictions:
    """The predictions: ``best`` holds the best class alone, (n, 1), and margins are to half precision.

    Raises:
        ArtifactError: they are damaged, or not of so many images and classes. No more memory is taken than these need.
    """
    check_size(packed)
    return restore(packed, _read_arrays(packed))


def check_size(packed: PackedPredictions) -> None:
    """Returns if there are not more images and classes than are unpacked, and a label for each class or none.

    Raises:
        ArtifactError: there are.
    """
    if not 1 <= packed.images <= MOST_IMAGES or not 2 <= packed.classes <= MOST_CLASSES:
        raise damage_error(f"{packed.images} images and {packed.classes} classes")
    if packed.labels is not None and len(packed.labels) != packed.classes:
        raise damage_error(f"{len(packed.labels)} labels for {packed.classes} classes")


def restore(packed: PackedPredictions, arrays: Mapping[str, NDArray[Any]]) -> Predictions:
    """The predictions of these arrays, by their names in ``PackedPredictions.packed``.

    Raises:
        ArtifactError: an array is missing or too many, a value is none that there can be, or they are not on the images
            that they say.
    """
    truth = {"targets"} | ({"among_five"} if packed.classes > KEPT else set()) if "targets" in arrays else set()
    if arrays.keys() != {"steps", "best", "margins"} | truth:
        raise damage_error(f"the arrays are {sorted(arrays)}")
    indices, best = np.cumsum(arrays["steps"].astype(np.int64)), arrays["best"].astype(np.int64)
    targets = arrays["targets"].astype(np.int64) if "targets" in arrays else None
    five = arrays["among_five"].astype(np.bool_) if "among_five" in arrays else None
    margins = arrays["margins"].astype(np.float32)
    classes = [best] if targets is None else [best, targets]
    if indices.min() < 0 or any(each.min() < 0 or each.max() >= packed.classes for each in classes):
        raise damage_error("a class or a place that there is not")
    if not (np.isfinite(margins) & (margins >= 0)).all():
        raise damage_error("a margin below 0 or not finite")
    if digest_questions(indices, targets) != packed.asked:
        raise damage_error("they are not on the images that they say")
    best = best if targets is None else (best + targets) % packed.classes
    return Predictions(indices, targets, best[:, None], margins, packed.classes, five)


def damage_error(how: str) -> ArtifactError:
    """The error for packed predictions that are not sound."""
    hint = "measure again with rbench run"
    return ArtifactError(f"the predictions are damaged: {how}", code="predictions-damaged", hint=hint)


def _read_arrays(packed: PackedPredictions) -> Mapping[str, NDArray[Any]]:
    """The arrays by name, each of one value an image."""
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(packed.packed, validate=True))) as archive:
            members = archive.infolist()
            most = packed.images * _IMAGE_BYTES + len(members) * _HEADER_BYTES
            if len(members) > 5 or sum(member.file_size for member in members) > most:
                raise damage_error(f"not {packed.images} images")
            return {
                member.filename.removesuffix(".npy"): _read_array(archive.read(member), packed) for member in members
            }
    except (ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise damage_error(str(error)) from error


def _read_array(content: bytes, packed: PackedPredictions) -> NDArray[Any]:
    """The array of a ``.npy`` file; what its header claims takes no memory."""
    file = io.BytesIO(content)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != (packed.images,) or dtype.kind not in "uifb":
        raise damage_error(f"not {packed.images} images")
    array: NDArray[Any] = np.frombuffer(content, dtype, offset=file.tell())
    if array.shape != shape:
        raise damage_error("cut short")
    return array
