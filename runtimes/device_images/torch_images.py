"""Images as PyTorch tensors on a device: turned upright, resized, cropped and padded, with the same results as Pillow.

Resizing repeats the integer arithmetic of Pillow's ``Image.resize`` for 8-bit images: the weights of a filter are
rounded to 22 bits after the point, each pass is a sum of products in 32-bit integers, and the result of each pass is
rounded to 8 bits. So every pixel is the same, on any device, where the aspect ratio is kept. Where an image is
squashed, Pillow 13 may resize the columns before the rows, and pixels may differ by what is rounded between the passes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from runtimes.images.spec import Interpolation, Preprocessing

_BITS = 22
"""The number of bits after the point of Pillow's weights."""


def from_device(value: object) -> Tensor:
    """Return an object that supports DLPack as a tensor, without a copy."""
    return from_dlpack(value)


def to_device(pixels: NDArray[np.uint8], device: str) -> Tensor:
    """Return pixels on the device."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device)


def stream_of(device: str) -> int:
    """Return the handle of PyTorch's current stream on a CUDA device, and 0 for the CPU."""
    return int(torch.cuda.current_stream(device).cuda_stream) if device.startswith("cuda") else 0


def stack(images: Sequence[Tensor], batch: int | None) -> Tensor:
    """Return images as one C-ordered tensor (n, h, w, c). Zeros fill a fixed batch."""
    result = torch.stack(tuple(images))
    missing = 0 if batch is None else batch - len(images)
    return torch.cat([result, result.new_zeros((missing, *result.shape[1:]))]) if missing > 0 else result


_UPRIGHT: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}
"""For each EXIF orientation, whether the axes are exchanged, and the axes that are then reversed."""


def fit(pixels: Tensor, orientation: int, preprocessing: Preprocessing) -> Tensor:
    """Return a decoded image as the network takes it, as ``runtimes.images.preprocessing.fit_image``.

    Args:
        pixels: RGB, uint8 (h, w, 3).
        orientation: The EXIF orientation of the image.
        preprocessing: The preparation of the image, with antialiasing.

    Returns:
        A uint8 tensor (height, width, channels).
    """
    exchanged, reversed_axes = _UPRIGHT.get(orientation, (False, ()))
    pixels = pixels.transpose(0, 1) if exchanged else pixels
    pixels = pixels.flip(reversed_axes) if reversed_axes else pixels
    pixels = _to_grey(pixels) if preprocessing.channels == 1 else pixels
    target = preprocessing.target_size(pixels.shape[0], pixels.shape[1])
    pixels = _crop(resize(pixels, target, preprocessing.interpolation), preprocessing)
    pad = preprocessing.pad
    return torch.nn.functional.pad(pixels, (0, 0, pad, pad, pad, pad)) if pad else pixels


def _to_grey(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.to(torch.int32).unbind(2)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8)[:, :, None]


def _crop(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    windows = [preprocessing.crop_window(size, axis) for axis, size in enumerate(pixels.shape[:2])]
    (above, below, top), (before, after, left) = windows
    if above or below or before or after:
        pixels = torch.nn.functional.pad(pixels, (0, 0, before, after, above, below))
    return pixels[top : top + preprocessing.crop[0], left : left + preprocessing.crop[1]]


def resize(pixels: Tensor, target: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Return an image of another size, as Pillow's ``Image.resize``.

    Args:
        pixels: A uint8 tensor (h, w, c).
        target: The new (height, width).
        interpolation: The filter.
    """
    for axis in (1, 0):  # Pillow resizes the rows first
        if pixels.shape[axis] != target[axis]:
            pixels = _resize_axis(pixels, axis, target[axis], interpolation)
    return pixels


def _resize_axis(pixels: Tensor, axis: int, size: int, interpolation: Interpolation) -> Tensor:
    indices, weights = (
        torch.from_numpy(table).to(pixels.device) for table in _taps(pixels.shape[axis], size, interpolation)
    )
    if interpolation == "nearest":
        return pixels.index_select(axis, indices[0])
    shape = [1, 1, 1]
    shape[axis] = size
    values = pixels.to(torch.int32)
    total = torch.full((), 1 << (_BITS - 1), dtype=torch.int32, device=pixels.device)
    for tap, weight in zip(indices, weights, strict=True):
        total = total + values.index_select(axis, tap) * weight.reshape(shape)
    return (total >> _BITS).clamp(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def _taps(size: int, target: int, interpolation: Interpolation) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the source pixels of each target pixel and their weights, (taps, target) each."""
    scale = size / target
    if interpolation == "nearest":
        steps = np.full(target, scale)
        steps[0] = scale * 0.5
        nearest = np.cumsum(steps).astype(np.int64)  # added up like Pillow's, with the same errors of rounding
        return np.minimum(nearest, size - 1)[None], np.zeros((1, target), np.int32)
    kernel, reach = _FILTERS[interpolation]
    widening = max(scale, 1.0)
    support = reach * widening
    taps = 2 * math.ceil(support) + 1
    indices, weights = np.zeros((taps, target), np.int64), np.zeros((taps, target), np.int32)
    for number in range(target):
        centre = (number + 0.5) * scale
        first, end = max(0, int(centre - support + 0.5)), min(size, int(centre + support + 0.5))
        exact = [kernel((source - centre + 0.5) / widening) for source in range(first, end)]
        whole = sum(exact)
        for tap, weight in enumerate(exact):
            indices[tap, number] = first + tap
            weights[tap, number] = int(math.copysign(0.5, weight) + weight / whole * (1 << _BITS))
    return indices, weights


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _hamming(x: float) -> float:
    x = abs(x)
    if x == 0:
        return 1.0
    return 0.0 if x >= 1 else math.sin(math.pi * x) / (math.pi * x) * (0.54 + 0.46 * math.cos(math.pi * x))


def _bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0


def _sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


_FILTERS: dict[Any, tuple[Callable[[float], float], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
"""Pillow's filters, each with its reach in pixels."""
