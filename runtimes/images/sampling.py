"""Resizing without antialiasing: each output pixel is computed from its 2 or 4 nearest source pixels on each axis.

Pixel centres lie at half integers, and coordinates outside the image take the pixel at its edge, as in
``torch.nn.functional.interpolate(antialias=False, align_corners=False)`` and OpenCV's ``resize``. Weights and sums are
float64, and results are rounded to the nearest integer, at a tie to the even one. torch computes float images in
float32 and uint8 images in fixed point, as OpenCV does. Their results differ by 1 where a value is near a tie.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtimes.images.spec import Interpolation

CUBIC = -0.75
"""The coefficient of cubic convolution (Keys 1981) in torch and OpenCV. Pillow's is -0.5."""


def resize(pixels: NDArray[np.uint8], target: tuple[int, int], interpolation: Interpolation) -> NDArray[np.uint8]:
    """Return an image of another size.

    Args:
        pixels: A uint8 array (h, w, channels).
        target: The new (height, width) in pixels.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        A fresh uint8 array (height, width, channels).
    """
    weigh = _cubic if interpolation == "bicubic" else _linear
    columns, horizontal = weigh(pixels.shape[1], target[1])  # each (taps, width)
    rows, vertical = weigh(pixels.shape[0], target[0])
    floats = pixels.astype(np.float64)
    across = sum(floats[:, place] * weight[:, None] for place, weight in zip(columns, horizontal, strict=True))
    down = sum(across[place] * weight[:, None, None] for place, weight in zip(rows, vertical, strict=True))
    result: NDArray[np.uint8] = np.rint(down).clip(0, 255).astype(np.uint8)
    return result


def _linear(size: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the source pixels and their weights on one axis, each (2, target)."""
    centre = _centres(size, target).clip(0)
    first = centre.astype(np.int64)
    share = centre - first
    return np.stack([first, first + 1]).clip(0, size - 1), np.stack([1 - share, share])


def _cubic(size: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the source pixels and their weights on one axis, each (4, target)."""
    centre = _centres(size, target)
    first = np.floor(centre)
    share = centre - first
    weights = np.stack([_far(share + 1), _near(share), _near(1 - share), _far(2 - share)])
    return (first.astype(np.int64) + np.arange(-1, 3)[:, None]).clip(0, size - 1), weights


def _centres(size: int, target: int) -> NDArray[np.float64]:
    """Return the source coordinate of each output pixel: float64 (target,)."""
    return np.asarray((np.arange(target) + 0.5) * (size / target) - 0.5, np.float64)


def _near(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of pixels up to 1 pixel away."""
    return np.asarray(((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1, np.float64)


def _far(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of pixels 1 to 2 pixels away."""
    return np.asarray(((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC, np.float64)
