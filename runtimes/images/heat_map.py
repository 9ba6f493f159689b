"""A map of a network, placed on the image that the network saw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtimes.images.spec import Preprocessing


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
