"""Labelled images for accuracy and calibration. No image is decoded before it is needed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import InputError, Reason, ResourceError, UsageError
from runtimes.images import prefetch
from runtimes.images.preprocessing import Image, Pixels, Preprocessing, fit_image, normalise

_Batches: TypeAlias = Generator[tuple[NDArray[np.int64], Pixels], None, None]


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be decoded.

    Attributes:
        index: The index of the image in the dataset.
        label: The label of the image.
        error: The error that names the image.
    """

    index: int
    label: str
    error: InputError | ResourceError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with or without classes.

    Attributes:
        name: The name for tables, for example "fashion-mnist" or "photos/val".
        classes: The class names in the order of the targets. Empty without classes.
        targets: The indices into ``classes``, int64 (n,), or ``None`` without classes.
        images: The n images: paths, encoded bytes, or a uint8 array (n, h, w) or (n, h, w, 3).
        labels: The n names of images for messages: a path, or the number in the published or bundled file.
        notices: What was guessed about the files, and which files were left out.
    """

    name: str
    classes: tuple[str, ...]
    targets: NDArray[np.int64] | None
    images: Sequence[Image] | Pixels
    labels: Sequence[str]
    notices: tuple[Reason, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def image(self, index: int) -> Image:
        """Return the image as it is stored. ``runtimes.images.preprocessing`` decodes it."""
        return self.images[index]

    def label(self, index: int) -> str:
        """Return the name of the image for messages."""
        return self.labels[index]

    def batches(
        self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None = None
    ) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]], None, None]:
        """Yield the indices and the prepared images of all images in order.

        Threads decode images ahead. They end with the last batch, or when the generator is closed. Images that are one
        array are prepared as whole batches if possible.

        Args:
            preprocessing: The preparation of the images.
            size: The largest number of images in a batch.
            unreadable: A list that receives the broken images. Their batches are smaller, or left out if they are
                empty. Without a list, a broken image raises an error.

        Yields:
            The indices, int64 (b,), and the images, float32 (b, c, h, w). The arrays belong to the caller.

        Raises:
            InputError: An image is broken. The message names the image.
            ResourceError: An image file is missing or unreadable.
            BackendUnavailableError: Pillow is needed but not installed.
            UsageError: ``size`` is below 1.
        """
        return _normalise_batches(self._batches(preprocessing, size, unreadable), preprocessing)

    def pixels(
        self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None = None
    ) -> Generator[tuple[NDArray[np.int64], Pixels], None, None]:
        """Yield the indices and the images as a network of raw pixels takes them, without normalisation.

        Args:
            preprocessing: As for ``batches``.
            size: As for ``batches``.
            unreadable: As for ``batches``.

        Yields:
            The indices, int64 (b,), and the images, uint8 (b, h, w, c). The arrays belong to the caller.

        Raises:
            RexportError: As for ``batches``.
        """
        return _copy_batches(self._batches(preprocessing, size, unreadable))

    def _batches(self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None) -> _Batches:
        """Return the batches of ``pixels``. The arrays may be read-only and share memory between channels."""
        if size < 1:
            raise UsageError(f"the batch size must be at least 1, not {size}", code="batch-below-one")
        if isinstance(self.images, np.ndarray) and _fit_together(self.images, preprocessing):
            return _prepare_batches(self.images, preprocessing, size)
        return self._read_batches(preprocessing, size, unreadable)

    def _read_batches(self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None) -> _Batches:
        with closing(prefetch.prefetch(self.images, size, partial(self._fit_image, preprocessing))) as batches:
            for results in batches:
                read = [result for result in results if not isinstance(result, Unreadable)]
                broken = [result for result in results if isinstance(result, Unreadable)]
                if unreadable is not None:
                    unreadable.extend(broken)
                elif broken:
                    raise broken[0].error
                if read:
                    yield np.array([index for index, _ in read], np.int64), np.stack([pixels for _, pixels in read])

    def _fit_image(self, preprocessing: Preprocessing, index: int, image: Image) -> tuple[int, Pixels] | Unreadable:
        try:
            return index, fit_image(image, preprocessing)
        except (InputError, ResourceError) as error:
            if error.path is None:
                error = type(error)(error.what, code=error.code, path=self.label(index), hint=error.hint)
            return Unreadable(index, self.label(index), error)


def _fit_together(images: Pixels, preprocessing: Preprocessing) -> bool:
    """Return whether batches can be prepared whole: images need no resizing, and their channels fit or are grey."""
    channels = images.shape[3] if images.ndim == 4 else 1
    height, width = images.shape[1:3]
    keeps_size = preprocessing.target_size(height, width) == (height, width)
    return keeps_size and (channels, preprocessing.channels) in ((1, 1), (1, 3), (3, 3))


def _prepare_batches(images: Pixels, preprocessing: Preprocessing, size: int) -> _Batches:
    """Prepare the images of a batch as the channels of one image, so that the cost arises once for each batch."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        count, height, width, *rest = batch.shape
        channels = rest[0] if rest else 1
        planes = batch.reshape(count, height, width, channels).transpose(1, 2, 0, 3).reshape(height, width, -1)
        neutral = (0.0,) * planes.shape[2], (1.0,) * planes.shape[2]
        blank = replace(preprocessing, mean=neutral[0], std=neutral[1], channel_order="RGB")
        pixels = fit_image(planes, blank).reshape(*preprocessing.size, count, channels).transpose(2, 0, 1, 3)
        shape = (count, *preprocessing.size, preprocessing.channels)
        yield np.arange(start, start + count), np.broadcast_to(np.ascontiguousarray(pixels), shape)


def _copy_batches(batches: _Batches) -> _Batches:
    """Copy the images of each batch into a new array."""
    with closing(batches):
        for indices, pixels in batches:
            yield indices, np.array(pixels, order="C")


def _normalise_batches(
    batches: _Batches, preprocessing: Preprocessing
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]], None, None]:
    with closing(batches):
        for indices, pixels in batches:
            yield indices, normalise(pixels, preprocessing)
