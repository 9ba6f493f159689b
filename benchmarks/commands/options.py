"""The options that ``rbench``'s commands share. Nothing heavy is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exporter.commands.backend_option import backend_option
from exporter.commands.options import stack_options
from exporter.commands.terminal import PRECISION_NAMES

if TYPE_CHECKING:
    from benchmarks.records.request import BenchmarkRequest

    Command = TypeVar("Command", bound=Callable[..., Any])


def what_options(precision_default: str) -> Callable[[Command], Command]:
    """Which network in which precisions, and where it runs."""
    return stack_options(
        backend_option("backends", multiple=True, help="A backend; repeatable. Default: all."),
        click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
        click.option(
            "--cuda-graphs/--no-cuda-graphs",
            default=None,
            help="Whether a GPU may replay recorded runs in place of launching each kernel. Default: it may.",
        ),
        click.option(
            "--precision",
            "precisions",
            multiple=True,
            type=click.Choice(PRECISION_NAMES),
            help=f"Of the graph; repeatable. Default: {precision_default}.",
        ),
        click.option("--weights", metavar="random|bundled|imagenet|FILE", help="Of a VARIANT. Default: random."),
        click.option(
            "--input",
            type=click.Choice(["float", "raw"]),
            help="Of a VARIANT; raw takes uint8 pixels. Default: float.",
        ),
        click.option(
            "--calibration",
            metavar="NAME|DIR",
            help="Training images for int8. Default: the bundled ones where they fit, noise if untrained.",
        ),
        click.option(
            "--calibration-images", type=click.IntRange(min=1), metavar="N", help="How many of them. Default: 300."
        ),
        click.option(
            "--target",
            type=click.Choice(["cpu", "tensorrt"]),
            help="Whom int8 is for: TensorRT takes signed integers alone. Default: cpu.",
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
        click.option(
            "--duration",
            "duration_s",
            type=click.FloatRange(min=0, min_open=True, max=3600),
            default=duration_s,
            show_default=True,
            metavar="S",
            help="Seconds of sampling in each process, by each clock: latency, compute, a GPU's own.",
        ),
        click.option(
            "--processes",
            type=click.IntRange(1, 100),
            default=processes,
            show_default=processes is not None,
            metavar="N",
            help="Fresh processes of each configuration."
            + ("" if processes else " Default: 3 to 10, as many as fit into --budget."),
        ),
        click.option(
            "--rounds",
            type=click.IntRange(1, 1000),
            default=10,
            show_default=True,
            metavar="N",
            help="Of turns in each process, in shuffled order; fewer than 4 cannot tell a drift.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            metavar="N",
            help="Of noise, of random weights, of the order of turns and of resampling.",
        ),
        click.option(
            "--timeout",
            "silence_s",
            type=click.FloatRange(min=1),
            default=600.0,
            show_default=True,
            metavar="S",
            help="End a configuration that gives no sign of life for so long.",
        ),
        click.option(
            "--strict",
            is_flag=True,
            default=None,
            help="Exit code 1 if the machine was not quiet meanwhile, or if that is not known.",
        ),
        click.option(
            "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Add JSON lines to FILE."
        ),
        click.option("--debug", "show_errors", is_flag=True, help="Show tracebacks, and what the workers print."),
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
