"""The preprocessing that the user chose, and what rexport assumes for the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from exporter.models.custom import AnyNetwork, CustomNetwork
from exporter.preprocessing.transform_file import read_transform
from exporter.weights.sources import IMAGENET_PREPROCESSING, scale_preprocessing
from runtimes.errors import ModelMismatchError, UsageError
from runtimes.images.spec import ChannelOrder, CropOffset, Interpolation, Preprocessing, Scale

ASSUMABLE = tuple(field.name for field in fields(Preprocessing) if field.name not in ("assumed", "scaled_decoding"))
"""The fields of a preprocessing that may be assumed, in their order. Decoding is scaled only where it was asked for."""

WHOLE_IMAGE = 64
"""The largest height or width in pixels at which a network of unknown origin is assumed to see the whole image, as
networks for CIFAR-10 do. Above, it is assumed to see the middle, as networks for ImageNet do."""


@dataclass(frozen=True)
class PreprocessingOptions:
    """The chosen fields of a preprocessing. ``None`` means that the user did not choose.

    Attributes:
        resize: As for ``Preprocessing``.
        crop: As for ``Preprocessing``.
        pad: As for ``Preprocessing``.
        interpolation: As for ``Preprocessing``.
        antialias: As for ``Preprocessing``.
        channel_order: As for ``Preprocessing``.
        scale: As for ``Preprocessing``.
        crop_offset: As for ``Preprocessing``.
        mean: As for ``Preprocessing``. ``mean`` and ``std`` must be given together.
        std: As for ``Preprocessing``.
        scaled_decoding: As for ``Preprocessing``.
        base: A whole preprocessing, whose fields the others replace.
        source: The origin of ``base`` in words, for example ``timm's pretrained config cfg.json``.
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    pad: int | None = None
    interpolation: Interpolation | None = None
    antialias: bool | None = None
    channel_order: ChannelOrder | None = None
    scale: Scale | None = None
    crop_offset: CropOffset | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scaled_decoding: bool | None = None
    base: Preprocessing | None = None
    source: str | None = None

    def with_file(self, path: Path | None, size: tuple[int, int] | None) -> PreprocessingOptions:
        """Return these options with the preprocessing in a file as their base.

        Args:
            path: The file, as for ``read_transform``, or ``None`` to keep the options as they are.
            size: The (height, width) of the network's input in pixels that the user chose, or ``None``.

        Raises:
            RexportError: As for ``read_transform``.
        """
        if path is None:
            return self
        transform = read_transform(path, size or self.input_size())
        return replace(self, base=transform.preprocessing, source=transform.source)

    def given(self) -> dict[str, Any]:
        """Return the chosen fields by their names, without those of ``base``."""
        return {name: value for name in (*ASSUMABLE, "scaled_decoding") if (value := getattr(self, name)) is not None}

    def input_size(self) -> tuple[int, int] | None:
        """Return the (height, width) of the network's input that follows from the choice, or ``None``."""
        pad = self.pad if self.pad is not None else 0 if self.base is None else self.base.pad
        crop = self.crop
        if crop is None and isinstance(self.resize, tuple):
            crop = self.resize
        if crop is None and self.base is not None:
            crop = self.base.crop
        return None if crop is None else (crop[0] + 2 * pad, crop[1] + 2 * pad)

    def resized_side(self) -> int | None:
        """Return the height and width of square images after resizing and padding, or ``None`` if a crop follows."""
        if not isinstance(self.resize, int) or self.input_size() is not None:
            return None
        return self.resize + 2 * (self.pad or 0)

    def apply(self, base: Preprocessing, size: tuple[int, int]) -> Preprocessing:
        """Return ``base`` with the chosen fields in place of its own.

        The means and standard deviations of ``base`` belong to its colours. With another channel order or scale they
        change their order or their scale.

        Args:
            base: The preprocessing to change.
            size: The (height, width) of the network's input in pixels.

        Raises:
            UsageError: Fields contradict each other.
        """
        chosen = self.given()
        known = {*chosen, "crop"} if isinstance(self.resize, tuple) else {*chosen}
        if "crop" not in chosen and known & {"crop", "pad"}:
            pad = chosen.get("pad", base.pad)
            if 2 * pad >= min(size):
                raise UsageError(
                    f"a pad of {pad} pixels on each side leaves nothing of the input of {size[0]} x {size[1]} pixels",
                    code="pad-exceeds-input",
                    hint=f"use --pad {(min(size) - 1) // 2} or less",
                )
            chosen["crop"] = (size[0] - 2 * pad, size[1] - 2 * pad)
        if "mean" not in chosen:
            step = 1 if chosen.get("channel_order", base.channel_order) == base.channel_order else -1
            factor = base.scale / chosen.get("scale", base.scale)
            chosen["mean"] = tuple(factor * value for value in base.mean[::step])
            chosen["std"] = tuple(factor * value for value in base.std[::step])
        assumed = tuple(name for name in base.assumed if name not in known)
        return replace(base, **chosen, assumed=assumed)


