"""Images to the arrays that a network takes: decoding, fitting, normalising. One rule for each kind of image.

Decoding gives 8 bits a channel, as red, green and blue or as grey, whichever the network was made for:

=====================  ==================================================================================
EXIF orientation 1-8   applied, so that up is up; also where a ``PIL.Image.Image`` carries it
animations             the first frame; of a ``PIL.Image.Image`` the frame that it stands at
1-bit                  black 0, white 255
grey for a colour net  the same value three times
colour for a grey net  Pillow's luma: (19595 R + 38470 G + 7471 B + 32768) >> 16
palette                its colours
CMYK, YCbCr, LAB, HSV  Pillow's conversion to RGB
alpha                  laid over white: what a page shows, where a cut-out drawing in dark lines stays visible;
                       premultiplied alpha, transparent palette entries and colour keys alike
16-bit grey            value / 257, rounded, so that 65535 becomes 255; 32-bit grey likewise, if within 0..65535
16-bit colour          the high byte of each channel, which is what Pillow keeps
float grey             refused: its range is not known
ICC profiles           ignored: values are taken as they stand
=====================  ==================================================================================

A file's format is told by its content, never by its name, and is one of ``FORMATS``. A PNG's checksums are checked;
a JPEG has none, so that damage which leaves it decodable goes unnoticed. ``MAX_PIXELS`` holds before anything is
decoded.

Fitting follows torchvision's ``Resize`` and ``CenterCrop`` on Pillow images. NumPy alone is imported here; Pillow is
needed to decode or resize, and an array of the right size needs neither.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtimes import files
from runtimes.errors import BackendUnavailableError, InputError, ResourceError, UsageError, quote

if TYPE_CHECKING:
    import PIL.Image

Image: TypeAlias = "str | os.PathLike[str] | bytes | PIL.Image.Image | NDArray[Any]"
"""A path, a file's content, a Pillow image, or a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) as RGBA."""

Pixels: TypeAlias = NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

MAX_PIXELS = 80_000_000
"""Of an image, as it is and as it is resized. Below the number at which Pillow begins to warn."""

MAX_FILE_BYTES = 256 << 20
"""Of an image file: it is read whole."""


