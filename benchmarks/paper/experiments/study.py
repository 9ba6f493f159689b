"""Networks trained alike, several seeds of each: what the paper's comparisons rest on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from benchmarks.paper.training.batches import on_device
from benchmarks.paper.training.corpus import Source, load
from benchmarks.paper.training.loop import Pace, TrainingJob, drive
from benchmarks.paper.training.recipe import RECIPES, Recipe
from benchmarks.paper.training.run import WEIGHTS, Run, RunIdentity
from benchmarks.paper.training.step import Arithmetic, TrainingPrecision
from exporter.export_request import ExportListener
from exporter.models.variants import Shortcut, Variant, customise, variant
from runtimes.backends.pytorch.backend import check_gpu
from runtimes.errors import CompatibilityError, UsageError
from runtimes.escaping import shell_word
from runtimes.processors import usable_processors

COMPILED_FROM = 2000
"""Iterations from which on compiling pays, where the command does not say."""


@dataclass(frozen=True)
class TrainingOptions:
    """How networks are trained, as the commands' options say it.

    Attributes:
        recipe: a name in ``RECIPES``.
        factor: the share of the whole schedule, or ``None``.
        epochs: in place of ``factor``: the schedule is shortened, or stretched, to so many passes over the data.
        threads: PyTorch's threads; ``None`` takes all usable processors.
        compiled: ``None`` compiles what has ``COMPILED_FROM`` iterations or more.
        pace: when to leave with checkpoints written, and how often to write them.
    """

    source: Source
    recipe: str = "paper"
    factor: float | None = None
    epochs: int | None = None
    device: str = "cpu"
    precision: TrainingPrecision = "fp32"
    threads: int | None = None
    compiled: bool | None = None
    pace: Pace = field(default_factory=Pace)


def fit_variant(name: str, classes: int, size: int, shortcut: Shortcut | None = None) -> Variant:
    """The row of that name for the data at hand: its classes, images of ``size`` pixels. Raises ``UsageError`` for no
    such row, or a plain net with a shortcut option."""
    return customise(variant(name), classes=classes, size=(size, size), shortcut=shortcut)


def train(
    networks: Sequence[tuple[Path, str, Shortcut | None, int]], setup: TrainingOptions, listener: ExportListener
) -> tuple[Path, ...]:
    """Trains networks, each given as (folder, variant's name, shortcut option, seed); the folders. Finished ones stay.

    Raises:
        UsageError: options that contradict each other; a folder that holds another run.
        BackendUnavailableError: there is no such device.
        RexportError: the data cannot be read, or a run not be trained; see ``corpus.load`` and ``loop.drive``.
    """
    begun_s = time.monotonic()
    if setup.device == "cuda":
        check_gpu()
    torch.set_num_threads(setup.threads or usable_processors())
    listener.step(f"reading {setup.source.train}")
    recipe = RECIPES[setup.recipe]
    corpus = load(setup.source, recipe.held_out, recipe.batch)
    recipe = _scale_recipe(recipe, setup, len(corpus.train))
    compiled = recipe.iterations >= COMPILED_FROM if setup.compiled is None else setup.compiled
    arithmetic = Arithmetic("cuda" if setup.device == "cuda" else "cpu", setup.precision, compiled)
    jobs = []
    for folder, name, option, seed in networks:
        row = fit_variant(name, len(corpus.classes), setup.source.size, option)
        jobs.append(TrainingJob(folder, RunIdentity(row, recipe, seed, corpus.digest), arithmetic))
    data = on_device(corpus, recipe, jobs[0].identity.variant, arithmetic.device)
    pace = setup.pace
    if pace.stop_after_s is not None:
        pace = replace(pace, stop_after_s=pace.stop_after_s - (time.monotonic() - begun_s))
    try:
        drive(jobs, data, listener, pace)
    except RuntimeError as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise CompatibilityError(
                f"PyTorch could not compile the network: {str(error).splitlines()[0]}",
                code="training-not-compiled",
                hint="--no-compile trains without; --debug shows the cause",
            ) from error
        raise
    return tuple(job.folder for job in jobs)


def _scale_recipe(recipe: Recipe, setup: TrainingOptions, images: int) -> Recipe:
    if setup.epochs is None:
        return recipe.stretch(setup.factor or 1.0)
    if setup.factor is not None:
        hint = "give one of them"
        raise UsageError("--scale and --epochs both say how long to train", code="scale-and-epochs", hint=hint)
    return recipe.stretch(setup.epochs * (images // recipe.batch) / recipe.iterations)


def export_command(folder: Path, run: Run) -> str:
    """The command that makes an artifact of a finished run."""
    shape, option = run.identity.variant, run.identity.option
    grey = len(run.mean) == 1  # a grey's number stands in each channel of the network
    mean, std = (values * (shape.in_channels if grey else 1) for values in (run.mean, run.std))
    options = {
        "--weights": str(folder / WEIGHTS),
        "--num-classes": str(shape.classes),
        "--size": str(shape.size[0]),
        "--mean": ",".join(f"{value:g}" for value in mean),
        "--std": ",".join(f"{value:g}" for value in std),
    }
    if option is not None:
        options["--shortcut"] = option
    return " ".join(
        map(shell_word, ("rexport", "onnx", shape.name, *(word for pair in options.items() for word in pair)))
    )
