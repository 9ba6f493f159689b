"""What a network was trained to see: how its images are fitted and normalised. NumPy itself is not imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runtimes.errors import UsageError

MAX_PIXELS = 80_000_000
"""Of an image, as it is and as it is resized. Below the number at which Pillow begins to warn."""


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
