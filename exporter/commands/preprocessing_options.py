"""The options that say how images are prepared, and the choice that they come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exporter.commands.command import PREPROCESSING, NameChoice, stack_options
from exporter.commands.values import COUNT_OR_ZERO, Numbers, Resize, Size
from runtimes.images.spec import CHANNEL_ORDERS, CROP_OFFSETS, INTERPOLATIONS, SCALES

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.preprocessing.options import PreprocessingOptions

    Command = TypeVar("Command", bound=Callable[..., Any])


def preprocessing_options(default: str) -> Callable[[Command], Command]:
    """The options that say how images are prepared, with the default of all of them in words."""
    return stack_options(
        PREPROCESSING.option(
            "--transform",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            show_default="none",
            help="JSON file with the preprocessing: a config of timm, a preprocessor_config.json of Hugging Face, a "
            "preset of torchvision, or a manifest. The options below replace its values.",
        ),
        PREPROCESSING.option(
            "--resize",
            type=Resize(),
            metavar="N|HxW",
            show_default=default,
            help="Resize the shorter side to N pixels, or squash the image to HxW pixels.",
        ),
        PREPROCESSING.option(
            "--interpolation",
            type=NameChoice(INTERPOLATIONS),
            show_default=default,
            help="Filter of resizing.",
        ),
        PREPROCESSING.option(
            "--antialias/--no-antialias",
            default=None,
            show_default=default,
            help="Average all pixels when shrinking, as Pillow does; or sample few, as OpenCV does.",
        ),
        PREPROCESSING.option(
            "--scaled-decoding/--full-decoding",
            default=None,
            show_default=default,
            help="Decode large JPEG files at 1/2, 1/4 or 1/8 of their size, which is faster and changes pixels a "
            "little; an export compares the predictions on --data.",
        ),
        PREPROCESSING.option(
            "--crop",
            type=Size(),
            metavar="N|HxW",
            show_default=default,
            help="Size of the centre that is cut out, in pixels.",
        ),
        PREPROCESSING.option(
            "--crop-offset",
            type=NameChoice(CROP_OFFSETS),
            show_default=default,
            help="Rounding of the position of the centre: round as torchvision, floor as Hugging Face.",
        ),
        PREPROCESSING.option(
            "--pad",
            type=COUNT_OR_ZERO,
            metavar="N",
            show_default=default,
            help="Number of black pixels added on each side.",
        ),
        PREPROCESSING.option(
            "--channels-order",
            "channel_order",
            type=NameChoice(CHANNEL_ORDERS),
            show_default=default,
            help="Order of the colours in the input; BGR for networks trained with OpenCV.",
        ),
        PREPROCESSING.option(
            "--scale",
            type=NameChoice(tuple(map(str, SCALES))),
            show_default=default,
            help="Divisor of pixels: 255 gives 0 to 1, and 1 keeps 0 to 255.",
        ),
        PREPROCESSING.option(
            "--mean",
            type=Numbers(),
            metavar="R,G,B",
            show_default=default,
            help="Mean of the training images for each channel, after the division by --scale, in the order of the "
            "channels.",
        ),
        PREPROCESSING.option(
            "--std",
            type=Numbers(),
            metavar="R,G,B",
            show_default=default,
            help="Standard deviation of the training images for each channel, on the same scale.",
        ),
    )


def preprocessing_of(options: dict[str, Any], size: tuple[int, int] | None = None) -> PreprocessingOptions:
    """The choice that the values of ``preprocessing_options`` come to; ``size`` of the input, if it is chosen too.

    Raises:
        RexportError: the file cannot be read, or is of no known kind.
    """
    from exporter.preprocessing.options import PreprocessingOptions

    same = (
        "resize",
        "crop",
        "pad",
        "interpolation",
        "antialias",
        "channel_order",
        "crop_offset",
        "mean",
        "std",
        "scaled_decoding",
    )
    scale = None if options["scale"] is None else next(value for value in SCALES if str(value) == options["scale"])
    given = PreprocessingOptions(**{name: options[name] for name in same}, scale=scale)
    return given.with_file(options["transform"], size)
