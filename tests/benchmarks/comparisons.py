"""Rows of several runs to compare, and what comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.accuracy import packing
from benchmarks.accuracy.predictions import Predictions
from benchmarks.compare import integrity
from benchmarks.compare.compare import ComparisonReport, Limits, compare
from benchmarks.records.result import Row
from exporter.proportions import wilson
from runtimes import codec
from tests.benchmarks.rows import FASTER, images_per_s, sittings

LATER = "2026-02-03T04:05:06+00:00"


def taken(p50_s: float, seed: int, like: Row = FASTER) -> Row:
    """A row of its own run whose samples and figures have that median."""
    samples = sittings(p50_s, 1.08 * p50_s, 1.3 * p50_s, p50_s, seed=seed)
    return figured(replace(like, run=f"run {seed}", sittings=samples, device_p50_s=None))


def figured(row: Row) -> Row:
    """The row with the figures of its sittings."""
    figures = {name: figure(row, q) for name, q in integrity.LATENCIES.items() if name != "p999_s"}
    first = row.sittings[0]
    return replace(
        row,
        **figures,  # type: ignore[arg-type]
        compute_p50_s=median(row),
        images_per_s=images_per_s(row.batch, row.sittings),
        load_s=first.load_s,
        first_s=first.first_s,
        peak_bytes=first.peak_bytes,
        baseline_bytes=first.baseline_bytes,
    )


def figure(row: Row, q: float) -> float:
    return float(np.quantile([sample for sitting in row.sittings for sample in sitting.latency.samples_s], q))


def median(row: Row) -> float:
    return float(np.median([sample for sitting in row.sittings for sample in sitting.compute.samples_s]))


OLD = taken(0.0004, 1)
SAME = taken(0.0004, 2)
SLOWER = taken(0.00044, 3)


def file(path: Path, *rows: Row) -> Path:
    path.write_text("".join(codec.dumps(row) + "\n" for row in rows))
    return path


def compared(folder: Path, old: Sequence[Row], new: Sequence[Row], limits: Limits | None = None) -> ComparisonReport:
    return compare(file(folder / "old.jsonl", *old), file(folder / "new.jsonl", *new), limits or Limits())


def answered(right: int, images: int = 1000, seed: int = 0) -> Predictions:
    """Answers to ``images`` questions of ten classes, the last ones wrong."""
    truth = np.arange(images) % 10
    best = np.where(np.arange(images) < right, truth, (truth + 1) % 10)
    margins = np.random.default_rng(seed).uniform(0.5, 4, images).astype(np.float32)
    return Predictions(np.arange(images), truth, best[:, None], margins, 10, np.arange(images) < right)


def with_answers(row: Row, right: int, images: int = 1000) -> Row:
    packed = packing.pack_predictions(answered(right, images), None)
    interval = wilson(right, images)
    return replace(
        row,
        answers=packed,
        top1=right / images,
        top1_interval=interval,
        top5=right / images,
        top5_interval=interval,
        images=images,
    )
