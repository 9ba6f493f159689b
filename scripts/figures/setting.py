"""How a figure is taken: what it runs on, ratios of interleaved samples, and rows of rbench."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.analysis.figures import Figures
from benchmarks.harness.run import run
from benchmarks.records.request import BenchmarkRequest as RunRequest
from benchmarks.records.request import RunListener as RunListener
from benchmarks.stats.comparison import compare_unpaired
from benchmarks.stats.intervals import quantile
from exporter.export_request import ExportListener
from exporter.preprocessing.options import PreprocessingOptions

VARIANT = "resnet50"
IMAGENET_STATISTICS = PreprocessingOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SILENT = ExportListener(step=lambda _: None, notice=lambda _: None)


@dataclass(frozen=True)
class FigureSettings:
    """``folder`` for what is exported, ``rounds`` of pairs, ``shared`` the folder of the CIFAR-10 files and of
    ``photos.tar``, ``limit`` of images, requests, writers, kills or signals for a trial."""

    folder: Path
    rounds: int
    shared: Path | None
    limit: int | None = None


@dataclass(frozen=True)
class Figure:
    """One measured value, and whether it is within its bound; ``notes`` explain it, a line each."""

    name: str
    value: str
    bound: str
    holds: bool
    notes: tuple[str, ...] = ()


def ratio(name: str, ours: list[float], bare: list[float], bound: float) -> Figure:
    compared = compare_unpaired([[ours]], [[bare]])
    ratio, (low, high) = compared.ratio, compared.interval
    value = (
        f"{ratio:.3f} x [{low:.3f}, {high:.3f}], medians {quantile(ours, 0.5) * 1e3:.1f} ms against "
        f"{quantile(bare, 0.5) * 1e3:.1f} ms, {len(ours)} pairs"
    )
    return Figure(name, value, f"<= {bound} x", ratio <= bound)


def time_interleaved(calls: tuple[Callable[[], object], ...], rounds: int) -> list[list[float]]:
    """Seconds of each call, ``rounds`` times, in turn and in turned order, after one round that is not counted."""
    samples: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        order = range(len(calls)) if number % 2 else reversed(range(len(calls)))
        for index in order:
            start = time.perf_counter()
            calls[index]()
            elapsed = time.perf_counter() - start
            if number:
                samples[index].append(elapsed)
    return samples


def process(*command: str) -> Callable[[], object]:
    """A call that runs the command to its end.

    Python may keep its bytecode, as pip does for all that it installs: ours is then compiled once and not each time.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run(command, check=True, capture_output=True, env=kept)


def console_script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def measure(request: RunRequest) -> list[Figures]:
    """What came of it, without what was skipped."""
    results = list(run(request, RunListener(step=lambda *_: None, notice=lambda _: None)))
    return [figures for figures in Figures.of_all(results) if figures.result.status != "skipped"]
