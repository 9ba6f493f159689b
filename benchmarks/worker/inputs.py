"""What a model is fed: real images where there are any, else seeded noise; never constants, never always the same.

Encoded images are for the clock that runs from their bytes to a label.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import math
import os
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.process.job import Job
from benchmarks.records.request import classes_of
from exporter.data.dataset import Unreadable, noise, noise_pixels, open_dataset, targets_for
from runtimes import Runtime, files
from runtimes.artifacts.artifact import Artifact
from runtimes.errors import CompatibilityError, InputError, ModelMismatchError, Reason, ResourceError, quote
from runtimes.images.preprocessing import MAX_FILE_BYTES, Image
from runtimes.protocol import Array, Arrays, TensorSpec

Batches: TypeAlias = Generator[tuple[NDArray[np.int64], Array], None, None]

ROTATION = 16
"""Different inputs that the timed calls take in turn, so that no cache can answer."""

INPUTS_LIMIT_BYTES = 128 << 20
"""Of all the inputs in rotation; where they are larger there are fewer of them, but two at least."""

EVALUATION_BATCH = 100
EVALUATION_BATCH_BYTES = 8 << 20

NOISE_IMAGES = 64
"""How many noise images are compared with the reference at most, where there are no real ones: they are all alike."""

SUBNORMAL_SHARE = 1e-3
"""Of the values, that may be subnormal: of half-precision noise 5 in 100,000 are by nature, and slow nothing down."""


def concrete_shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    """The input's shape for ``batch`` images.

    Raises:
        CompatibilityError: its batch is fixed at another number, or another dimension is open.
    """
    if spec.fixed_batch not in (None, batch):
        raise CompatibilityError(
            f"the model's batch is fixed at {spec.fixed_batch}, and {batch} was asked for",
            code="batch-fixed",
            hint="export it with --batch dynamic",
        )
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    if len(sizes) != len(spec.shape) - 1:
        raise CompatibilityError(
            f"no input can be made for {spec}: only the first dimension may be open", code="shape-open"
        )
    return (batch, *sizes)


def rotation(job: Job, runtime: Runtime) -> list[Arrays]:
    """Feeds for the timed calls: real images where there are any, else noise.

    Raises:
        InputError: none of the images can be read.
    """
    shapes = {spec.name: concrete_shape(spec, job.batch) for spec in runtime.inputs}
    one = sum(math.prod(shapes[spec.name]) * np.dtype(spec.dtype).itemsize for spec in runtime.inputs)
    count = max(2, min(ROTATION, INPUTS_LIMIT_BYTES // max(1, one)))
    if job.data is None:
        return [
            {
                spec.name: noise_for(spec, shapes[spec.name], job.seed + ROTATION * place + index)
                for place, spec in enumerate(runtime.inputs)
            }
            for index in range(count)
        ]
    spec, wanted = only_input(runtime), count * job.batch
    limit = wanted if job.limit is None else min(job.limit, wanted)
    _, batches = _read_labelled_batches(job, runtime.artifact, spec, limit, wanted, [])
    readable = [images for _, images in batches]
    if not readable:
        raise InputError(
            f"none of the first {limit} images of {quote(job.data)!r} can be read", code="images-unreadable"
        )
    images = np.concatenate(readable)
    places = np.arange(wanted) % len(images)
    return [{spec.name: images[part]} for part in np.split(places, count)]


def noise_for(spec: TensorSpec, shape: tuple[int, ...], seed: int) -> Array:
    """Seeded noise of that shape: normally distributed floats, or evenly distributed pixels.

    Raises:
        InputError: the input is of another dtype.
    """
    if takes_pixels(spec):
        return noise_pixels(shape, seed)
    return as_input(spec, noise(shape, seed))


def takes_pixels(spec: TensorSpec) -> bool:
    """Whether the input is raw: uint8 pixels, channels last, with the normalisation in the graph."""
    return np.dtype(spec.dtype) == np.uint8


def as_input(spec: TensorSpec, values: Array) -> Array:
    """Floats in the input's dtype, pixels as they are.

    Raises:
        InputError: the input is of another dtype.
    """
    dtype = np.dtype(spec.dtype)
    if dtype.kind != "f" and not takes_pixels(spec):
        raise InputError(
            f"{spec}: rbench feeds floating-point inputs and uint8 pixels alone", code="input-dtype-unsupported"
        )
    return np.ascontiguousarray(values, dtype=dtype)


def only_input(runtime: Runtime) -> TensorSpec:
    """The input that images go into.

    Raises:
        InputError: there are several.
    """
    if len(runtime.inputs) != 1:
        raise InputError(f"images go into one input; this model has {len(runtime.inputs)}", code="inputs-several")
    return runtime.inputs[0]


@dataclass(frozen=True)
class EvaluationImages:
    """Images to answer, as the input takes them: ``batches`` of ``batch`` images, ``total`` in all; ``targets`` is
    ``None`` for noise."""

    targets: NDArray[np.int64] | None
    total: int
    batch: int
    batches: Batches


def evaluation(job: Job, runtime: Runtime, broken: list[Unreadable]) -> EvaluationImages:
    """The data set's images, or noise; ``broken`` gets the images that cannot be read, as they are met.

    Raises:
        RexportError: the data cannot be read, or are not for this model.
    """
    spec = only_input(runtime)
    batch = evaluation_batch(spec)
    if job.data is None:
        total = min(job.limit or NOISE_IMAGES, NOISE_IMAGES)
        return EvaluationImages(None, total, batch, _noise_batches(spec, batch, total, job.seed + ROTATION * ROTATION))
    targets, batches = _read_labelled_batches(job, runtime.artifact, spec, job.limit, batch, broken)
    return EvaluationImages(targets, len(targets), batch, batches)


def evaluation_batch(spec: TensorSpec) -> int:
    """The model's own batch, or as many images as processors like at once and memory does not notice."""
    if spec.fixed_batch is not None:
        return spec.fixed_batch
    one = math.prod(concrete_shape(spec, 1)) * np.dtype(spec.dtype).itemsize
    return max(1, min(EVALUATION_BATCH, EVALUATION_BATCH_BYTES // one))


def _read_labelled_batches(
    job: Job, artifact: Artifact, spec: TensorSpec, limit: int | None, size: int, broken: list[Unreadable]
) -> tuple[NDArray[np.int64], Batches]:
    """The data set's targets as the model's outputs, and its images as they go into the model."""
    if job.data is None or artifact.manifest is None or artifact.manifest.preprocessing is None:
        raise ModelMismatchError(
            "nothing says how images are prepared for this file", code="preprocessing-unknown", path=artifact.path
        )
    dataset = open_dataset(job.data, limit)
    targets = targets_for(dataset, artifact.manifest.labels, classes_of(artifact))
    if takes_pixels(spec):
        return targets, dataset.pixels(artifact.manifest.preprocessing, size, broken)
    return targets, _convert_batches(dataset.batches(artifact.manifest.preprocessing, size, broken), spec)


def _convert_batches(batches: Batches, spec: TensorSpec) -> Batches:
    with closing(batches):
        for indices, images in batches:
            yield indices, as_input(spec, images)


def _noise_batches(spec: TensorSpec, size: int, total: int, seed: int) -> Batches:
    for start in range(0, total, size):
        indices = np.arange(start, min(start + size, total))
        yield indices, noise_for(spec, (len(indices), *concrete_shape(spec, size)[1:]), seed + start)


def oddities(feeds: Sequence[Arrays], wanted: int = 1) -> tuple[Reason, ...]:
    """A reason for each thing about the feeds that would make a time unusual: subnormal numbers, and images that are
    all the same. None for noise and for photographs, if there are as many different ones as are wanted."""
    arrays = [array for feed in feeds for array in feed.values()]
    found = []
    below, values = sum(map(subnormals, arrays)), sum(array.size for array in arrays)
    if below > SUBNORMAL_SHARE * values:
        found.append(Reason("inputs-subnormal", f"{below:,} of {values:,} input values are subnormal: these are slow"))
    flat = sum(array.size > 1 and bool((array == array.flat[0]).all()) for array in arrays)
    if flat:
        found.append(Reason("inputs-flat", f"{flat} of {len(arrays)} inputs are one value throughout"))
    different = len(set(map(_checksum, feeds)))
    if len(feeds) > 1 and different == 1:
        found.append(Reason("inputs-equal", "all inputs are the same"))
    elif different < wanted:
        found.append(
            Reason(
                "inputs-too-few",
                f"{different} different inputs took turns, and not {wanted}: a cache may have known them",
            )
        )
    return tuple(found)


def subnormals(array: Array) -> int:
    """How many values are not 0 and nearer to it than the smallest normal number."""
    if array.dtype.kind != "f":
        return 0
    magnitudes = np.abs(array)
    return int(np.count_nonzero((magnitudes > 0) & (magnitudes < np.finfo(array.dtype).tiny)))


def _checksum(feed: Arrays) -> int:
    found = 0
    for name in sorted(feed):
        found = zlib.crc32(feed[name].tobytes(), found)
    return found


def make_encoded_call(job: Job, runtime: Runtime) -> Callable[[], object] | None:
    """A call that answers one encoded image of the data, another one each time: decoded, fitted, prepared, run, and
    turned into a label. ``None`` where there are no images, no Pillow, or several images go into a call.

    Images that are arrays in their data set are encoded as PNG first. Those that cannot be read are left out.

    Raises:
        RexportError: the model is not one of labelled images after all.
    """
    manifest = runtime.artifact.manifest
    if job.data is None or job.batch != 1 or job.load is not None or importlib.util.find_spec("PIL") is None:
        return None
    if manifest is None or manifest.preprocessing is None:
        return None
    from runtimes.classifier import Classifier

    classifier = Classifier(runtime, manifest.preprocessing, manifest.labels)
    dataset, images = open_dataset(job.data, ROTATION), list[bytes]()
    for index in range(len(dataset)):
        with suppress(InputError, ResourceError):  # it cannot be read
            content = _encode(dataset.image(index))
            classifier.predict(content)
            images.append(content)
    if not images:
        return None
    turns = itertools.cycle(images)
    return lambda: classifier.predict(next(turns))


def _encode(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, os.PathLike)):
        return files.read_bounded(image, MAX_FILE_BYTES)
    import PIL.Image

    encoded = io.BytesIO()
    picture = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(encoded, "PNG")
    return encoded.getvalue()
