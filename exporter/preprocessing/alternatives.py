"""Other preprocessings that a network may have been trained with, to find the cause of a wrong accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from exporter.weights.sources import IMAGENET_PREPROCESSING
from runtimes.images.spec import SAMPLED, ChannelOrder, Preprocessing


@dataclass(frozen=True)
class Alternative:
    """Another preprocessing.

    Attributes:
        words: What is different, for a sentence that begins with "with".
        options: The options of the command line that choose it.
        preprocessing: The preprocessing.
    """

    words: str
    options: str
    preprocessing: Preprocessing


def alternatives(base: Preprocessing) -> Iterator[Alternative]:
    """Yield the preprocessings that differ from ``base`` in one thing that is often mistaken.

    Args:
        base: The preprocessing of the export. A grey network has no other channel order.
    """
    yield from _sizes(base)
    if base.channels == 3:
        order: ChannelOrder = "RGB" if base.channel_order == "BGR" else "BGR"
        swapped = replace(base, channel_order=order, mean=base.mean[::-1], std=base.std[::-1])
        words, option = f"channel order {order}", f"--channels-order {order}"
        yield Alternative(words, f"{option} {_statistics(swapped)}", swapped)
        if swapped.mean != base.mean or swapped.std != base.std:
            unmoved = replace(base, channel_order=order)
            yield Alternative(f"{words} but the same order of mean", f"{option} {_statistics(unmoved)}", unmoved)
    yield from _filters(base)
    yield from _normalisations(base)


def _sizes(base: Preprocessing) -> Iterator[Alternative]:
    height, width = base.crop
    shorter, margin = min(base.crop), round(min(base.crop) * 256 / 224)
    if base.resize != base.crop:
        words = f"the whole image squashed to {height} x {width}"
        yield Alternative(words, f"--resize {height}x{width}", replace(base, resize=base.crop))
    for side in (shorter, margin):
        if base.resize != side:
            words = f"the shorter side resized to {side}"
            yield Alternative(words, f"--resize {side} --crop {height}x{width}", replace(base, resize=side))


def _filters(base: Preprocessing) -> Iterator[Alternative]:
    if base.resize is None:
        return
    for filter in SAMPLED:
        if filter != base.interpolation:
            yield Alternative(
                f"{filter} interpolation", f"--interpolation {filter}", replace(base, interpolation=filter)
            )
    if base.interpolation in SAMPLED:
        other = replace(base, antialias=not base.antialias)
        words, flag = ("antialiasing", "--antialias") if other.antialias else ("no antialiasing", "--no-antialias")
        yield Alternative(words, flag, other)


def _normalisations(base: Preprocessing) -> Iterator[Alternative]:
    channels = base.channels
    moments = {
        "no mean and deviation": ((0.0,) * channels, (1.0,) * channels),
        "mean and deviation 0.5": ((0.5,) * channels, (0.5,) * channels),
    }
    if channels == 3:
        moments["ImageNet's mean and deviation"] = IMAGENET_PREPROCESSING.mean, IMAGENET_PREPROCESSING.std
    for words, (mean, std) in moments.items():
        if (base.scale, base.mean, base.std) != (255, mean, std):
            other = replace(base, scale=255, mean=mean, std=std)
            yield Alternative(words, f"--scale 255 {_statistics(other)}", other)
    unscaled = replace(base, scale=1, mean=(0.0,) * channels, std=(1.0,) * channels)
    if unscaled != base:
        yield Alternative("pixels 0 to 255", f"--scale 1 {_statistics(unscaled)}", unscaled)


def _statistics(preprocessing: Preprocessing) -> str:
    """Return the options that choose the means and standard deviations."""
    mean, std = (",".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    return f"--mean {mean} --std {std}"
