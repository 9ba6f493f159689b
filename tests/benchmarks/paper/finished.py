"""Finished runs as if they had been trained, with the errors that a test wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from benchmarks.paper.experiments.curves import Curves
from benchmarks.paper.training.recipe import PAPER
from benchmarks.paper.training.run import CurvePoint, FinalErrors, Run, RunIdentity, TrainingSegment
from benchmarks.paper.training.step import Arithmetic
from exporter.models.variants import customise, variant

IMAGES = {"train": 45_000, "validation": 5_000, "test": 10_000}


def run(name: str, seed: int, train: float, test: float, shortcut: str | None = None) -> Run:
    row = customise(variant(name), classes=10, size=(32, 32))
    if shortcut is not None:
        row = dataclasses.replace(row, shortcut=shortcut)  # type: ignore[arg-type]
    return Run(
        RunIdentity(row, PAPER.stretch(0.1), seed, "0" * 64),
        "squares",
        tuple("abcdefghij"),
        IMAGES,
        (0.5,),
        (0.25,),
        (TrainingSegment(0, Arithmetic(), 2, "a machine", {"torch": "2"}),),
        step_s=0.1,
        input_share=0.03,
        outcome=FinalErrors(train, test, test),
    )


def points(train: float, test: float) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(1600 * n, 4.6 * n, 0.1, 1 / n, train + 0.3 / n, test, test + 0.2 / n, 10.0 * n) for n in range(1, 5)
    )


def curves(name: str, errors: Sequence[tuple[float, float]], shortcut: str | None = None) -> Curves:
    """A network with a seed for each pair of training and test error."""
    runs = tuple(run(name, seed, train, test, shortcut) for seed, (train, test) in enumerate(errors))
    label = name if shortcut is None else f"{name}, option {shortcut}"
    return Curves(label, runs, tuple(points(*pair) for pair in errors))
