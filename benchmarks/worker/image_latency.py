"""Encoded images for the clock that runs from their bytes to a label."""

from __future__ import annotations

import importlib.util
import io
import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.process.job import Job
from benchmarks.worker.inputs import ROTATION
from exporter.data.dataset import open_dataset
from runtimes import files
from runtimes.errors import InputError, ResourceError
from runtimes.images.preprocessing import MAX_FILE_BYTES

if TYPE_CHECKING:
    from runtimes import Runtime
    from runtimes.classifier import Classifier
    from runtimes.images.preprocessing import Image


def make_encoded_call(job: Job, runtime: Runtime) -> Callable[[], object] | None:
    """A call that answers one encoded image of the data, another one each time: decoded, fitted, prepared, run, and
    turned into a label. ``None`` where there are no images, no Pillow, or several images go into a call.

    Images that are arrays in their data set are encoded as PNG first. Those that cannot be read are left out.

    Raises:
        RexportError: the model is not one of labelled images after all.
    """
    manifest = runtime.artifact.manifest
    preprocessing = None if manifest is None else manifest.preprocessing
    if job.data is None or preprocessing is None or importlib.util.find_spec("PIL") is None:
        return None
    if job.batch != 1 or job.load is not None:
        return None
    from runtimes.classifier import Classifier

    classifier = Classifier(runtime, preprocessing, None if manifest is None else manifest.labels)
    dataset = open_dataset(job.data, ROTATION)
    images = [data for index in range(len(dataset)) if (data := _readable(dataset.image(index), classifier))]
    if not images:
        return None
    turns = itertools.cycle(images)
    return lambda: classifier.predict(next(turns))


def _readable(image: Image, classifier: Classifier) -> bytes | None:
    """The image as the content of a file; ``None`` if it cannot be read."""
    try:
        content = _content(image)
        classifier.predict(content)
    except (InputError, ResourceError):
        return None
    return content


def _content(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, os.PathLike)):
        return files.read_bounded(image, MAX_FILE_BYTES)
    import PIL.Image

    encoded = io.BytesIO()
    picture = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(encoded, "PNG")
    return encoded.getvalue()
