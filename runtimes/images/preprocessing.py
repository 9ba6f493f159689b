"""Conversion of images to input arrays: decoding, resizing, cropping, normalising.

Decoding gives 8 bits per channel, as RGB or grey, depending on the network:

======================  ==================================================================================
EXIF orientation 1-8    applied, also for a ``PIL.Image.Image`` that has the tag
animations              the first frame; for a ``PIL.Image.Image``, its current frame
1-bit                   black is 0, white is 255
grey to RGB             the same value three times
RGB to grey             Pillow's luma: (19595 R + 38470 G + 7471 B + 32768) >> 16
palette                 the colours of the palette
CMYK, YCbCr, LAB, HSV   Pillow's conversion to RGB
alpha                   blended with white, so that dark drawings stay visible; the same for premultiplied
                        alpha, transparent palette entries and colour keys
JPEG, scaled decoding   1/2, 1/4 or 1/8 of the size, in the decoder, if ``Preprocessing.scaled_decoding`` is on
16-bit grey             value / 257, rounded, so that 65535 becomes 255; also 32-bit grey within 0..65535
16-bit colour           the high byte of each channel, as Pillow reads it
float grey              an error, because its range is not known
ICC profiles            ignored
======================  ==================================================================================

The content of a file determines its format, never its name; ``FORMATS`` lists the supported formats. The checksums of a
PNG are verified. A JPEG has no checksums, so damage that leaves it decodable is not detected. The limit ``MAX_PIXELS``
is checked before decoding.

Resizing and cropping follow torchvision's ``Resize`` and ``CenterCrop`` on Pillow images. Without antialiasing,
``runtimes.images.sampling`` resizes as torch and OpenCV.
Importing this module imports only NumPy. Pillow is needed to decode or resize; an array of the right size does not need
it.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtimes import files
from runtimes.errors import BackendUnavailableError, InputError, ResourceError, quote
from runtimes.images import sampling
from runtimes.images.contents import ImageContent as ImageContent
from runtimes.images.contents import is_content, read_content
from runtimes.images.spec import IMAGE_CHANNELS
from runtimes.images.spec import MAX_PIXELS as MAX_PIXELS
from runtimes.images.spec import Preprocessing as Preprocessing

if TYPE_CHECKING:
    import PIL.Image

Image: TypeAlias = "str | os.PathLike[str] | ImageContent | PIL.Image.Image | NDArray[Any]"
"""A path, an image file, a Pillow image, or a uint8 array (h, w), (h, w, 1), (h, w, 3) or, for RGBA, (h, w, 4).

An image file is its content as ``bytes``, ``bytearray`` or ``memoryview``, or a file opened in binary mode, such as
``io.BytesIO`` or the upload of a web framework. An open file is read from its beginning and is not closed.

For a network of other than 1 or 3 channels, an image is a uint8 array (h, w, channels)."""

Result = TypeVar("Result")

Pixels: TypeAlias = NDArray[np.uint8]
"""Decoded images: uint8 (h, w, channels), or (n, h, w, channels) for several."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
"""The supported formats of image files, by Pillow's names. Pillow before 11.3 has no AVIF."""

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in [
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
        *("avif", "jp2", "j2k", "jpc", "jpf", "jpx", "j2c"),
    ]
)
"""The suffixes of image files, in lower case, by which images are found in a folder. They determine nothing else."""

MAX_FILE_BYTES = 256 << 20
"""The largest size of an image file, which is read into memory as a whole."""


def prepare_images(images: Iterable[Image], preprocessing: Preprocessing, first: int = 0) -> NDArray[np.float32]:
    """Return the input of a network that takes floats, for several images.

    Args:
        images: The images.
        preprocessing: The preparation of the images.
        first: The number of the first image in messages.

    Returns:
        A fresh C-ordered float32 array (n, channels, height, width).

    Raises:
        InputError: An image is broken or does not fit. The message names its path, or its number from ``first`` on.
        ResourceError: A file is missing, unreadable, too large or not a regular file; or memory is lacking.
        BackendUnavailableError: Pillow is needed but not installed.
    """
    return normalise(pixels_of(images, preprocessing, first), preprocessing)


