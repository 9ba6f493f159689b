"""``Preprocessing``: how images are resized, cropped and normalised for a network. NumPy is not imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runtimes.errors import UsageError

MAX_PIXELS = 80_000_000
"""The largest number of pixels of an image, before and after resizing. Pillow warns from 89,478,486 pixels on."""


@dataclass(frozen=True)
class Preprocessing:
    """The preparation of images for a network. The steps are applied in the order of the attributes.

    Attributes:
        resize: The length of the shorter side in pixels after resizing (bilinear, antialiased). ``None`` keeps the
            size.
        crop: The (height, width) in pixels that is cut from the middle. A smaller image is centred on black.
        pad: The number of black pixels added on each side.
        mean: The means, subtracted in float32 after division by 255. One number for each channel: three for RGB, one
            for grey.
        std: The standard deviations, one for each channel. The difference is divided by them in float32.

    Raises:
        UsageError: A size, a mean or a standard deviation is out of range.

    Example:
        The preprocessing of torchvision's ImageNet networks:

            Preprocessing(resize=256, crop=(224, 224), pad=0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
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

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) of the network's input in pixels."""
        return self.crop[0] + 2 * self.pad, self.crop[1] + 2 * self.pad

    @property
    def channels(self) -> int:
        """The number of channels: 3 for RGB, 1 for grey. With any other number, images must be arrays."""
        return len(self.mean)
