"""The inputs of a model: real images if there are any, otherwise seeded noise; never constants, never always the same.

Encoded images are for the clock that measures from the bytes of an image to its label.
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
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.process.job import Job
from benchmarks.records.request import classes_of, is_classifier
from exporter.data.class_matching import targets_for
from exporter.data.dataset import Unreadable
from exporter.data.noise import noise, noise_pixels
from exporter.data.opening import open_dataset
from runtimes import Runtime, files
from runtimes.artifacts.artifact import Artifact
from runtimes.backends import registry
from runtimes.errors import CompatibilityError, InputError, ModelMismatchError, Reason, ResourceError, quote
from runtimes.images.contents import is_content, read_content
from runtimes.images.preprocessing import MAX_FILE_BYTES, Image
from runtimes.protocol import Array, Arrays, TensorSpec

Batches: TypeAlias = Generator[tuple[NDArray[np.int64], Array], None, None]
"""Batches of images with their indices in the data set."""

ROTATION = 16
"""The number of different inputs that the timed calls use in rotation, so that no cache holds the outputs."""

INPUTS_LIMIT_BYTES = 128 << 20
"""The largest total size of the inputs in rotation. Larger inputs reduce their number, to at least two."""

EVALUATION_BATCH = 100
"""The largest number of images in one call of the evaluation."""

EVALUATION_BATCH_BYTES = 8 << 20
"""The largest size of the images in one call of the evaluation."""

NOISE_IMAGES = 64
"""The largest number of noise images that are compared with the reference if there are no real images."""

SUBNORMAL_SHARE = 1e-3
"""The share of input values that may be subnormal. In half-precision noise 5 of 100,000 are, without slowing it."""


def concrete_shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    """Return the shape of an input for ``batch`` images, for the specification ``spec``.

    Raises:
        CompatibilityError: The model has another fixed batch size, or another dimension is dynamic.
    """
    if spec.fixed_batch not in (None, batch):
        raise CompatibilityError(
            f"the batch size of the model is fixed at {spec.fixed_batch}, but {batch} was requested",
            code="batch-fixed",
            hint="export the model with --batch dynamic",
        )
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    if len(sizes) != len(spec.shape) - 1:
        raise CompatibilityError(
            f"rbench cannot make an input for {spec}: only the first dimension may be dynamic", code="shape-open"
        )
    return (batch, *sizes)


def rotation(job: Job, runtime: Runtime) -> list[Arrays]:
    """Return the feeds for the timed calls: real images if there are any, otherwise noise.

    Args:
        job: The job.
        runtime: The runtime.

    Raises:
        InputError: None of the images can be read.
    """
    shapes = {spec.name: concrete_shape(spec, job.batch) for spec in runtime.inputs}
    feed_bytes = sum(math.prod(shapes[spec.name]) * np.dtype(spec.dtype).itemsize for spec in runtime.inputs)
    count = max(2, min(ROTATION, INPUTS_LIMIT_BYTES // max(1, feed_bytes)))
    if job.data is None:
        return [
            {
                spec.name: noise_for(spec, shapes[spec.name], job.seed + ROTATION * number + index)
                for number, spec in enumerate(runtime.inputs)
            }
            for index in range(count)
        ]
    spec, wanted = only_input(runtime), count * job.batch
    limit = wanted if job.limit is None else min(job.limit, wanted)
    _, _, batches = _read_batches(job, runtime.artifact, spec, limit, wanted, [])
    readable = [images for _, images in batches]
    if not readable:
        raise InputError(
            f"none of the first {limit} images of {quote(job.data)!r} can be read", code="images-unreadable"
        )
    images = np.concatenate(readable)
    indices = np.arange(wanted) % len(images)
    return [{spec.name: images[part]} for part in np.split(indices, count)]


def noise_for(spec: TensorSpec, shape: tuple[int, ...], seed: int) -> Array:
    """Return seeded noise for an input: normally distributed floats, or uniformly distributed pixels.

    Args:
        spec: The input.
        shape: The shape.
        seed: The seed.

    Raises:
        InputError: The dtype of the input is neither floating point nor uint8.
    """
    if takes_pixels(spec):
        return noise_pixels(shape, seed)
    return as_input(spec, noise(shape, seed))


def takes_pixels(spec: TensorSpec) -> bool:
    """Return whether the input takes uint8 pixels, channels last. The graph then has the normalisation."""
    return np.dtype(spec.dtype) == np.uint8


def as_input(spec: TensorSpec, values: Array) -> Array:
    """Return ``values`` as C-ordered array of the input's dtype: floats are converted, pixels are kept.

    Args:
        spec: The input.
        values: The values.

    Raises:
        InputError: The dtype of the input is neither floating point nor uint8.
    """
    dtype = np.dtype(spec.dtype)
    if dtype.kind != "f" and not takes_pixels(spec):
        raise InputError(
            f"the input is {spec}, but rbench supports only floating-point inputs and uint8 pixels",
            code="input-dtype-unsupported",
        )
    return np.ascontiguousarray(values, dtype=dtype)


def only_input(runtime: Runtime) -> TensorSpec:
    """Return the only input, which takes the images.

    Raises:
        InputError: The model does not have exactly one input.
    """
    if len(runtime.inputs) != 1:
        raise InputError(f"the model has {len(runtime.inputs)} inputs, expected one for images", code="inputs-several")
    return runtime.inputs[0]


@dataclass(frozen=True)
class EvaluationImages:
    """The images of an evaluation.

    Attributes:
        targets: The labels (n,); ``None`` for noise.
        total: The number of images.
        batch: The number of images in a batch.
        batches: The batches, of the dtype and shape that the input takes.
    """

    targets: NDArray[np.int64] | None
    total: int
    batch: int
    batches: Batches


def evaluation(job: Job, runtime: Runtime, broken: list[Unreadable]) -> EvaluationImages:
    """Return the images of the data set, or noise.

    Args:
        job: The job.
        runtime: The runtime.
        broken: The list to which unreadable images are added during the iteration.

    Raises:
        RexportError: The data cannot be read, or the data do not fit the model.
    """
    spec = only_input(runtime)
    batch = evaluation_batch(spec, job)
    if job.data is None:
        total = min(job.limit or NOISE_IMAGES, NOISE_IMAGES)
        return EvaluationImages(None, total, batch, _noise_batches(spec, batch, total, job.seed + ROTATION * ROTATION))
    targets, total, batches = _read_batches(job, runtime.artifact, spec, job.limit, batch, broken)
    return EvaluationImages(targets, total, batch, batches)


def evaluation_batch(spec: TensorSpec, job: Job) -> int:
    """Return the number of images of ``spec`` in a batch of the evaluation in ``job``.

    This is the fixed batch size of the model, the measured one for a backend that prepares each batch size for seconds,
    or else what the limits allow.

    Args:
        spec: The input of the model.
        job: The job.
    """
    if spec.fixed_batch is not None:
        return spec.fixed_batch
    if job.device in registry.find_backend(job.runtime).prepares_batches:
        return job.batch
    image_bytes = math.prod(concrete_shape(spec, 1)) * np.dtype(spec.dtype).itemsize
    return max(1, min(EVALUATION_BATCH, EVALUATION_BATCH_BYTES // image_bytes))


def _read_batches(
    job: Job, artifact: Artifact, spec: TensorSpec, limit: int | None, size: int, broken: list[Unreadable]
) -> tuple[NDArray[np.int64] | None, int, Batches]:
    """Return the labels of the images as a classifier's classes, the number of images, and the model's inputs."""
    if job.data is None or artifact.manifest is None or artifact.manifest.preprocessing is None:
        raise ModelMismatchError(
            "the artifact does not record its preprocessing, so images cannot be prepared",
            code="preprocessing-unknown",
            path=artifact.path,
        )
    dataset = open_dataset(job.data, limit)
    known = is_classifier(artifact)
    targets = targets_for(dataset, artifact.manifest.labels, classes_of(artifact)) if known else None
    if takes_pixels(spec):
        return targets, len(dataset), dataset.pixels(artifact.manifest.preprocessing, size, broken)
    batches = dataset.batches(artifact.manifest.preprocessing, size, broken)
    return targets, len(dataset), _convert_batches(batches, spec)


def _convert_batches(batches: Batches, spec: TensorSpec) -> Batches:
    with closing(batches):
        for indices, images in batches:
            yield indices, as_input(spec, images)


def _noise_batches(spec: TensorSpec, size: int, total: int, seed: int) -> Batches:
    for start in range(0, total, size):
        indices = np.arange(start, min(start + size, total))
        yield indices, noise_for(spec, (len(indices), *concrete_shape(spec, size)[1:]), seed + start)


def oddities(feeds: Sequence[Arrays], wanted: int = 1) -> tuple[Reason, ...]:
    """Return warnings about feeds that make the timing unusual: subnormal values, and images that are all the same.

    Noise and photographs give no warning if there are enough different feeds.

    Args:
        feeds: The feeds.
        wanted: The expected number of different feeds.
    """
    arrays = [array for feed in feeds for array in feed.values()]
    warnings = []
    subnormal, values = sum(map(subnormals, arrays)), sum(array.size for array in arrays)
    if subnormal > SUBNORMAL_SHARE * values:
        warnings.append(
            Reason(
                "inputs-subnormal", f"{subnormal:,} of {values:,} input values are subnormal, which slows arithmetic"
            )
        )
    flat = sum(array.size > 1 and bool((array == array.flat[0]).all()) for array in arrays)
    if flat:
        warnings.append(Reason("inputs-flat", f"all values are equal in {flat} of {len(arrays)} inputs"))
    different = len(set(map(_checksum, feeds)))
    if len(feeds) > 1 and different == 1:
        warnings.append(Reason("inputs-equal", "all inputs are the same"))
    elif different < wanted:
        warnings.append(
            Reason(
                "inputs-too-few",
                f"the calls used only {different} different inputs, expected {wanted}: caches may have served them",
            )
        )
    return tuple(warnings)


def list_assumptions(job: Job, artifact: Artifact) -> tuple[Reason, ...]:
    """Return a warning if the accuracy rests on a preprocessing that was assumed at the export of the artifact.

    Args:
        job: The job. Without data, no accuracy is measured.
        artifact: The artifact.
    """
    preprocessing = None if artifact.manifest is None else artifact.manifest.preprocessing
    if job.data is None or preprocessing is None or not preprocessing.assumed:
        return ()
    return (
        Reason(
            "accuracy-preprocessing-assumed",
            "the preprocessing was assumed at the export, so the accuracy may be that of other images than in training "
            f"({', '.join(preprocessing.assumed)})",
        ),
    )


def subnormals(array: Array) -> int:
    """Return the number of values that are not 0 and nearer to 0 than the smallest normal number."""
    if array.dtype.kind != "f":
        return 0
    magnitudes = np.abs(array)
    return int(np.count_nonzero((magnitudes > 0) & (magnitudes < np.finfo(array.dtype).tiny)))


def _checksum(feed: Arrays) -> int:
    checksum = 0
    for name in sorted(feed):
        checksum = zlib.crc32(feed[name].tobytes(), checksum)
    return checksum


def make_encoded_call(job: Job, runtime: Runtime) -> Callable[[], object] | None:
    """Return a call that classifies one encoded image of the data, another one each time.

    The call decodes the image, fits it, preprocesses it, runs the model and returns the label. Images that are arrays
    in their data set are encoded as PNG before. Unreadable images are left out.

    Args:
        job: The job.
        runtime: The runtime.

    Returns:
        The call; ``None`` without images, without Pillow, for a load test, for other batch sizes than 1, or for a model
        that is not a classifier.

    Raises:
        RexportError: The model cannot classify images.
    """
    manifest = runtime.artifact.manifest
    if job.data is None or job.batch != 1 or job.load is not None or importlib.util.find_spec("PIL") is None:
        return None
    if manifest is None or manifest.preprocessing is None or not is_classifier(runtime.artifact):
        return None
    from runtimes.classifier import Classifier

    classifier = Classifier(runtime, manifest.preprocessing, manifest.labels)
    dataset, images = open_dataset(job.data, ROTATION), list[bytes]()
    for index in range(len(dataset)):
        with suppress(InputError, ResourceError):  # the image is unreadable
            content = _encode(dataset.image(index))
            classifier.predict(content)
            images.append(content)
    if not images:
        return None
    rotating = itertools.cycle(images)
    return lambda: classifier.predict(next(rotating))


def _encode(image: Image) -> bytes:
    if is_content(image):
        return read_content(image, MAX_FILE_BYTES)
    if isinstance(image, (str, os.PathLike)):
        return files.read_bounded(image, MAX_FILE_BYTES)
    import PIL.Image

    encoded = io.BytesIO()
    picture: Any = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(encoded, "PNG")
    return encoded.getvalue()