def pixels_of(images: Iterable[Image], preprocessing: Preprocessing, first: int = 0) -> Pixels:
    """Return the input of a network that takes raw pixels, for several images.

    Such a network applies channel order, scale, mean and standard deviation itself.

    Args:
        images: The images.
        preprocessing: The preparation of the images; channel order, scale, mean and std are not used.
        first: The number of the first image in messages.

    Returns:
        A fresh C-ordered uint8 array (n, height, width, channels).

    Raises:
        InputError: As for ``prepare_images``.
        ResourceError: As for ``prepare_images``.
        BackendUnavailableError: As for ``prepare_images``.
    """
    pixels = [fit_or_name(image, preprocessing, number) for number, image in enumerate(images, start=first)]
    return np.stack(pixels) if pixels else np.zeros((0, *preprocessing.size, preprocessing.channels), np.uint8)


def fit_or_name(image: Image, preprocessing: Preprocessing, number: int) -> Pixels:
    """Decode, resize, crop and pad an image, with its path in the error, or its number if it has no path.

    Args:
        image: The image.
        preprocessing: The preparation of the image; channel order, scale, mean and std are not used.
        number: The number of the image in messages.

    Returns:
        A uint8 array (height, width, channels). It may share memory with ``image`` if that is an array.

    Raises:
        InputError: As for ``prepare_images``.
        ResourceError: As for ``prepare_images``.
        BackendUnavailableError: As for ``prepare_images``.
    """
    try:
        return fit_image(image, preprocessing)
    except InputError as error:
        if error.path is not None:
            raise
        if isinstance(image, (str, os.PathLike)):
            raise InputError(error.what, code=error.code, path=os.fspath(image), hint=error.hint) from error
        raise InputError(f"image {number}: {error.what}", code=error.code, hint=error.hint) from error


