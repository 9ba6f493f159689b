"""Predictions packed image by image, small enough for a result: NumPy's ``.npz`` in base64."""

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
"""The limits of packed predictions. An untrusted file may claim larger numbers and thereby much memory."""

FINEST = 2.0**-10
"""The resolution of half precision, in which margins are packed, as a share of the median margin."""

_IMAGE_BYTES, _HEADER_BYTES = 8 + 4 + 4 + 2 + 1, 1024
"""The largest size of one image in all arrays together, and of the header of an array."""


@dataclass(frozen=True)
class PackedPredictions:
    """The predictions of one configuration on n images, which allow a comparison of runs image by image.

    Attributes:
        images: The number of images.
        classes: The number of classes.
        labels: The names of the classes; ``None`` without names.
        asked: The SHA-256 digest of the images' positions in the data set and of their labels. Results with the same
            digest were evaluated on the same images.
        packed: The base64 text of an ``.npz`` file with arrays of length n: ``steps`` (differences between the
            positions of the images), ``best`` (the top-1 class, minus the label if there are labels), ``margins`` in
            half precision, and with labels ``targets`` (the labels) and ``among_five`` (whether the label is among the
            top-5 classes; only for more than five classes).
    """

    images: int
    classes: int
    labels: tuple[str, ...] | None
    asked: str
    packed: str


def pack_predictions(predictions: Predictions, labels: tuple[str, ...] | None) -> PackedPredictions:
    """Pack the top-1 class of each image, its margin in half precision, and whether the label is among the top 5.

    Args:
        predictions: The predictions.
        labels: The names of the classes, or ``None``.

    Raises:
        ModelMismatchError: The number of ``labels`` differs from the number of classes.
    """
    if labels is not None and len(labels) != predictions.classes:
        raise ModelMismatchError(
            f"there are {len(labels)} labels for {predictions.classes} classes", code="labels-not-classes"
        )
    best, targets = predictions.best[:, 0], predictions.targets
    number = np.min_scalar_type(predictions.classes - 1)
    arrays: dict[str, NDArray[Any] | None] = {  # arrays of many equal values compress well
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
    """Return the SHA-256 digest of the positions ``indices`` and the labels ``targets`` of images."""
    digest = hashlib.sha256(indices.astype("<i8").tobytes())
    digest.update(b"" if targets is None else targets.astype("<i8").tobytes())
    return digest.hexdigest()


def unpack_predictions(packed: PackedPredictions) -> Predictions:
    """Unpack predictions. ``best`` has only the top-1 class, (n, 1), and margins have half precision.

    The memory is limited by the claimed numbers of images and classes, which are checked.

    Raises:
        ArtifactError: The predictions are damaged, or do not have the claimed numbers of images and classes.
    """
    check_size(packed)
    return restore(packed, _read_arrays(packed))


def check_size(packed: PackedPredictions) -> None:
    """Check that the numbers of images and classes are within the limits, and that the labels fit the classes.

    Raises:
        ArtifactError: A number is out of range, or the number of labels differs from the number of classes.
    """
    if not 1 <= packed.images <= MOST_IMAGES or not 2 <= packed.classes <= MOST_CLASSES:
        raise damage_error(f"{packed.images} images and {packed.classes} classes")
    if packed.labels is not None and len(packed.labels) != packed.classes:
        raise damage_error(f"{len(packed.labels)} labels for {packed.classes} classes")


def restore(packed: PackedPredictions, arrays: Mapping[str, NDArray[Any]]) -> Predictions:
    """Return the predictions from unpacked arrays.

    Args:
        packed: The packed predictions.
        arrays: The arrays, by their names in ``PackedPredictions.packed``.

    Raises:
        ArtifactError: An array is missing or unexpected, a value is out of range, or the digest of the images differs.
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
        raise damage_error("a class or position is out of range")
    if not (np.isfinite(margins) & (margins >= 0)).all():
        raise damage_error("a margin is negative or not finite")
    if digest_questions(indices, targets) != packed.asked:
        raise damage_error("the digest of the images does not match")
    best = best if targets is None else (best + targets) % packed.classes
    return Predictions(indices, targets, best[:, None], margins, packed.classes, five)


def damage_error(how: str) -> ArtifactError:
    """Return the error for damaged predictions. ``how`` says what is wrong."""
    hint = "measure again with rbench run"
    return ArtifactError(f"the predictions are damaged: {how}", code="predictions-damaged", hint=hint)


def _read_arrays(packed: PackedPredictions) -> Mapping[str, NDArray[Any]]:
    """Return the arrays by name. Each array has one value for each image."""
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(packed.packed, validate=True))) as archive:
            members = archive.infolist()
            most = packed.images * _IMAGE_BYTES + len(members) * _HEADER_BYTES
            if len(members) > 5 or sum(member.file_size for member in members) > most:
                raise damage_error(f"the arrays are larger than for {packed.images} images")
            return {
                member.filename.removesuffix(".npy"): _read_array(archive.read(member), packed) for member in members
            }
    except (ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise damage_error(str(error)) from error


def _read_array(content: bytes, packed: PackedPredictions) -> NDArray[Any]:
    """Return the array of a ``.npy`` file. The size that its header claims allocates no memory."""
    file = io.BytesIO(content)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != (packed.images,) or dtype.kind not in "uifb":
        raise damage_error(f"an array does not have {packed.images} values")
    array: NDArray[Any] = np.frombuffer(content, dtype, offset=file.tell())
    if array.shape != shape:
        raise damage_error("an array is truncated")
    return array
