"""The command ``rexport refit``: the weights of another checkpoint in an engine."""

from __future__ import annotations

from pathlib import Path

import click

from exporter.commands import streams, terminal
from exporter.commands.command import SectionedCommand
from exporter.commands.options import force_option, out_option
from exporter.commands.terminal import debug_option


@click.command(
    "refit",
    cls=SectionedCommand,
    heading="Export",
    examples=(
        "rexport refit resnet50.engine finetuned.onnx",
        "rexport refit resnet50.engine finetuned.onnx -o engines/",
    ),
)
@click.argument(
    "engine",
    metavar="ARTIFACT.engine",
    type=click.Path(path_type=Path),
    help="Engine that rexport tensorrt --refit built. It is not changed.",
)
@click.argument(
    "onnx",
    metavar="ARTIFACT.onnx",
    type=click.Path(path_type=Path),
    help="ONNX file with the new weights, of the same network in the same precision.",
)
@out_option(None, "beside ARTIFACT.onnx")
@force_option
@debug_option
def refit(engine: Path, onnx: Path, out: str | None, force: bool) -> None:
    """Copy a TensorRT engine with the weights of another ONNX file and print its path.

    A build searches for fast kernels for minutes; a new checkpoint of the same network needs only new weights, which
    takes seconds. The new engine is checked against PyTorch before it is written. A GPU is needed.
    """
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.targets.engine_refit import refit_engine

        artifact = refit_engine(engine, onnx, listener, out, force)
    streams.print_path(artifact.path)
