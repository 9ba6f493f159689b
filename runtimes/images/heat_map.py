"""A map of a network, placed on the image that the network saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtimes.images.spec import Preprocessing


@dataclass(frozen=True)
class MapPlace:
    """The place of a map on its image: (top, left, bottom, right), in shares of the image's height and width.

    Attributes:
        area: What the cells of the map cover. With padding or a small image, it is larger than the image.
        seen: The part that the network saw. Without a crop, it covers the image.
    """

    area: tuple[float, float, float, float]
    seen: tuple[float, float, float, float]

    @classmethod
    def find(cls, preprocessing: Preprocessing, size: tuple[int, int]) -> MapPlace:
        """Return the place of a map.

        Args:
            preprocessing: The preparation of the image for the network.
            size: The (height, width) of the decoded image in pixels.
        """
        spans = [cls._spans(preprocessing, axis, side) for axis, side in enumerate(preprocessing.target_size(*size))]
        (top, bottom, seen_top, seen_bottom), (left, right, seen_left, seen_right) = spans
        return cls((top, left, bottom, right), (seen_top, seen_left, seen_bottom, seen_right))

    @staticmethod
    def _spans(preprocessing: Preprocessing, axis: int, resized: int) -> tuple[float, float, float, float]:
        """Return the first and last place of the map, and of what was seen, along one axis."""
        before, _, first = preprocessing.crop_window(resized, axis)
        start, end, pad = first - before, first - before + preprocessing.crop[axis], preprocessing.pad
        return (start - pad) / resized, (end + pad) / resized, start / resized, end / resized


def place_on_image(
    heat: NDArray[np.float32], preprocessing: Preprocessing, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return a map in the size of an image, by the way back through padding, crop and resizing.

    Each cell of the map stands for an equal part of the network's input, and its value for the middle of this part.
    Values between are interpolated linearly, and beyond the outer middles they are constant. A cell depends on more
    pixels than its own part, so a map shows regions and no outlines.

    Args:
        heat: The map, float32 (rows, columns).
        preprocessing: The preparation of the image for the network.
        size: The (height, width) of the decoded image in pixels.

    Returns:
        A fresh float32 array (height, width). Pixels that the crop cut away are NaN: the network did not see them.
    """
    resized = preprocessing.target_size(*size)
    rows, columns = (
        _weights(heat.shape[axis], preprocessing, axis, resized[axis], length) for axis, length in enumerate(size)
    )
    result: NDArray[np.float32] = (rows @ heat.astype(np.float64) @ columns.T).astype(np.float32)
    return result


def _weights(cells: int, preprocessing: Preprocessing, axis: int, resized: int, length: int) -> NDArray[np.float64]:
    """Return the weight of each cell for each pixel of the image along one axis: (length, cells).

    The rows of pixels outside the crop are NaN.
    """
    before, _, start = preprocessing.crop_window(resized, axis)
    crop = preprocessing.crop[axis]
    middles = (np.arange(length) + 0.5) * resized / length + before - start  # in pixels of the crop
    cell = (middles + preprocessing.pad) * cells / (crop + 2 * preprocessing.pad) - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(np.clip(cell, 0, cells - 1)[:, None] - np.arange(cells)))
    weights[(middles < 0) | (middles >= crop)] = np.nan
    return weights