NOTHING_CHOSEN = PreprocessingOptions()
"""The options of a user who chose nothing."""


def assume_preprocessing(size: tuple[int, int], whole_image: bool) -> Preprocessing:
    """Return the preprocessing that is assumed where nobody gives one: ImageNet's, scaled to the input size.

    For an input that is not square, images are squashed to its aspect ratio. All fields are marked as assumed.

    Args:
        size: The (height, width) of the network's input in pixels.
        whole_image: Whether the network sees the whole image and not only its middle.
    """
    assumed = scale_preprocessing(IMAGENET_PREPROCESSING, size)
    whole = size[0] if size[0] == size[1] else size
    return replace(assumed, resize=whole if whole_image else assumed.resize, assumed=ASSUMABLE)


def choose_preprocessing(
    options: PreprocessingOptions, known: Preprocessing | None, network: AnyNetwork
) -> Preprocessing | None:
    """Return the preprocessing of a network: that of the user, else of its weights, else an assumed one.

    Without means and standard deviations from the user, networks of other than 3 channels have none.

    Args:
        options: The choice of the user.
        known: The preprocessing of the weights, or ``None`` if unknown.
        network: The network.

    Raises:
        UsageError: Options contradict each other, or mean and standard deviation are needed.
        ModelMismatchError: The preprocessing has another size or number of channels than the network.
    """
    check_statistics(options, known, network.in_channels)
    base = options.base or known
    if base is None and network.in_channels != 3 and options.mean is None:
        if options.given():
            raise UsageError(
                f"preprocessing for {network.in_channels} input channels needs --mean and --std",
                code="preprocessing-needs-statistics",
                hint=f"for pixels of 0 to 1: --mean {_numbers((0.0,) * network.in_channels)} --std "
                f"{_numbers((1.0,) * network.in_channels)}",
            )
        return None
    if base is None:
        whole = min(network.size) <= WHOLE_IMAGE if isinstance(network, CustomNetwork) else network.stem == "cifar"
        base = assume_preprocessing(network.size, whole)
        if options.mean is not None and options.std is not None:
            base = replace(base, mean=options.mean, std=options.std)
    chosen = options.apply(base, network.size)
    gives, takes = (chosen.channels, *chosen.size), (network.in_channels, *network.size)
    if gives != takes:
        raise ModelMismatchError(
            f"the preprocessing gives {_in_words(gives)}, but the network takes {_in_words(takes)}",
            code="preprocessing-shape",
            hint=f"--crop {takes[1]}x{takes[2]} or --size {gives[1]}x{gives[2]} makes them equal"
            if gives[0] == takes[0]
            else None,
        )
    return chosen


def check_statistics(options: PreprocessingOptions, known: Preprocessing | None, channels: int | None = None) -> None:
    """Check the means and standard deviations of the user.

    Args:
        options: The choice of the user.
        known: The preprocessing of the weights, or ``None`` if unknown.
        channels: The number of channels of the network, or ``None`` if unknown.

    Raises:
        UsageError: One of them is missing or out of range, has another number of values than the network has channels,
            or may belong to either scale of pixels.
    """
    if (options.mean is None) != (options.std is None):
        raise UsageError("--mean and --std go together", code="statistics-incomplete")
    statistics: Mapping[str, tuple[float, ...] | None] = {"--mean": options.mean, "--std": options.std}
    for name, values in statistics.items():
        if values is not None and channels is not None and len(values) != channels:
            raise UsageError(
                f"{name} has {len(values)} values, but the network has {channels} input channels",
                code="statistics-channel-count",
            )
        if values is not None and not all(map(math.isfinite, values)):
            raise UsageError(f"{name} must be finite, not {_numbers(values)}", code="statistics-not-finite")
    if options.std is not None and not all(value > 0 for value in options.std):
        raise UsageError(f"--std must be above 0, not {_numbers(options.std)}", code="std-not-positive")
    base = options.base or known
    divides = options.scale is None and (base is None or base.scale != 1)
    if options.mean is not None and max(options.mean) > 1 and divides:
        raise UsageError(
            f"--mean {_numbers(options.mean)} is above 1: it may be for pixels of 0 to 255, or for pixels divided by "
            "255",
            code="mean-scale-unclear",
            hint="--scale 1 keeps pixels of 0 to 255, --scale 255 divides them",
        )


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))


def _in_words(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{channels} channel{'s' if channels != 1 else ''} of {height} x {width} pixels"
