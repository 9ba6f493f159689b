"""The options that ``rbench``'s commands share. Nothing heavy is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from benchmarks.records.plan import DEVICES, LEAST_PROCESSES, MOST_PROCESSES, ROUNDS, SILENCE_S
from exporter.commands.backend_option import backend_option
from exporter.commands.options import stack_options
from exporter.precision.table import CALIBRATION_IMAGES, PRECISIONS, TARGETS

if TYPE_CHECKING:
    from benchmarks.records.request import BenchmarkRequest

    Command = TypeVar("Command", bound=Callable[..., Any])

SETTINGS = {"help_option_names": ["-h", "--help"]}
"""Of every command."""

device_option = click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True)
weights_option = click.option(
    "--weights", metavar="random|bundled|imagenet|FILE", help="Weights of a VARIANT. Default: random."
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Default: all that this process may use."
)
json_file_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Add JSON lines to FILE."
)
folder_option = click.option(
    "-o", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Write results.jsonl, .md, .csv and .html."
)
show_errors_option = click.option(
    "--debug", "show_errors", is_flag=True, help="Show tracebacks, and what the workers print."
)


def batches_option(help: str) -> Callable[[Command], Command]:
    """Images in one call, several times."""
    return click.option("--batch", "batches", multiple=True, type=click.IntRange(min=1), metavar="N", help=help)


def duration_option(default: float, help: str) -> Callable[[Command], Command]:
    """How long is sampled."""
    limits = click.FloatRange(min=0, min_open=True, max=3600)
    return click.option(
        "--duration", "duration_s", type=limits, default=default, show_default=True, metavar="S", help=help
    )


def seed_option(help: str | None) -> Callable[[Command], Command]:
    """Where chance begins."""
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help=help)


def max_drop_option(help: str) -> Callable[[Command], Command]:
    """How much top-1 may be lost."""
    limits = click.FloatRange(min=0, max=100)
    return click.option("--max-drop", type=limits, default=0.5, show_default=True, metavar="POINTS", help=help)


def timeout_option(subject: str) -> Callable[[Command], Command]:
    """How long a worker may be silent."""
    return click.option(
        "--timeout",
        "silence_s",
        type=click.FloatRange(min=1),
        default=SILENCE_S,
        show_default=True,
        metavar="S",
        help=f"End a {subject} that gives no sign of life for S seconds.",
    )


def strict_option(exception: str = "") -> Callable[[Command], Command]:
    """Whether results of a busy machine are a failure."""
    help = f"Exit with 1 if other processes disturbed the machine, or if that is not known.{exception}"
    return click.option("--strict", is_flag=True, default=None, help=help)


def what_options(precision_default: str) -> Callable[[Command], Command]:
    """Which network in which precisions, and where it runs."""
    return stack_options(
        backend_option("backends", multiple=True, help="A backend; repeatable. Default: all."),
        device_option,
        click.option(
            "--cuda-graphs/--no-cuda-graphs",
            default=None,
            help="Let a GPU replay recorded runs in place of launching each kernel. Default: yes.",
        ),
        click.option(
            "--precision",
            "precisions",
            multiple=True,
            type=click.Choice(list(PRECISIONS)),
            help=f"Precision of the graph; repeatable. Default: {precision_default}.",
        ),
        weights_option,
        click.option(
            "--input",
            type=click.Choice(["float", "raw"]),
            help="Input of a VARIANT; raw takes uint8 pixels. Default: float.",
        ),
        click.option(
            "--calibration",
            metavar="NAME|DIR",
            help="Training images for int8. Default: the bundled ones where they fit, noise if untrained.",
        ),
        click.option(
            "--calibration-images",
            type=click.IntRange(min=1),
            metavar="N",
            help=f"Number of calibration images. Default: {CALIBRATION_IMAGES}.",
        ),
        click.option(
            "--target",
            type=click.Choice(TARGETS),
            help="Deployment target of int8; TensorRT takes signed integers alone. Default: cpu.",
        ),
    )


def how_options(limit: int | None, duration_s: float, processes: int | None) -> Callable[[Command], Command]:
    """On which images and for how long, with the command's defaults."""
    return stack_options(
        click.option(
            "--data", metavar="NAME|DIR", help="Labelled images. Default: the bundled set where it fits, else noise."
        ),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            default=limit,
            show_default=limit is not None,
            metavar="N",
            help="Evaluate N images at most.",
        ),
        duration_option(
            duration_s, "Seconds of sampling in each process, by each clock: latency, compute, a GPU's own."
        ),
        click.option(
            "--processes",
            type=click.IntRange(1, 100),
            default=processes,
            show_default=processes is not None,
            metavar="N",
            help="Fresh processes of each configuration."
            + ("" if processes else f" Default: {LEAST_PROCESSES} to {MOST_PROCESSES}, as many as fit into --budget."),
        ),
        click.option(
            "--rounds",
            type=click.IntRange(1, 1000),
            default=ROUNDS,
            show_default=True,
            metavar="N",
            help="Interleaved rounds in each process, in random order. Drift detection needs at least 4.",
        ),
        seed_option("Seed of noise, of random weights, of the order of turns and of resampling."),
        timeout_option("configuration"),
        strict_option(),
        json_file_option,
        show_errors_option,
    )


def request_of(subjects: tuple[str, ...], options: dict[str, Any]) -> BenchmarkRequest:
    """The request that the options of a command line come to; what was not given is left to its defaults.

    Raises:
        UsageError: they contradict each other.
    """
    from benchmarks.records.request import BenchmarkRequest

    given = {name: value for name, value in options.items() if value is not None}
    given["command"] = ("rbench", *sys.argv[1:])
    if "input" in given:
        given["raw"] = given.pop("input") == "raw"
    return BenchmarkRequest(subjects, **given)
