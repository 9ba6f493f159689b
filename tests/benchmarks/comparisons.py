"""Results of several runs to compare, and what comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.accuracy import packing
from benchmarks.accuracy.predictions import Predictions
from benchmarks.compare.compare import ComparisonReport, Limits, compare
from benchmarks.records.result import Result
from benchmarks.records.store import format_line
from tests.benchmarks.results import FASTER, change_facts, processes

LATER = "2026-02-03T04:05:06+00:00"


def taken(p50_s: float, seed: int, like: Result = FASTER.result) -> Result:
    """A result of its own run whose samples have that median."""
    samples = processes(p50_s, 1.08 * p50_s, 1.3 * p50_s, p50_s, seed=seed)
    return change_facts(like, run=f"run {seed}", samples=samples)


OLD = taken(0.0004, 1)
SAME = taken(0.0004, 2)
SLOWER = taken(0.00044, 3)


def file(path: Path, *results: Result) -> Path:
    """A file of these results, without figures."""
    path.write_bytes(b"".join(format_line(result, {}) for result in results))
    return path


def compared(
    folder: Path, old: Sequence[Result], new: Sequence[Result], limits: Limits | None = None
) -> ComparisonReport:
    return compare(file(folder / "old.jsonl", *old), file(folder / "new.jsonl", *new), limits or Limits())


def predicting(right: int, images: int = 1000, seed: int = 0) -> Predictions:
    """Predictions on so many images of ten classes, the last ones wrong."""
    truth = np.arange(images) % 10
    best = np.where(np.arange(images) < right, truth, (truth + 1) % 10)
    margins = np.random.default_rng(seed).uniform(0.5, 4, images).astype(np.float32)
    return Predictions(np.arange(images), truth, best[:, None], margins, 10, np.arange(images) < right)


def with_predictions(result: Result, right: int, images: int = 1000) -> Result:
    return change_facts(result, predictions=packing.pack_predictions(predicting(right, images), None))
