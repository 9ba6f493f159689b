"""Seeded noise in place of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import UsageError
from runtimes.protocol import Array


def noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return standard normal noise, float32 of the given shape. One seed gives the same numbers on all machines.

    Args:
        shape: The shape.
        seed: The seed, at least 0.

    Raises:
        UsageError: The seed is negative.
    """
    return _generator(seed).standard_normal(shape).astype(np.float32)


def noise_pixels(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Return uniformly distributed pixels, uint8 of the given shape. One seed gives the same numbers on all machines.

    Args:
        shape: The shape.
        seed: The seed, at least 0.

    Raises:
        UsageError: The seed is negative.
    """
    return _generator(seed).integers(0, 256, shape, np.uint8)


def noise_inputs(shape: tuple[int, int, int], count: int, seed: int, raw: bool) -> Array:
    """Return noise as an artifact takes it: normal float32 (count, c, h, w), or uniform uint8 (count, h, w, c).

    Args:
        shape: The (channels, height, width) of the input.
        count: The number of images.
        seed: The seed.
        raw: Whether the artifact takes raw pixels.
    """
    channels, height, width = shape
    if not raw:
        return noise((count, channels, height, width), seed)
    return noise_pixels((count, height, width, channels), seed)


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise UsageError(f"the seed must be at least 0, not {seed}", code="seed-negative")
    return np.random.default_rng(seed)
