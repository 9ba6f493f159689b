"""``rexport``: a ResNet's name in, an artifact out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

from exporter.commands import engine_options as engineoptions
from exporter.commands import terminal
from exporter.commands.engine_options import engine_options
from exporter.commands.options import (
    TYPING,
    backend_options,
    calibration_options,
    customise_variant,
    export_options,
    gate_option,
    network_options,
    precision_option,
    request_of,
    typing_options,
    variant_options,
)
from exporter.commands.terminal import debug_option, json_option


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rexport", prog_name="rexport")
def cli() -> None:
    """Export residual networks to files that run without PyTorch.

    \b
    rexport list                          the networks of He et al. 2015
    rexport onnx resnet50                 writes resnet50.onnx and its manifest
    rexport onnx resnet20 --weights bundled   a trained network, with its labels
    rexport predict resnet20.onnx shoe.jpg
    rexport tensorrt resnet20.onnx        an engine for an NVIDIA GPU
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
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.precision.spec import PrecisionSpec
        from exporter.targets import onnx_file

        precision_spec = PrecisionSpec(**{name: options[name] for name in TYPING})
        artifact = onnx_file.export(request_of(variant, options), listener, opset, precision_spec)
    click.echo(artifact.path)


@cli.command()
@export_options
@precision_option
@gate_option
def torch(variant: str, precision: str, gate_images: int, **options: Any) -> None:
    """Export VARIANT to a .pt2 program, checked against PyTorch; prints its path.

    In fp32 and tf32 its batch-norms stay as they are. int8 is for ONNX files.
    """
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.precision.spec import PrecisionSpec
        from exporter.targets import torch_program

        artifact = torch_program.export(
            request_of(variant, options), listener, PrecisionSpec(precision, gate_images=gate_images)
        )
    click.echo(artifact.path)


@cli.command()
@click.argument("source", metavar="ARTIFACT.onnx|VARIANT")
@engine_options
@network_options
@precision_option
@calibration_options
@gate_option
@click.option("--opset", type=click.IntRange(1), help="Of the ONNX standard.  [default: 20; 22 for bf16]")
@debug_option
def tensorrt(source: str, opset: int | None, **options: Any) -> None:
    """Build a TensorRT engine of an ONNX file that rexport made, or of VARIANT; prints its path.

    VARIANT is exported to an ONNX file beside the engine first, and the options from --weights on are for that
    alone: an ONNX file has its network and its precision already.

    With a GPU, the engine is checked against PyTorch like every export. TensorRT-RTX builds without one as well: such
    an engine carries its test vectors, and is checked when it is opened.
    """
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.targets import tensorrt_engine

        order = engineoptions.order(options)
        if engineoptions.is_file(source):
            engineoptions.refuse_network_options(click.get_current_context())
            artifact = tensorrt_engine.build_artifact(Path(source), order, listener)
        else:
            engineoptions.check_batch(options)
            request = request_of(source, {**options, "out": options["out"] or "./"})
            artifact = tensorrt_engine.export(request, order, listener, opset, engineoptions.precision_spec(options))
    click.echo(artifact.path)


@cli.command("list")
@json_option
@debug_option
def list_variants(as_json: bool) -> None:
    """The variants, and the paper's figures beside ours."""
    from exporter.models import listing

    click.echo(listing.all_as_json() if as_json else listing.all_as_table(), nl=as_json)


@cli.command()
@click.argument("variant")
@variant_options
@json_option
@debug_option
def info(variant: str, as_json: bool, **options: Any) -> None:
    """VARIANT stage by stage: shapes, parameters, multiply-adds, and the paper's figures."""
    from exporter.models import listing

    row = customise_variant(variant, options)
    click.echo(listing.one_as_json(row) if as_json else listing.one_as_table(row), nl=as_json)


@cli.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@backend_options
@json_option
@debug_option
def verify(artifact: Path, backend: str | None, device: str, threads: int | None, as_json: bool) -> None:
    """Repeat ARTIFACT's parity check from its own test vectors; PyTorch is not needed."""
    from exporter.inspect import manifest_view

    with terminal.reserve_stdout():
        record = manifest_view.verify_parity(artifact, backend, device, threads)
    click.echo(manifest_view.parity_as_json(record) if as_json else manifest_view.parity_as_text(artifact, record))


@cli.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@json_option
@debug_option
def inspect(artifact: Path, as_json: bool) -> None:
    """What ARTIFACT is, where it comes from, and how it was checked."""
    from exporter.inspect import manifest_view

    with terminal.reserve_stdout():
        text = manifest_view.as_json(artifact) if as_json else manifest_view.as_text(artifact)
    click.echo(text)


@cli.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Labels for each image.")
@backend_options
@json_option
@debug_option
def predict(
    artifact: Path,
    images: tuple[Path, ...],
    top: int,
    backend: str | None,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Labels of IMAGES, one line each. An unreadable image is named, the others are answered; the exit code is 1."""
    from exporter.inspect import predict as prediction

    with terminal.reserve_stdout():
        answers = prediction.predict(artifact, images, top, backend, device, threads)
    text = prediction.as_json(answers) if as_json else prediction.as_text(answers)
    click.echo(text, nl=bool(text))
    for answer in answers:
        if answer.error is not None:
            terminal.print_error(answer.error.code, answer.error.sentence)
    if any(answer.error is not None for answer in answers):
        raise SystemExit(1)


@cli.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@backend_options
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
    artifact: Path, backend: str | None, by: Literal["stage", "block", "layer"], as_json: bool, **options: Any
) -> None:
    """Why ARTIFACT is not faster, and where it goes wrong: what ran, and every layer's error against fp32."""
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.explain import explanation
        from exporter.explain import view as explained

        found = explanation.explain(explanation.ExplanationRequest(artifact, backend, **options), listener)
    if as_json:
        click.echo(explanation.as_json(found))
    else:
        explained.print_explanation(found, by, sys.stdout)


def main() -> None:
    """The console script."""
    terminal.run(cli)


if __name__ == "__main__":
    main()
