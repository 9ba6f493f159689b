"""The options of ``rexport`` that several of its commands share, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exporter.commands.backend_option import backend_option
from exporter.commands.terminal import PRECISION_NAMES, debug_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.models.variants import Variant
    from exporter.network import ExportRequest

    Command = TypeVar("Command", bound=Callable[..., Any])


class Size(click.ParamType):  # type: ignore[type-arg]
    """``N`` or ``HxW`` in pixels."""

    name = "N|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isdecimal() for part in parts):
            self.fail(f"{value!r} is neither a number of pixels nor HEIGHTxWIDTH, as 224 or 192x256", param, ctx)
        return int(parts[0]), int(parts[-1])


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """One number a channel, separated by commas."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers, as 0.485,0.456,0.406", param, ctx)


class BatchSize(click.ParamType):  # type: ignore[type-arg]
    """``dynamic`` or a fixed number of images."""

    name = "dynamic|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "dynamic":
            return None
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is neither 'dynamic' nor a number of images from 1", param, ctx)
        return int(value)


def stack_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """The options as one decorator; help lists them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def variant_options(command: Command) -> Command:
    """The options that change a variant's row."""
    return stack_options(
        click.option("--num-classes", type=click.IntRange(1), help="Outputs of the classifier."),
        click.option("--in-channels", type=click.IntRange(1), help="Channels of the input."),
        click.option("--size", type=Size(), help="Height and width of the input in pixels."),
        click.option(
            "--stride", type=click.Choice(["v1", "v1.5"]), help="Where bottlenecks stride: first 1x1, or the 3x3."
        ),
        click.option(
            "--shortcut", type=click.Choice(["A", "B", "C"]), help="Padding, projection where needed, or always."
        ),
    )(command)


def network_options(command: Command) -> Command:
    """The options that say what network is exported, and on what it is checked."""
    return stack_options(
        click.option(
            "--weights",
            default="random",
            show_default=True,
            metavar="random|bundled|imagenet|FILE",
            help="Random is untrained; FILE is a .pt .pth .th .ckpt or .safetensors state dict.",
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Of random weights and noise."),
        variant_options,
        click.option("--batch", type=BatchSize(), default="dynamic", show_default=True, help="Images in one call."),
        click.option(
            "--labels", type=click.Path(path_type=Path, dir_okay=False), help="Text file with one label a line."
        ),
        click.option("--mean", type=Numbers(), help="Of the pixels, on a scale of 0 to 1."),
        click.option("--std", type=Numbers(), help="Of the pixels, on a scale of 0 to 1."),
        click.option("--data", metavar="NAME|DIR", help="Labelled images for the checks; see rbench run --help."),
        click.option(
            "--input",
            type=click.Choice(["float", "raw"]),
            default="float",
            show_default=True,
            help="Raw takes uint8 pixels (n, h, w, channels), and normalises them in the graph.",
        ),
    )(command)


def export_options(command: Command) -> Command:
    """What every export of a variant takes."""
    return stack_options(
        click.argument("variant"),
        network_options,
        click.option("-o", "--out", default="./", help="File, or folder with a slash at its end.  [default: ./]"),
        click.option("--force", is_flag=True, help="Replace the file if it is there."),
        debug_option,
    )(command)


def customise_variant(variant: str, options: dict[str, Any]) -> Variant:
    """The variant with what ``variant_options`` change.

    Raises:
        UsageError: there is no such variant, or it does not take the change.
    """
    from exporter.models import variants

    return variants.customise(
        variants.variant(variant),
        classes=options["num_classes"],
        in_channels=options["in_channels"],
        size=options["size"],
        stride=options["stride"],
        shortcut=options["shortcut"],
    )


def request_of(variant: str, options: dict[str, Any]) -> ExportRequest:
    """The request that the values of ``export_options`` come to.

    Raises:
        UsageError: as ``customise_variant``.
    """
    from exporter.network import ExportRequest

    same = ("out", "weights", "seed", "batch", "labels", "mean", "std", "data", "force")
    chosen = {name: options[name] for name in same}
    return ExportRequest(customise_variant(variant, options), raw=options["input"] == "raw", **chosen)


def precision_option(command: Command) -> Command:
    """In what the graph computes."""
    return click.option(
        "--precision",
        type=click.Choice(PRECISION_NAMES),
        default="fp32",
        show_default=True,
        help="Of the graph; input and output stay as they are. tf32 is fp32 that a GPU may round.",
    )(command)


def gate_option(command: Command) -> Command:
    """How many images a precision is judged on."""
    return click.option(
        "--gate-images",
        type=click.IntRange(1),
        default=1000,
        show_default=True,
        metavar="N",
        help="Compared with fp32 at most, below fp32.",
    )(command)


def calibration_options(command: Command) -> Command:
    """What int8 is calibrated on."""
    return stack_options(
        click.option(
            "--calibration",
            metavar="NAME|DIR",
            help="Training images for int8.  [default: the bundled ones where they fit; noise if untrained]",
        ),
        click.option(
            "--calibration-images",
            type=click.IntRange(1),
            default=300,
            show_default=True,
            metavar="N",
            help="How many.",
        ),
    )(command)


def typing_options(command: Command) -> Command:
    """The options that say how a graph is typed."""
    return stack_options(
        precision_option,
        calibration_options,
        click.option(
            "--target",
            type=click.Choice(["cpu", "tensorrt"]),
            default="cpu",
            show_default=True,
            help="Whom int8 is for: TensorRT takes signed integers alone.",
        ),
        gate_option,
    )(command)


TYPING = ("precision", "calibration", "calibration_images", "target", "gate_images")
"""What ``typing_options`` call their values, which are the fields of ``exporter.precision.spec.PrecisionSpec``."""


def backend_options(command: Command) -> Command:
    """The options that choose what opens an artifact."""
    return stack_options(
        backend_option("backend", help="By default what it was tuned for, or the first that runs it."),
        click.option(
            "--device",
            type=click.Choice(["cpu", "cuda"]),
            help="By default what it was tuned for, or cpu where it runs there.",
        ),
        click.option("--threads", type=click.IntRange(1), help="By default all usable processors."),
    )(command)