def normalise(pixels: Pixels, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Normalise pixels: order the channels, divide by the scale, subtract the mean and divide by the deviation.

    Each step is computed in float32.

    Args:
        pixels: A uint8 array (n, h, w, channels), RGB or grey.
        preprocessing: The channel order, scale, means and standard deviations.

    Returns:
        A fresh C-ordered float32 array (n, channels, h, w), in the channel order of ``preprocessing``.
    """
    ordered = pixels[..., ::-1] if preprocessing.channel_order == "BGR" else pixels
    result = ordered.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    result /= np.float32(preprocessing.scale)
    result -= np.asarray(preprocessing.mean, np.float32)[:, None, None]
    result /= np.asarray(preprocessing.std, np.float32)[:, None, None]
    return result


def fit_image(image: Image, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode, resize, crop and pad an image.

    Args:
        image: The image.
        preprocessing: The preparation of the image; channel order, scale, mean and std are not used.
        max_pixels: As for ``decode``.

    Returns:
        A uint8 array (height, width, channels). It may share memory with ``image`` if that is an array.

    Raises:
        InputError: An image is broken or does not fit. The message names its path, if it has one.
        ResourceError: As for ``prepare_images``.
        BackendUnavailableError: As for ``prepare_images``.
    """
    pixels = None
    if preprocessing.scaled_decoding and (isinstance(image, (str, os.PathLike)) or is_content(image)):
        pixels = _name_path(image, lambda content: _fit_scaled(content, preprocessing, max_pixels))
    if pixels is None:
        pixels = _resize(decode(image, preprocessing.channels, max_pixels), preprocessing)
    pixels = _crop_centre(pixels, preprocessing)
    if preprocessing.pad:
        pixels = np.pad(pixels, ((preprocessing.pad,) * 2, (preprocessing.pad,) * 2, (0, 0)))
    return pixels


def decode(image: Image, channels: int = 3, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image by the rules of this module.

    Args:
        image: The image.
        channels: The number of channels of the result. With other than 1 or 3, the image must be an array.
        max_pixels: The number of pixels of an encoded image, at most ``MAX_PIXELS``. It is checked before decoding.

    Returns:
        A uint8 array (h, w, channels). It may share memory with ``image`` if that is an array.

    Raises:
        InputError: As for ``fit_image``.
        ResourceError: As for ``prepare_images``.
        BackendUnavailableError: Pillow is needed but not installed.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, channels)
    if channels not in IMAGE_CHANNELS:
        raise InputError(
            f"a network of {channels} input channels takes only arrays as images",
            code="image-must-be-array",
            hint=f"pass a uint8 array (h, w, {channels})",
        )
    if isinstance(image, (str, os.PathLike)) or is_content(image):
        return _name_path(image, lambda content: _in_channels(_from_content(content, max_pixels), channels))
    picture: Any = image
    if hasattr(picture, "getexif") and isinstance(picture, _pillow().Image):
        return _in_channels(_translate_errors(lambda: _from_pillow(picture)), channels)
    raise InputError(
        f"an image must be a path, bytes, an open file, a PIL image or a uint8 array, not {type(image).__name__}",
        code="image-kind-unknown",
        hint="pass normalised tensors to Runtime.infer",
    )


def _name_path(image: str | os.PathLike[str] | ImageContent, work: Callable[[bytes], Result]) -> Result:
    """Return ``work`` of the content of an image, with the path of the file in an error about it."""
    if not isinstance(image, (str, os.PathLike)):
        return work(read_content(image, MAX_FILE_BYTES))
    try:
        return work(read_file(image))
    except InputError as error:
        raise InputError(error.what, code=error.code, path=image, hint=error.hint) from error


def _from_array(array: NDArray[Any], channels: int) -> Pixels:
    allowed = (1, 3, 4) if channels in IMAGE_CHANNELS else (channels,)
    if array.dtype != np.uint8:
        raise InputError(
            f"the image is an array of dtype {array.dtype}; expected uint8 pixels from 0 to 255",
            code="image-array-type",
            hint="pass raw pixels here, or normalised tensors to Runtime.infer",
        )
    if array.ndim == 2 and 1 in allowed:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in allowed or not array.size:
        channels_first = array.ndim == 3 and array.shape[0] in allowed
        raise InputError(
            f"the image is an array of shape {array.shape}; expected (h, w, c) with c of "
            f"{', '.join(map(str, allowed))}",
            code="image-array-shape",
            hint="if the channels come first, pass array.transpose(1, 2, 0)" if channels_first else None,
        )
    pixels: Pixels = np.asarray(array)
    if channels not in IMAGE_CHANNELS:
        return pixels
    return _in_channels(_blend_with_white(pixels) if pixels.shape[2] == 4 else pixels, channels)


def _in_channels(pixels: Pixels, channels: int) -> Pixels:
    """Convert grey (h, w, 1) or RGB (h, w, 3) pixels to 1 or 3 channels."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    weighted = pixels.astype(np.uint32) @ np.array([[19595], [38470], [7471]], np.uint32)
    return ((weighted + 32768) >> 16).astype(np.uint8)


def _blend_with_white(pixels: Pixels) -> Pixels:
    """Blend pixels (h, w, c), whose last channel is alpha, with white: (h, w, c - 1), rounded to the nearest."""
    colours, alpha = pixels[:, :, :-1].astype(np.uint16), pixels[:, :, -1:].astype(np.uint16)
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of an image file.

    Raises:
        InputError: The path holds a NUL character.
        ResourceError: The file is missing, unreadable, too large or not a regular file.
    """
    try:
        return files.read_bounded(path, MAX_FILE_BYTES)
    except ValueError as error:  # a NUL character in the path
        raise InputError(f"not an image: {quote(error)}", code="image-path-invalid") from error


def _pillow() -> Any:
    """Import Pillow's module ``PIL.Image``."""
    try:
        import PIL.Image
    except ImportError as error:
        raise BackendUnavailableError(
            "decoding or resizing images needs Pillow", code="pillow-missing", hint="pip install 'rexport[images]'"
        ) from error
    return PIL.Image


def _translate_errors(work: Callable[[], Result]) -> Result:
    """Return ``work()``, and translate all errors of Pillow.

    On broken images, Pillow's readers raise many kinds of errors: OSError, SyntaxError, struct.error and, with Python's
    option -W error, warnings.
    """
    module = _pillow()
    try:
        return work()
    except (InputError, BackendUnavailableError):
        raise
    except MemoryError as error:
        raise ResourceError("there is not enough memory to decode the image", code="image-out-of-memory") from error
    except (module.DecompressionBombError, module.DecompressionBombWarning) as error:
        raise _too_many_pixels(MAX_PIXELS) from error
    except Exception as error:
        reason = quote(error) or type(error).__name__
        raise InputError(f"the image is broken: {reason}", code="image-broken") from error


def _too_many_pixels(limit: int) -> InputError:
    return InputError(
        f"the image has more than {limit:,} pixels", code="image-too-large", hint="scale the image down first"
    )


def _from_content(content: bytes, max_pixels: int) -> Pixels:
    if not content:
        raise InputError("the image file is empty", code="image-file-empty")
    return _translate_errors(lambda: _from_pillow(open_image(content, max_pixels)))


def open_image(content: bytes, max_pixels: int) -> PIL.Image.Image:
    """Read the header of an image and check its size, without decoding the pixels.

    Args:
        content: The content of the file.
        max_pixels: The number of pixels, at most.

    Raises:
        InputError: The content is no image, or the image is too large.
    """
    module = _pillow()
    try:
        image = module.open(io.BytesIO(content), formats=_readable_formats())
        if image.width * image.height > max_pixels:
            raise _too_many_pixels(max_pixels)
        if image.format == "PNG":
            module.open(io.BytesIO(content), formats=("PNG",)).verify()
    except module.UnidentifiedImageError as error:
        raise InputError(
            f"the file is not a readable image: its first bytes are {content[:8].hex(' ')}",
            code="image-format-unknown",
            hint=_other_kind(content) or f"the supported formats are {', '.join(_readable_formats())}",
        ) from error
    return image  # type: ignore[no-any-return]


def _other_kind(content: bytes) -> str | None:
    """Return what a file is that is no supported image, and what to do, or ``None`` if that is unknown."""
    if content.startswith(b"PK\x03\x04"):
        return "it is a zip archive: unzip it and use the folder"
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis"):
        return "it is a HEIC image: convert it, for example to JPEG"
    return None


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    """Return those of ``FORMATS`` that the installed Pillow has, without loading their readers."""
    has_avif = importlib.util.find_spec("PIL.AvifImagePlugin") is not None
    return FORMATS if has_avif else tuple(format for format in FORMATS if format != "AVIF")


ORIENTATIONS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
"""The transform for each EXIF orientation. Orientation 1 and values outside the standard need none."""

TURNED = (5, 6, 7, 8)
"""The EXIF orientations that exchange width and height."""

EXIF_ORIENTATION = 0x0112
"""The number of the EXIF tag for the orientation."""


def _from_pillow(image: PIL.Image.Image) -> Pixels:
    """Return upright pixels, grey (h, w, 1) or RGB (h, w, 3)."""
    if not image.width or not image.height:
        raise InputError(f"the image has {image.width} x {image.height} pixels", code="image-without-pixels")
    if image.width * image.height > MAX_PIXELS:
        raise _too_many_pixels(MAX_PIXELS)
    image.load()  # before the orientation is read: loading a TIFF applies the orientation and removes the tag
    transform = ORIENTATIONS.get(image.getexif().get(EXIF_ORIENTATION, 1))
    pixels = _to_8_bits(image)
    return np.ascontiguousarray(transform(pixels)) if transform else pixels


def _fit_scaled(content: bytes, preprocessing: Preprocessing, max_pixels: int) -> Pixels | None:
    """Decode a JPEG at a fraction of its size and resize it, or return ``None`` if it is to be decoded in full.

    The fraction is applied in the decoder's inverse cosine transform. The size after resizing is that of the whole
    image, whose last row and column of pixels may stand for fewer pixels than the others.

    Returns:
        Upright pixels in the resized size.
    """
    if not content:
        return None

    def fit() -> Pixels | None:
        image = open_image(content, max_pixels)
        if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB", "CMYK"):
            return None
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        width, height = image.size
        turned = orientation in TURNED
        target = preprocessing.target_size(width, height) if turned else preprocessing.target_size(height, width)
        box = target if turned else target[::-1]  # width and height, as the file has them
        scale = next((scale for scale in (8, 4, 2) if scale * box[0] <= width and scale * box[1] <= height), 1)
        if scale == 1 or image.draft(None, box) is None:
            return None
        pixels = _in_channels(_to_8_bits(image), preprocessing.channels)
        filter = _pillow().Resampling[preprocessing.interpolation.upper()]
        planes = pixels if pixels.shape[2] == 3 else pixels[:, :, 0]
        resized = _pillow().fromarray(planes).resize(box, filter, (0, 0, width / scale, height / scale))
        transform = ORIENTATIONS.get(orientation)
        upright = np.asarray(resized).reshape(box[1], box[0], preprocessing.channels)
        return np.ascontiguousarray(transform(upright)) if transform else upright

    return _translate_errors(fit)


COLOUR_MODES = ("P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pillow's modes that are converted to RGB."""


def _to_8_bits(image: PIL.Image.Image) -> Pixels:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scale_to_8_bits(np.asarray(image), image.info.get("transparency"))
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        return _blend_with_white(np.asarray(straight.convert("RGBA")))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode in COLOUR_MODES:
        return np.asarray(image.convert("RGB"))
    raise InputError(
        f"the image has the Pillow mode {image.mode!r}, whose range of values is not known",
        code="image-mode-unknown",
        hint="convert the image to 8 bits per channel",
    )


def _scale_to_8_bits(values: NDArray[Any], key: object) -> Pixels:
    """Convert 16-bit grey (h, w) to 8-bit grey (h, w, 1). Values equal to the colour ``key`` are transparent."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise InputError(
            f"the image has grey values from {lowest} to {highest}; expected 0 to 65535",
            code="image-greys-out-of-range",
        )
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)[:, :, None]
    if isinstance(key, int):
        grey[values == key] = 255
    return grey


def _resize(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Resize to ``preprocessing.target_size``. Pixels that have this size already stay as they are."""
    height, width = pixels.shape[:2]
    target = preprocessing.target_size(height, width)
    if target == (height, width):
        return pixels
    if target[0] * target[1] > MAX_PIXELS:
        raise InputError(
            f"resizing the image from {height} x {width} to {target[0]} x {target[1]} exceeds the limit of "
            f"{MAX_PIXELS:,} pixels",
            code="image-grows-too-large",
            hint="crop the image first",
        )
    if not preprocessing.antialias:
        return sampling.resize(pixels, target, preprocessing.interpolation)
    module = _pillow()
    box, filter = target[::-1], module.Resampling[preprocessing.interpolation.upper()]
    if pixels.shape[2] == 3:
        image = module.fromarray(np.ascontiguousarray(pixels))
        return np.asarray(image.resize(box, filter))
    planes = [module.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(pixels, 2, 0)]
    return np.stack([np.asarray(plane.resize(box, filter)) for plane in planes], axis=2)


def _crop_centre(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Crop the middle of the image, as torchvision's ``CenterCrop``. A smaller image is first centred on black."""
    windows = [preprocessing.crop_window(size, axis) for axis, size in enumerate(pixels.shape[:2])]
    if any(before or after for before, after, _ in windows):
        pixels = np.pad(pixels, (*((before, after) for before, after, _ in windows), (0, 0)))
    (_, _, top), (_, _, left) = windows
    return pixels[top : top + preprocessing.crop[0], left : left + preprocessing.crop[1]]
