"""Encoded images made of an artifact's test vectors, for servers that prepare images themselves."""

from __future__ import annotations

import io

import numpy as np

from runtimes.artifacts.artifact import Vectors
from runtimes.artifacts.manifest import Manifest
from runtimes.images.preprocessing import Pixels
from runtimes.images.spec import Preprocessing


def png_images(vectors: Vectors, manifest: Manifest) -> tuple[bytes, ...]:
    """Return one PNG for each test vector, in the size of the network's input.

    The normalisation of a float vector is undone and rounded to 8 bits, so an image is near its vector, not equal.

    Args:
        vectors: The test vectors.
        manifest: The manifest. Its preprocessing must be known, and have 1 or 3 channels.
    """
    from PIL import Image

    view = manifest.preprocessing
    assert view is not None
    content = []
    for pixels in _pixels(vectors, manifest, view):
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
        content.append(buffer.getvalue())
    return tuple(content)


def _pixels(vectors: Vectors, manifest: Manifest, view: Preprocessing) -> Pixels:
    """Return RGB or grey pixels, uint8 (n, h, w, c)."""
    if vectors.inputs.dtype == np.uint8:  # raw pixels: the graph normalises them
        return vectors.inputs
    rows = vectors.inputs
    if manifest.inputs[0].shape[1:] == (view.channels, *view.size):
        rows = rows.transpose(0, 2, 3, 1)
    values = (rows * np.array(view.std, np.float32) + np.array(view.mean, np.float32)) * view.scale
    pixels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels[..., ::-1] if view.channel_order == "BGR" else pixels
