"""``Preprocessing``: how images are resized, cropped and normalised for a network. NumPy is not imported here."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Literal, TypeAlias, get_args

from runtimes.codec import OMIT_DEFAULT
from runtimes.errors import UsageError
from runtimes.frozen_dataclass import dataclass

MAX_PIXELS = 80_000_000
"""The largest number of pixels of an image, before and after resizing. Pillow warns from 89,478,486 pixels on."""

IMAGE_CHANNELS = (1, 3)
"""The numbers of channels that a decoded image may have: grey or coloured."""

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
"""The filter of resizing, by Pillow's names."""

INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
"""All values of ``Interpolation``."""

SAMPLED: tuple[Interpolation, ...] = ("bilinear", "bicubic")
"""The filters that there are without antialiasing too."""

ChannelOrder: TypeAlias = Literal["RGB", "BGR"]
"""The order of the channels of the network's input."""

CHANNEL_ORDERS: tuple[ChannelOrder, ...] = get_args(ChannelOrder)
"""All values of ``ChannelOrder``."""

CropOffset: TypeAlias = Literal["round", "floor"]
"""The rounding of the offset of a centre crop, where half a pixel is left."""

CROP_OFFSETS: tuple[CropOffset, ...] = get_args(CropOffset)
"""All values of ``CropOffset``."""

Scale: TypeAlias = Literal[1, 255]
"""The divisor of pixel values."""

SCALES: tuple[Scale, ...] = get_args(Scale)
"""All values of ``Scale``."""