@dataclass(frozen=True)
class Preprocessing:
    """What a network was trained to see. The steps are taken in the order of the fields, the last two in float32.

    Attributes:
        resize: the shorter side becomes this many pixels (bilinear, antialiased); ``None`` leaves the size.
        crop: (height, width) cut from the middle; a smaller image is centred on black.
        pad: black pixels added on every side.
        mean: subtracted after division by 255; one number a channel: three for RGB, one for grey.
        std: divided by, likewise.

    Raises:
        UsageError: a size, a mean or a standard deviation that no image can have.
    """

    resize: int | None
    crop: tuple[int, int]
    pad: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize < 1:
            raise UsageError(f"resize must be at least 1 pixel, not {self.resize}", code="resize-invalid")
        if min(self.crop) < 1 or self.pad < 0:
            raise UsageError(
                f"crop must be at least 1 x 1 pixels and pad at least 0, not {self.crop} and {self.pad}",
                code="crop-or-pad-invalid",
            )
        if self.size[0] * self.size[1] > MAX_PIXELS:
            raise UsageError(
                f"an input of {self.size[0]} x {self.size[1]} pixels is more than {MAX_PIXELS:,} pixels",
                code="input-too-large",
            )
        if not self.mean or len(self.mean) != len(self.std):
            raise UsageError(
                f"mean and std need one number a channel each, not {len(self.mean)} and {len(self.std)}",
                code="mean-std-lengths-differ",
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise UsageError(
                f"mean must be finite and std above 0, not {self.mean} and {self.std}", code="mean-or-std-invalid"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that the network sees."""
        return self.crop[0] + 2 * self.pad, self.crop[1] + 2 * self.pad

    @property
    def channels(self) -> int:
        """3 is RGB, 1 is grey; with any other number images are arrays (h, w, channels) only."""
        return len(self.mean)


def prepare_images(images: Iterable[Image], preprocessing: Preprocessing, first: int = 0) -> NDArray[np.float32]:
    """A float network's input for the images: float32 (n, channels, height, width), C-ordered and the caller's.

    Raises:
        InputError: an image is broken or does not fit. It is named by its path, or by its number counted from
            ``first``.
        ResourceError: a file is missing, unreadable, too large or not a regular file; or memory is lacking.
        BackendUnavailableError: Pillow is needed and missing.
    """
    return normalise(pixels_of(images, preprocessing, first), preprocessing)


def pixels_of(images: Iterable[Image], preprocessing: Preprocessing, first: int = 0) -> Pixels:
    """The input of a network that takes raw pixels: uint8 (n, height, width, channels), C-ordered and the caller's.

    Mean and standard deviation are left to that network.

    Raises:
        InputError, ResourceError, BackendUnavailableError: as ``prepare_images``.
    """
    pixels = [fit_or_name(image, preprocessing, number) for number, image in enumerate(images, start=first)]
    return np.stack(pixels) if pixels else np.zeros((0, *preprocessing.size, preprocessing.channels), np.uint8)


def fit_or_name(image: Image, preprocessing: Preprocessing, number: int) -> Pixels:
    """As ``fit_image``; the error for an image that has no path names it by its number.

    Raises:
        InputError, ResourceError, BackendUnavailableError: as ``prepare_images``.
    """
    try:
        return fit_image(image, preprocessing)
    except InputError as error:
        if error.path is not None:
            raise
        raise InputError(f"image {number}: {error.what}", code=error.code, hint=error.hint) from error


def normalise(pixels: Pixels, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """(n, h, w, c) uint8 to (n, c, h, w) float32, C-ordered: / 255, - mean, / std, each step rounded to float32."""
    result = pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    result /= np.float32(255)
    result -= np.asarray(preprocessing.mean, np.float32)[:, None, None]
    result /= np.asarray(preprocessing.std, np.float32)[:, None, None]
    return result


def fit_image(image: Image, preprocessing: Preprocessing) -> Pixels:
    """The image decoded, resized, cropped and padded: uint8 (height, width, channels). It may share an array's memory.

    Raises:
        InputError, ResourceError, BackendUnavailableError: as ``prepare_images``.
    """
    pixels = decode(image, preprocessing.channels)
    if preprocessing.resize is not None:
        pixels = _resize(pixels, preprocessing.resize)
    pixels = _crop_centre(pixels, preprocessing.crop)
    if preprocessing.pad:
        pixels = np.pad(pixels, ((preprocessing.pad,) * 2, (preprocessing.pad,) * 2, (0, 0)))
    return pixels


def decode(image: Image, channels: int = 3) -> Pixels:
    """The image's pixels by the rules above: uint8 (h, w, channels). They may share the memory of an array passed in.

    Raises:
        InputError, ResourceError, BackendUnavailableError: as ``prepare_images``.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, channels)
    if channels not in (1, 3):
        raise InputError(
            f"a network of {channels} input channels takes arrays alone",
            code="image-must-be-array",
            hint=f"pass uint8 (h, w, {channels})",
        )
    if isinstance(image, (str, os.PathLike)):
        try:
            return _in_channels(_from_content(_content(image)), channels)
        except InputError as error:
            raise InputError(error.what, code=error.code, path=image, hint=error.hint) from error
    if isinstance(image, bytes):
        return _in_channels(_from_content(image), channels)
    if hasattr(image, "getexif") and isinstance(image, _pillow().Image):
        return _in_channels(_translate_errors(lambda: _from_pillow(image)), channels)
    raise InputError(
        f"an image must be a path, bytes, a PIL image or a uint8 array, not {type(image).__name__}",
        code="image-kind-unknown",
        hint="tensors that are normalised already go to Runtime.infer",
    )


def _from_array(array: NDArray[Any], channels: int) -> Pixels:
    known = (1, 3, 4) if channels in (1, 3) else (channels,)
    if array.dtype != np.uint8:
        raise InputError(
            f"an array of {array.dtype}; pixels are uint8, 0 to 255",
            code="image-array-type",
            hint="pass such pixels, or give prepared tensors to Runtime.infer",
        )
    if array.ndim == 2 and 1 in known:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in known or not array.size:
        turned = array.ndim == 3 and array.shape[0] in known
        raise InputError(
            f"an array of shape {array.shape}; expected (h, w, c) with c of {', '.join(map(str, known))}",
            code="image-array-shape",
            hint="channels come last: pass array.transpose(1, 2, 0)" if turned else None,
        )
    pixels: Pixels = np.asarray(array)
    if channels not in (1, 3):
        return pixels
    return _in_channels(_over_white(pixels) if pixels.shape[2] == 4 else pixels, channels)


def _in_channels(pixels: Pixels, channels: int) -> Pixels:
    """Grey (h, w, 1) or RGB (h, w, 3) as the one or the other."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    weighted = pixels.astype(np.uint32) @ np.array([[19595], [38470], [7471]], np.uint32)
    return ((weighted + 32768) >> 16).astype(np.uint8)


def _over_white(pixels: Pixels) -> Pixels:
    """Colours (h, w, c) whose last channel is alpha, laid over white: (h, w, c - 1), rounded to the nearest."""
    colours, alpha = pixels[:, :, :-1].astype(np.uint16), pixels[:, :, -1:].astype(np.uint16)
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _content(path: str | os.PathLike[str]) -> bytes:
    try:
        return files.read_bounded(path, MAX_FILE_BYTES)
    except ValueError as error:  # a NUL character in the path
        raise InputError(f"no path: {quote(error)}", code="image-path-invalid") from error


def _pillow() -> Any:
    """Pillow's ``PIL.Image`` module."""
    try:
        import PIL.Image
    except ImportError as error:
        raise BackendUnavailableError(
            "decoding or resizing images needs Pillow", code="pillow-missing", hint="pip install 'rexport[images]'"
        ) from error
    return PIL.Image


def _translate_errors(work: Callable[[], Pixels]) -> Pixels:
    """What ``work`` gives; whatever Pillow raises on a broken image becomes one of rexport's own errors.

    Pillow's readers raise what their parsers stumble on, among it OSError, SyntaxError, struct.error and, under
    Python's -W error, warnings. Hence the wide net.
    """
    module = _pillow()
    try:
        return work()
    except (InputError, BackendUnavailableError):
        raise
    except MemoryError as error:
        raise ResourceError("not enough memory to decode an image", code="image-out-of-memory") from error
    except (module.DecompressionBombError, module.DecompressionBombWarning) as error:
        raise _too_many_pixels() from error
    except Exception as error:
        raise InputError(f"a broken image: {quote(error) or type(error).__name__}", code="image-broken") from error


def _too_many_pixels() -> InputError:
    return InputError(f"more than {MAX_PIXELS:,} pixels", code="image-too-large", hint="scale it down first")


def _from_content(content: bytes) -> Pixels:
    if not content:
        raise InputError("an empty file, no image", code="image-file-empty")
    return _translate_errors(lambda: _from_pillow(_open_image(content)))


def _open_image(content: bytes) -> PIL.Image.Image:
    """The image with its header read and its size judged, not decoded yet."""
    module = _pillow()
    try:
        image = module.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise _too_many_pixels()
        if image.format == "PNG":
            module.open(io.BytesIO(content), formats=("PNG",)).verify()
    except module.UnidentifiedImageError as error:
        raise InputError(
            f"not readable as an image: it begins with {content[:8].hex(' ')}",
            code="image-format-unknown",
            hint=f"one of {', '.join(FORMATS)}",
        ) from error
    return image  # type: ignore[no-any-return]


ORIENTATIONS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
"""What brings an image of this EXIF orientation upright. 1, and whatever is not in the standard, needs nothing."""

EXIF_ORIENTATION = 0x0112


def _from_pillow(image: PIL.Image.Image) -> Pixels:
    """Upright pixels, grey (h, w, 1) or RGB (h, w, 3)."""
    if not image.width or not image.height:
        raise InputError(f"an image of {image.width} x {image.height} pixels", code="image-without-pixels")
    if image.width * image.height > MAX_PIXELS:
        raise _too_many_pixels()
    image.load()  # before the orientation is read: loading a TIFF applies it and takes the tag away
    upright = ORIENTATIONS.get(image.getexif().get(EXIF_ORIENTATION, 1))
    pixels = _eight_bits(image)
    return np.ascontiguousarray(upright(pixels)) if upright else pixels


COLOUR_MODES = ("P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def _eight_bits(image: PIL.Image.Image) -> Pixels:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scale_to_8_bits(np.asarray(image), image.info.get("transparency"))
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        return _over_white(np.asarray(straight.convert("RGBA")))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode in COLOUR_MODES:
        return np.asarray(image.convert("RGB"))
    raise InputError(
        f"an image of Pillow's mode {image.mode!r}, whose range is not known",
        code="image-mode-unknown",
        hint="convert it to 8 bits a channel",
    )


def _scale_to_8_bits(values: NDArray[Any], key: object) -> Pixels:
    """16-bit greys (h, w) as 8-bit ones (h, w, 1); those that equal the colour ``key`` are transparent."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise InputError(
            f"grey values from {lowest} to {highest}; 16 bits hold 0 to 65535", code="image-greys-out-of-range"
        )
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)[:, :, None]
    if isinstance(key, int):
        grey[values == key] = 255
    return grey


def _resize(pixels: Pixels, shorter: int) -> Pixels:
    """The shorter side as given, the longer one in proportion and rounded down, as torchvision's ``Resize``."""
    height, width = pixels.shape[:2]
    longer = int(shorter * max(height, width) / min(height, width))
    target = (shorter, longer) if height <= width else (longer, shorter)
    if target == (height, width):
        return pixels
    if target[0] * target[1] > MAX_PIXELS:
        raise InputError(
            f"{height} x {width} pixels would grow to {target[0]} x {target[1]}",
            code="image-grows-too-large",
            hint="crop it first",
        )
    module = _pillow()
    box = target[1], target[0]
    if pixels.shape[2] == 3:
        image = module.fromarray(np.ascontiguousarray(pixels))
        return np.asarray(image.resize(box, module.Resampling.BILINEAR))
    planes = [module.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(pixels, 2, 0)]
    return np.stack([np.asarray(plane.resize(box, module.Resampling.BILINEAR)) for plane in planes], axis=2)


def _crop_centre(pixels: Pixels, crop: tuple[int, int]) -> Pixels:
    """The middle of the image, or the image in the middle of black, along each side as torchvision's ``CenterCrop``."""
    lacking = [max(0, wanted - size) for wanted, size in zip(crop, pixels.shape, strict=False)]
    if any(lacking):
        sides = [(missing // 2, (missing + 1) // 2) for missing in lacking]
        pixels = np.pad(pixels, (*sides, (0, 0)))
    top, left = (round((size - wanted) / 2.0) for wanted, size in zip(crop, pixels.shape, strict=False))
    return pixels[top : top + crop[0], left : left + crop[1]]
