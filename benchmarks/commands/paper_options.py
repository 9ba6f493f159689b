"""The options that the experiments of ``rbench paper`` share. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.commands.options import device_option, threads_option
from exporter.commands import terminal
from exporter.commands.command import stack_options
from exporter.commands.values import Numbers

if TYPE_CHECKING:
    from benchmarks.commands.options import Command

FOLDER = Path("paper-results")
"""Where the experiments put what they find."""

RUNS = "runs"
"""In it: a folder for each training run."""


def network_option(parameter: str, default: Sequence[str], help: str) -> Callable[[Command], Command]:
    """Which networks, by their variants."""
    return click.option(
        "--network", parameter, multiple=True, default=default, show_default=True, metavar="VARIANT", help=help
    )


def seeds_option(default: int, help: str) -> Callable[[Command], Command]:
    """How many seeds each network has."""
    limits = click.IntRange(1, 1000)
    return click.option("--seeds", type=limits, default=default, show_default=True, metavar="N", help=help)


def size_option(help: str) -> Callable[[Command], Command]:
    """Height and width of the input."""
    limits = click.IntRange(min=8)
    return click.option("--size", type=limits, default=32, show_default=True, metavar="N", help=help)


def out_option(default: Path | None, help: str) -> Callable[[Command], Command]:
    """Where results go."""
    place = click.Path(path_type=Path, file_okay=False)
    return click.option(
        "-o", "folder", type=place, default=default, show_default=default is not None, metavar="DIR", help=help
    )


data_options = stack_options(
    click.option(
        "--data",
        "train_data",
        default="fashion-mnist",
        show_default=True,
        metavar="NAME|DIR|FILE",
        help="Training images: fashion-mnist (Debian's dataset-fashion-mnist), fashion-mnist-sample (1,000 that come "
        "with rexport), or a folder or archive with CIFAR-10 or one folder a class.",
    ),
    click.option("--test-data", metavar="DIR|FILE", help="Test images, if they lie elsewhere."),
    click.option("--data-name", metavar="TEXT", help="Name of the data in results. Default: its own name."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take N training and N test images at most."),
)

training_options = stack_options(
    data_options,
    size_option("Height and width of the network's input in pixels; image files are resized to it."),
    click.option(
        "--scale",
        "factor",
        type=click.FloatRange(min=0, min_open=True),
        metavar="F",
        help="Shorten the whole schedule to this share; every result says so. Default: 1.",
    ),
    click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Shorten it to N passes over the data."),
    device_option,
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        show_default=True,
        help="Precision of the convolutions; bf16 is faster on a GPU, and on a processor with AMX.",
    ),
    threads_option,
    click.option(
        "--compile/--no-compile",
        "compiled",
        default=None,
        help="Compile with TorchInductor, which needs a C++ compiler and takes half a minute or, for deep nets on a "
        "CPU, several minutes. Default: from 2,000 iterations on.",
    ),
    click.option(
        "--stop-after",
        "stop_after_s",
        type=click.FloatRange(min=1),
        metavar="S",
        help="Leave after S seconds with exit code 1; the same command then goes on.",
    ),
    click.option(
        "--checkpoint-every",
        "checkpoint_every_s",
        type=click.FloatRange(min=0),
        default=30.0,
        show_default=True,
        metavar="S",
        help="Seconds of work that a kill may cost.",
    ),
    click.option(
        "--states",
        type=click.IntRange(0, 1000),
        default=0,
        show_default=True,
        metavar="N",
        help="Keep N states of each network along its training, for rbench paper gradients.",
    ),
)

FINDINGS_HELP = "Folder for findings and pictures, with the training runs in it."

comparison_options = stack_options(
    seeds_option(1, "Runs of each network."),
    click.option(
        "--so-far",
        is_flag=True,
        help="Train nothing: show the runs as they are, up to where all have come. Only --network, --seeds and -o "
        "then count.",
    ),
    training_options,
    out_option(FOLDER, FINDINGS_HELP),
    terminal.debug_option,
)

inspection_options = stack_options(
    data_options,
    size_option("Height and width of the input in pixels."),
    click.option("--mean", type=Numbers(), help="Mean that a FILE was trained with. Default: ImageNet's."),
    click.option("--std", type=Numbers(), help="Standard deviation likewise."),
    out_option(FOLDER, FINDINGS_HELP),
    terminal.debug_option,
)