@dataclass(frozen=True)
class Preprocessing:
    """The preparation of images for a network.

    The steps are: resize, crop, pad, channel order, scale, mean, standard deviation. In a manifest, the fields after
    ``std`` are left out if they have their default, so that earlier versions of rexport read it.

    Attributes:
        resize: The length of the shorter side in pixels after resizing. A (height, width) squashes the image to this
            size, whatever its aspect ratio. ``None`` keeps the size.
        crop: The (height, width) in pixels that is cut from the middle. A smaller image is centred on black.
        pad: The number of black pixels added on each side.
        mean: The means, subtracted in float32 after division by ``scale``. One number for each channel, in
            ``channel_order``: three for colour, one for grey.
        std: The standard deviations, one for each channel in ``channel_order``. The difference is divided by them in
            float32.
        interpolation: The filter of resizing.
        antialias: Whether a filter covers all source pixels when it shrinks, as Pillow's do. Without antialiasing it
            samples 2 or 4 pixels on each axis, as OpenCV and ``torch.nn.functional.interpolate``. ``bilinear`` and
            ``bicubic`` only.
        channel_order: The order of the channels that the network takes. Images are RGB, arrays too; for ``BGR`` the
            channels are swapped.
        scale: The divisor of pixels before the mean is subtracted: 255, or 1 for a network that takes 0 to 255.
        crop_offset: The rounding of the offset of the crop: ``round`` to the nearest, at a tie to the even number, as
            torchvision; ``floor`` as transformers of Hugging Face.
        scaled_decoding: Whether a JPEG file that is at least twice as large as its resized size is decoded at 1/2, 1/4
            or 1/8 of its size, whichever is the smallest that is no smaller than the resized size. This is several
            times as fast for photographs of several megapixels, and changes pixels by a few levels. Other images are
            decoded in full.
        assumed: The names of the fields that nobody gave: rexport assumed them. Ignored in comparisons.

    Raises:
        UsageError: A size, a mean or a standard deviation is out of range, or two fields contradict each other.

    Example:
        The preprocessing of torchvision's ImageNet networks:

            Preprocessing(resize=256, crop=(224, 224), pad=0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int]
    pad: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = field(default="bilinear", metadata=OMIT_DEFAULT)
    antialias: bool = field(default=True, metadata=OMIT_DEFAULT)
    channel_order: ChannelOrder = field(default="RGB", metadata=OMIT_DEFAULT)
    scale: Scale = field(default=255, metadata=OMIT_DEFAULT)
    crop_offset: CropOffset = field(default="round", metadata=OMIT_DEFAULT)
    scaled_decoding: bool = field(default=False, metadata=OMIT_DEFAULT)
    assumed: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT, compare=False)

    def __post_init__(self) -> None:
        self._check_words()
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        if any(side is not None and side < 1 for side in sides):
            raise UsageError(f"resize must be at least 1 pixel, not {self.resize}", code="resize-invalid")
        if min(self.crop) < 1 or self.pad < 0:
            raise UsageError(
                f"crop must be at least 1 x 1 pixels and pad at least 0, not {self.crop} and {self.pad}",
                code="crop-or-pad-invalid",
            )
        if self.size[0] * self.size[1] > MAX_PIXELS:
            raise UsageError(
                f"the input size {self.size[0]} x {self.size[1]} exceeds the limit of {MAX_PIXELS:,} pixels",
                code="input-too-large",
            )
        if not self.mean or len(self.mean) != len(self.std):
            raise UsageError(
                f"mean and std must have one number for each channel, not {len(self.mean)} and {len(self.std)} numbers",
                code="mean-std-lengths-differ",
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise UsageError(
                f"mean must be finite, and std finite and above 0, not {self.mean} and {self.std}",
                code="mean-or-std-invalid",
            )
        if self.channel_order == "BGR" and self.channels != 3:
            raise UsageError(
                f"channel order BGR needs 3 channels, but mean has {self.channels}", code="channel-order-needs-colour"
            )
        if not self.antialias and self.interpolation not in SAMPLED:
            raise UsageError(
                f"resizing without antialiasing needs {' or '.join(SAMPLED)} interpolation, not {self.interpolation}",
                code="antialias-needs-filter",
            )

        if self.scaled_decoding and (self.resize is None or not self.antialias or self.channels not in IMAGE_CHANNELS):
            raise UsageError(
                "scaled decoding needs images of 1 or 3 channels that are resized with antialiasing",
                code="scaled-decoding-unsupported",
            )

    def _check_words(self) -> None:
        """Raise ``UsageError`` if a field has a value outside its list."""
        choices: tuple[tuple[str, object, tuple[object, ...]], ...] = (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("channel_order", self.channel_order, CHANNEL_ORDERS),
            ("scale", self.scale, SCALES),
            ("crop_offset", self.crop_offset, CROP_OFFSETS),
        )
        for name, value, known in choices:
            if value not in known:
                raise UsageError(
                    f"{name} must be one of {', '.join(map(str, known))}, not {value!r}", code="preprocessing-value"
                )

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) of the network's input in pixels."""
        return self.crop[0] + 2 * self.pad, self.crop[1] + 2 * self.pad

    @property
    def channels(self) -> int:
        """The number of channels: 3 for colour, 1 for grey. With any other number, images must be arrays."""
        return len(self.mean)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of an image after resizing.

        With a shorter side, the longer side is rounded down, as by torchvision's ``Resize``.

        Args:
            height: The height of the image in pixels, at least 1.
            width: The width of the image in pixels, at least 1.
        """
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        longer = int(self.resize * max(height, width) / min(height, width))
        return (self.resize, longer) if height <= width else (longer, self.resize)

    def crop_window(self, size: int, axis: int) -> tuple[int, int, int]:
        """Return the black pixels before and after a resized image, and the first pixel of the crop, along one axis.

        A smaller image is first centred on black. The first pixel counts in the widened image.

        Args:
            size: The height or width of the resized image in pixels.
            axis: 0 for the height, 1 for the width.
        """
        crop, rounding = self.crop[axis], math.floor if self.crop_offset == "floor" else round
        missing = max(0, crop - size)
        return missing // 2, (missing + 1) // 2, rounding((size + missing - crop) / 2.0)
