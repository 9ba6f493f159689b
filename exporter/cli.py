"""``rexport``: a ResNet's name in, an artifact out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exporter import terminal
from exporter.terminal import debug_option, json_option

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
            click.option("--data", metavar="NAME|DIR", help="Real images for the parity check; see rbench run --help."),
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
    return Request(_customised(variant, options), **{name: options[name] for name in same})


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
@click.option("--opset", type=click.IntRange(1), default=20, show_default=True, help="Of the ONNX standard.")
def onnx(variant: str, opset: int, **options: Any) -> None:
    """Export VARIANT to one ONNX file, checked against PyTorch; prints its path."""
    with terminal.stdout_reserved(), terminal.listening() as listener:
        from exporter import onnx as target

        artifact = target.export(_request(variant, options), listener, opset)
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
            click.option("--runtime", help="By default the first that is installed."),
            click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
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
    device: str,
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


def main() -> None:
    """The console script."""
    terminal.run(cli)


if __name__ == "__main__":
    main()
