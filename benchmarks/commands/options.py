"""The options that ``rbench``'s commands share. Nothing heavy is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from benchmarks.records.plan import DEVICES, LEAST_PROCESSES, MOST_PROCESSES, ROUNDS, SILENCE_S
from exporter.commands.backend_option import backend_option
from exporter.commands.command import stack_options
from exporter.precision.table import CALIBRATION_IMAGES, PRECISIONS, TARGETS

if TYPE_CHECKING:
    from benchmarks.records.request import BenchmarkRequest

    Command = TypeVar("Command", bound=Callable[..., Any])

SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}
"""Of every command."""

POSITIVE = click.FloatRange(min=0, min_open=True)

count_option = partial(click.option, type=click.IntRange(min=1), metavar="N")
"""An option that takes a number from 1, or in another range."""

batches_option = partial(count_option, "--batch", "batches", multiple=True)
seed_option = partial(count_option, "--seed", type=click.IntRange(min=0), default=0)
max_drop_option = partial(
    click.option, "--max-drop", type=click.FloatRange(min=0, max=100), default=0.5, metavar="POINTS"
)
duration_option = partial(
    click.option, "--duration", "duration_s", type=click.FloatRange(min=0, min_open=True, max=3600), metavar="S"
)
device_option = click.option("--device", type=click.Choice(DEVICES), default="cpu")
weights_option = click.option(
    "--weights", metavar="random|bundled|imagenet|FILE", help="Weights of a VARIANT. Default: random."
)
threads_option = count_option("--threads", help="Default: all that this process may use.")
json_file_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Add JSON lines to FILE."
)
folder_option = click.option(
    "-o", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Write results.jsonl, .md, .csv and .html."
)
show_errors_option = click.option(
    "--debug", "show_errors", is_flag=True, help="Show tracebacks, and what the workers print."
)


def timeout_option(subject: str) -> Callable[[Command], Command]:
    """How long a worker may be silent."""
    help = f"End a {subject} that gives no sign of life for S seconds."
    limits = click.FloatRange(min=1)
    return click.option("--timeout", "silence_s", type=limits, default=SILENCE_S, metavar="S", help=help)


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
        count_option("--calibration-images", help=f"Number of calibration images. Default: {CALIBRATION_IMAGES}."),
        click.option(
            "--target",
            type=click.Choice(TARGETS),
            help="Deployment target of int8; TensorRT takes signed integers alone. Default: cpu.",
        ),
    )


def how_options(limit: int | None, duration_s: float, processes: int | None) -> Callable[[Command], Command]:
    """On which images and for how long, with the command's defaults."""
    as_many = f" Default: {LEAST_PROCESSES} to {MOST_PROCESSES}, as many as fit into --budget."
    return stack_options(
        click.option(
            "--data", metavar="NAME|DIR", help="Labelled images. Default: the bundled set where it fits, else noise."
        ),
        count_option("--limit", default=limit, help="Evaluate N images at most."),
        duration_option(
            default=duration_s,
            help="Seconds of sampling in each process, by each clock: latency, compute, a GPU's own.",
        ),
        count_option(
            "--processes",
            type=click.IntRange(1, 100),
            default=processes,
            help=f"Fresh processes of each configuration.{'' if processes else as_many}",
        ),
        count_option(
            "--rounds",
            type=click.IntRange(1, 1000),
            default=ROUNDS,
            help="Interleaved rounds in each process, in random order. Drift detection needs at least 4.",
        ),
        seed_option(help="Seed of noise, of random weights, of the order of turns and of resampling."),
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
