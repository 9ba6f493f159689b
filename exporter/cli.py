"""``rexport``: a ResNet's name in, an artifact out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from exporter import terminal
from exporter.terminal import PRECISION_NAMES, debug_option, json_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.network import Request
    from exporter.variants import Variant

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


class Batch(click.ParamType):  # type: ignore[type-arg]
    """``dynamic`` or a fixed number of images."""

    name = "dynamic|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "dynamic":
            return None
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is neither 'dynamic' nor a number of images from 1", param, ctx)
        return int(value)


def variant_options(command: Command) -> Command:
    """The options that change a variant's row."""
    for option in reversed(
        (
            click.option("--num-classes", type=click.IntRange(1), help="Outputs of the classifier."),
            click.option("--in-channels", type=click.IntRange(1), help="Channels of the input."),
            click.option("--size", type=Size(), help="Height and width of the input in pixels."),
            click.option(
                "--stride", type=click.Choice(["v1", "v1.5"]), help="Where bottlenecks stride: first 1x1, or the 3x3."
            ),
            click.option(
                "--shortcut", type=click.Choice(["A", "B", "C"]), help="Padding, projection where needed, or always."
            ),
        )
    ):
        command = option(command)
    return command


def export_options(command: Command) -> Command:
    """The options that every target format takes."""
    for option in reversed(
        (
            click.argument("variant"),
            click.option(
                "--weights",
                default="random",
                show_default=True,
                metavar="random|bundled|imagenet|FILE",
                help="Random is untrained; FILE is a .pt .pth .th .ckpt or .safetensors state dict.",
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Of random weights and noise."),
            variant_options,
            click.option("--batch", type=Batch(), default="dynamic", show_default=True, help="Images in one call."),
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
            click.option("-o", "--out", default="./", help="File, or folder with a slash at its end.  [default: ./]"),
            click.option("--force", is_flag=True, help="Replace the file if it is there."),
            debug_option,
        )
    ):
        command = option(command)
    return command


def _customised(variant: str, options: dict[str, Any]) -> Variant:
    from exporter import variants

    return variants.customised(
        variants.variant(variant),
        classes=options["num_classes"],
        in_channels=options["in_channels"],
        size=options["size"],
        stride=options["stride"],
        shortcut=options["shortcut"],
    )


def _request(variant: str, options: dict[str, Any]) -> Request:
    from exporter.network import Request

    same = ("out", "weights", "seed", "batch", "labels", "mean", "std", "data", "force")
    chosen = {name: options[name] for name in same}
    return Request(_customised(variant, options), raw=options["input"] == "raw", **chosen)


def typing_options(command: Command) -> Command:
    """The options that say how a graph is typed."""
    for option in reversed(
        (
            click.option(
                "--precision",
                type=click.Choice(PRECISION_NAMES),
                default="fp32",
                show_default=True,
                help="Of the graph; input and output stay as they are.",
            ),
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
            click.option(
                "--target",
                type=click.Choice(["cpu", "tensorrt"]),
                default="cpu",
                show_default=True,
                help="Whom int8 is for: TensorRT takes signed integers alone.",
            ),
            click.option(
                "--gate-images",
                type=click.IntRange(1),
                default=1000,
                show_default=True,
                metavar="N",
                help="Compared with fp32 at most, below fp32.",
            ),
        )
    ):
        command = option(command)
    return command


TYPING = ("precision", "calibration", "calibration_images", "target", "gate_images")
"""What ``typing_options`` call their values, which are the fields of ``exporter.typing.Typing``."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rexport", prog_name="rexport")
def cli() -> None:
    """Export residual networks to files that run without PyTorch.

    \b
    rexport list                          the networks of He et al. 2015
    rexport onnx resnet50                 writes resnet50.onnx and its manifest
    rexport onnx resnet20 --weights bundled   a trained network, with its labels
    rexport predict resnet20.onnx shoe.jpg
    """


@cli.command()
@export_options
@typing_options
@click.option("--opset", type=click.IntRange(1), help="Of the ONNX standard.  [default: 20; 22 for bf16]")
def onnx(variant: str, opset: int | None, **options: Any) -> None:
    """Export VARIANT to one ONNX file, checked against PyTorch; prints its path.

    A precision below fp32 must also pass a gate on real images, where there are any: the logits' error, top-1
    against fp32's, and the drop of top-1 where there are labels. What fails leaves no file.
    """
    with terminal.stdout_reserved(), terminal.listening() as listener:
        from exporter import onnx as target
        from exporter.typing import Typing

        typing = Typing(**{name: options[name] for name in TYPING})
        artifact = target.export(_request(variant, options), listener, opset, typing)
    click.echo(artifact.path)


@cli.command()
@export_options
def torch(variant: str, **options: Any) -> None:
    """Export VARIANT to a .pt2 program, checked against PyTorch; prints its path."""
    with terminal.stdout_reserved(), terminal.listening() as listener:
        from exporter import torch as target

        artifact = target.export(_request(variant, options), listener)
    click.echo(artifact.path)


@cli.command("list")
@json_option
@debug_option
def list_variants(as_json: bool) -> None:
    """The variants, and the paper's figures beside ours."""
    from exporter import catalogue

    click.echo(catalogue.all_as_json() if as_json else catalogue.all_as_table(), nl=as_json)


@cli.command()
@click.argument("variant")
@variant_options
@json_option
@debug_option
def info(variant: str, as_json: bool, **options: Any) -> None:
    """VARIANT stage by stage: shapes, parameters, multiply-adds, and the paper's figures."""
    from exporter import catalogue

    row = _customised(variant, options)
    click.echo(catalogue.one_as_json(row) if as_json else catalogue.one_as_table(row), nl=as_json)


def runtime_options(command: Command) -> Command:
    """The options that choose what opens an artifact."""
    for option in reversed(
        (
            click.option("--runtime", help="By default what it was tuned for, or the first that runs it."),
            click.option(
                "--device", type=click.Choice(["cpu", "cuda"]), help="By default cpu, or what it was tuned for."
            ),
            click.option("--threads", type=click.IntRange(1), help="By default all usable processors."),
        )
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@runtime_options
@json_option
@debug_option
def verify(artifact: Path, runtime: str | None, device: str, threads: int | None, as_json: bool) -> None:
    """Repeat ARTIFACT's parity check from its own test vectors; PyTorch is not needed."""
    from exporter import inspection

    with terminal.stdout_reserved():
        record = inspection.verified(artifact, runtime, device, threads)
    click.echo(inspection.parity_as_json(record) if as_json else inspection.parity_as_text(artifact, record))


@cli.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@json_option
@debug_option
def inspect(artifact: Path, as_json: bool) -> None:
    """What ARTIFACT is, where it comes from, and how it was checked."""
    from exporter import inspection

    click.echo(inspection.as_json(artifact) if as_json else inspection.as_text(artifact))


@cli.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Labels for each image.")
@runtime_options
@json_option
@debug_option
def predict(
    artifact: Path,
    images: tuple[Path, ...],
    top: int,
    runtime: str | None,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Labels of IMAGES, one line each. An unreadable image is named, the others are answered; the exit code is 1."""
    from exporter import prediction

    with terminal.stdout_reserved():
        answers = prediction.predict(artifact, images, top, runtime, device, threads)
    text = prediction.as_json(answers) if as_json else prediction.as_text(answers)
    click.echo(text, nl=bool(text))
    for answer in answers:
        if answer.error is not None:
            click.echo(f"error: {answer.error}", err=True)
    if any(answer.error is not None for answer in answers):
        raise SystemExit(1)


@cli.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@runtime_options
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The fp32 ONNX file of the same network.  [default: made from where ARTIFACT's weights come from]",
)
@click.option("--data", metavar="NAME|DIR", help="Images to compare on.  [default: ARTIFACT's test vectors]")
@click.option("--images", type=click.IntRange(1), default=32, show_default=True, metavar="N", help="Of --data at most.")
@click.option(
    "--by",
    type=click.Choice(["stage", "block", "layer"]),
    default="block",
    show_default=True,
    help="What the table goes down to.",
)
@json_option
@debug_option
def explain(
    artifact: Path, runtime: str | None, by: Literal["stage", "block", "layer"], as_json: bool, **options: Any
) -> None:
    """Why ARTIFACT is not faster, and where it goes wrong: what ran, and every layer's error against fp32."""
    with terminal.stdout_reserved(), terminal.listening() as listener:
        from exporter import explained, explanation

        found = explanation.explain(explanation.Question(artifact, runtime, **options), listener)
    if as_json:
        click.echo(explanation.as_json(found))
    else:
        explained.print_explanation(found, by, sys.stdout)


def main() -> None:
    """The console script."""
    terminal.run(cli)


if __name__ == "__main__":
    main()
