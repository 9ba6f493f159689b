"""Networks trained alike, several seeds of each: what the paper's comparisons rest on."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.paper.training.corpus import Corpus, Source, load
from benchmarks.paper.training.loop import Pace, on_device
from benchmarks.paper.training.recipe import RECIPES, Recipe
from benchmarks.paper.training.run import Identity, Run
from benchmarks.paper.training.schedule import TrainingJob, drive
from benchmarks.paper.training.step import Arithmetic, TrainingPrecision
from exporter.models.variants import Shortcut, Variant, customise, variant
from exporter.network import ExportListener
from runtimes.backends.pytorch.backend import check_gpu
from runtimes.errors import CompatibilityError, UsageError
from runtimes.processors import usable_processors

COMPILED_FROM = 2000
"""Iterations from which on compiling pays, where the command does not say."""


@dataclass(frozen=True)
class TrainingOptions:
    """How networks are trained, as the commands' options say it.

    Attributes:
        recipe: a name in ``RECIPES``.
        factor: of the whole schedule, or ``None``.
        epochs: in place of ``factor``: the schedule is shortened, or stretched, to so many passes over the data.
        threads: of PyTorch; ``None`` takes all usable processors.
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
    """The row of that name for the data at hand: its classes, images of ``size`` pixels.

    Raises:
        UsageError: no such row, or a plain net with a shortcut option.
    """
    return customise(variant(name), classes=classes, size=(size, size), shortcut=shortcut)


def train(
    wanted: Sequence[tuple[Path, str, Shortcut | None, int]], setup: TrainingOptions, listener: ExportListener
) -> tuple[Path, ...]:
    """Trains networks, each given as (folder, variant's name, shortcut option, seed); the folders. Finished ones stay.

    Raises:
        UsageError: options that contradict each other; a folder that holds another run.
        BackendUnavailableError: there is no such device.
        RexportError: as ``corpus.load`` and ``driving.drive``.
    """
    begun_s = time.monotonic()
    if setup.device == "cuda":
        check_gpu()
    torch.set_num_threads(setup.threads or usable_processors())
    listener.step(f"reading {setup.source.train}")
    recipe = RECIPES[setup.recipe]
    corpus = load(setup.source, recipe.held_out, recipe.batch)
    recipe = _scale_recipe(recipe, setup, corpus)
    arithmetic = _arithmetic(setup, recipe)
    jobs = [
        TrainingJob(
            folder,
            Identity(
                fit_variant(name, len(corpus.classes), setup.source.size, option),
                recipe,
                seed,
                corpus.digest,
            ),
            arithmetic,
        )
        for folder, name, option, seed in wanted
    ]
    data = on_device(corpus, recipe, jobs[0].identity.variant, arithmetic)
    try:
        drive(jobs, data, listener, setup.pace.subtract(time.monotonic() - begun_s))
    except RuntimeError as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            what = f"PyTorch could not compile the network: {str(error).splitlines()[0]}"
            raise CompatibilityError(what, hint="--no-compile trains without; --debug shows the cause") from error
        raise
    return tuple(job.folder for job in jobs)


def _scale_recipe(recipe: Recipe, setup: TrainingOptions, corpus: Corpus) -> Recipe:
    if setup.factor is not None and setup.epochs is not None:
        raise UsageError("--scale and --epochs both say how long to train", hint="give one of them")
    if setup.epochs is not None:
        steps = len(corpus.train) // recipe.batch
        return recipe.stretch(setup.epochs * steps / recipe.iterations)
    return recipe if setup.factor in (None, 1.0) else recipe.stretch(setup.factor or 1.0)


def _arithmetic(setup: TrainingOptions, recipe: Recipe) -> Arithmetic:
    compiled = recipe.iterations >= COMPILED_FROM if setup.compiled is None else setup.compiled
    return Arithmetic("cuda" if setup.device == "cuda" else "cpu", setup.precision, compiled)


def export_command(folder: Path, run: Run, weights: str) -> str:
    """The command that makes an artifact of a finished run."""
    mean, std = (",".join(f"{value:g}" for value in _spread(values, run)) for values in (run.mean, run.std))
    shape, option = run.identity.variant, run.identity.option
    words = ["rexport", "onnx", shape.name, "--weights", str(folder / weights), "--num-classes", str(shape.classes)]
    words += ["--size", str(shape.size[0]), "--mean", mean, "--std", std]
    return shlex.join([*words, *(["--shortcut", option] if option is not None else [])])


def _spread(values: tuple[float, ...], run: Run) -> tuple[float, ...]:
    """One number a channel of the network: a grey's stands in each."""
    return values * run.identity.variant.in_channels if len(values) == 1 else values
