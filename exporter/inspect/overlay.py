"""Pictures of heat maps: the image, the image under the heat map, and the class with its probability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtimes import files
from runtimes.errors import UsageError, quote
from runtimes.escaping import MAX_QUOTED, printable
from runtimes.images.preprocessing import Pixels

if TYPE_CHECKING:
    import PIL.Image

SMALLEST, LARGEST = 224, 640
"""The range of the longer side of an image in a picture, in pixels."""

CAPTION, MARGIN, TEXT = 28, 8, 16
"""The height of the caption, the margin around images, and the size of letters, in pixels."""

COLOURS = (
    (0.0, (30, 60, 160)),
    (0.35, (40, 160, 190)),
    (0.6, (120, 200, 90)),
    (0.8, (250, 200, 40)),
    (1.0, (215, 30, 30)),
)
"""The colours of a heat map from nothing to its largest value: blue, cyan, green, yellow, red."""

STRENGTH = 0.6
"""The share of the colour where the map is largest. Where it is 0 or negative, the grey image stays."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""The names of files that a picture can be written to."""


def picture_paths(target: str, images: Sequence[Path], force: bool) -> list[Path]:
    """Return the file of each picture: ``target`` for one image, or a file in the folder ``target`` for each.

    In a folder, a picture has the name of its image; equal names get a number.

    Args:
        target: A file, or a folder if it exists, ends in a slash, or there are several images.
        images: The image files.
        force: Whether files may exist.

    Raises:
        UsageError: A file exists and ``force`` is off, the suffix is unknown, or there are several images for a file.
        ResourceError: The folder of the file is missing, or something that is no file has its name.
    """
    folder = Path(target)
    single = len(images) == 1 and not target.endswith("/") and not folder.is_dir()
    if single or folder.suffix.lower() in SUFFIXES:
        if not single:
            raise UsageError(
                f"{quote(target)} is one file, and there are {len(images)} images",
                code="cam-needs-folder",
                hint="name a folder",
            )
        if folder.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"the picture {quote(target)} needs a suffix of an image",
                code="cam-suffix-unknown",
                hint=f"end it in {' or '.join(SUFFIXES)}, or in a slash for a folder",
            )
        files.require_folder(folder.parent)
        paths = [folder]
    else:
        paths = [folder / name for name in _distinct([f"{image.stem or 'image'}.png" for image in images])]
    for path in paths:
        files.check_replaceable(path)
        if path.exists() and not force:
            raise files.target_exists(path, "--cam")
    return paths


def _distinct(names: Sequence[str]) -> list[str]:
    result: list[str] = []
    for name in names:
        stem, other, number = name.removesuffix(".png"), name, 1
        while other in result:
            number += 1
            other = f"{stem}-{number}.png"
        result.append(other)
    return result


def draw(pixels: Pixels, heat: NDArray[np.float32], caption: str) -> PIL.Image.Image:
    """Return the picture: the image on the left, and on the right in grey under the colours of its heat map.

    The colours go from 0 to the largest value of the map. Parts that the network did not see are dark.

    Args:
        pixels: The decoded image, uint8 (h, w, 1) or (h, w, 3).
        heat: The map of its class, float32 (h, w), NaN where the network saw nothing.
        caption: The line below.
    """
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    height, width = heat.shape
    longer = max(height, width)
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    size = max(1, round(width * scale)), max(1, round(height * scale))
    colours = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    result = PIL.Image.new("RGB", (2 * size[0] + 3 * MARGIN, size[1] + 2 * MARGIN + CAPTION), "white")
    smooth = PIL.Image.Resampling.NEAREST if scale > 2 else PIL.Image.Resampling.BICUBIC
    for column, image in enumerate((colours, _blend(colours, heat))):
        resized = PIL.Image.fromarray(image).resize(size, smooth)
        result.paste(resized, (MARGIN + column * (size[0] + MARGIN), MARGIN))
    draw = PIL.ImageDraw.Draw(result)
    font = PIL.ImageFont.load_default(TEXT)
    room, caption = result.width - 2 * MARGIN, printable(caption, MAX_QUOTED)
    while len(caption) > 1 and draw.textlength(caption, font) > room:
        caption = caption[:-2] + "…"
    draw.text((MARGIN, size[1] + 2 * MARGIN), caption, "black", font)
    return result


def _blend(pixels: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Return the image in grey under the colours of the map, uint8 (h, w, 3)."""
    grey = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    seen = np.isfinite(heat)
    largest = float(np.nanmax(heat)) if seen.any() else 0.0
    share = np.clip(np.nan_to_num(heat) / largest, 0, 1) if largest > 0 else np.zeros(heat.shape)
    stops = [stop for stop, _ in COLOURS]
    colour = np.stack([np.interp(share, stops, [rgb[channel] for _, rgb in COLOURS]) for channel in range(3)], axis=2)
    alpha = (STRENGTH * np.sqrt(share))[:, :, None]
    blended = np.where(seen[:, :, None], (1 - alpha) * grey + alpha * colour, grey / 3)
    return np.rint(blended).astype(np.uint8)


def write_picture(path: Path, picture: PIL.Image.Image, replace: bool = True) -> None:
    """Write ``picture`` to the file ``path``, whose suffix says the format.

    Args:
        path: The file.
        picture: The picture.
        replace: Whether an existing file is replaced.

    Raises:
        UsageError: The file exists, and ``replace`` is off.
        ResourceError: The file cannot be written.
    """
    with files.write_atomically(path, replace) as temporary:
        picture.save(
            temporary, format={".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower(), "PNG")
        )
