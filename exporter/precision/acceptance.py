"""The one rule for a loss of top-1 accuracy, and how small a loss some images can resolve.

A network in a lower precision predicts a few images differently than in fp32: some are lost and some are won. The loss
that was measured on some images is therefore an estimate, with a 95 % interval from the pairs of predictions.

- A *default* limit guards against a broken file. It rejects only a loss whose whole interval lies above the limit, so
  that few images reject no file by chance.
- A limit that the user *asks for* is compared with the measured loss itself, whatever its interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from exporter.proportions import Interval

ROUNDING = 1e-9
"""The largest excess over a limit that counts as rounding of the measured loss."""


@dataclass(frozen=True)
class DropLimit:
    """The largest loss of top-1 accuracy against fp32.

    Attributes:
        drop: The limit, 0 to 1; infinity for no limit.
        asked: Whether the user asked for this limit.
    """

    drop: float
    asked: bool = False

    def accepts(self, drop: float, interval: Interval | None = None) -> bool:
        """Return whether a measured loss is accepted.

        Args:
            drop: The measured loss, -1 to 1.
            interval: The (low, high) of its 95 % interval, or ``None`` if there is none. Only a default limit uses it.
        """
        least = drop if self.asked or interval is None else interval[0]
        return least <= self.drop + ROUNDING


def resolution(interval: Interval) -> float:
    """Return how far the true loss may lie from the measured one: half the width of the 95 % interval."""
    return (interval[1] - interval[0]) / 2


def images_to_resolve(limit: float, interval: Interval, images: int) -> int | None:
    """Return the number of images that would resolve a limit, rounded up to two digits, or ``None`` if none would.

    The number follows from the measured interval, whose width falls with the square root of the number of images.

    Args:
        limit: The limit, 0 to 1.
        interval: The measured 95 % interval.
        images: The number of images of this interval.
    """
    if limit <= 0:
        return None
    needed = images * (resolution(interval) / limit) ** 2
    step = int(10 ** max(0, math.floor(math.log10(needed)) - 1))
    return step * math.ceil(needed / step)


def describe_resolution(images: int, interval: Interval) -> str:
    """Return what some images resolve as text, for example ``1,000 images resolve ±0.43 pp``.

    Args:
        images: The number of images.
        interval: The 95 % interval that was measured on them.
    """
    return f"{images:,} images resolve ±{100 * resolution(interval):.2f} pp"
