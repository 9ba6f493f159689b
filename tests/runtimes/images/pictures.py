"""Images and preprocessing that the tests of this folder share."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from runtimes.images.preprocessing import Preprocessing

RGBA = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)


def plain(
    height: int = 2, width: int = 3, *, channels: int = 3, resize: int | None = None, pad: int = 0
) -> Preprocessing:
    return Preprocessing(resize, (height, width), pad, (0.0,) * channels, (1.0,) * channels)


def content_of(image: PIL.Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    """Random colours: every mistake in geometry shows."""
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
