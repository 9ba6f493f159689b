"""``rexport label`` with two workers on Ray against a plain loop over ``Classifier.predict`` with two threads."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.stats.comparison import compare_unpaired
from benchmarks.stats.intervals import quantile
from runtimes import Classifier
from runtimes.labelling.driver import JobProgress
from runtimes.labelling.job import LabellingJob
from runtimes.labelling.label import JobListener, LabellingRequest, label
from runtimes.labelling.onray import RayExecutor
from runtimes.labelling.rayaddress import RayAddress
from runtimes.labelling.raycluster import RaySettings, connect
from runtimes.labelling.work import WorkerSettings
from scripts.figures.labelled_images import export_bundled, write_images
from scripts.figures.setting import Figure, FigureSettings

IMAGES, SHARD, BATCH, WORKERS = 10_000, 500, 32, 2
LEAST = 0.95


def measure_ray(setting: FigureSettings) -> Iterator[Figure]:
    """The time from the moment when all workers are ready to the last shard, and the start-up apart."""
    artifact, count = export_bundled(setting.folder), setting.limit or IMAGES
    images = write_images(setting.folder, count)
    ours, bare, openings = list[float](), list[float](), list[float]()
    began_s = time.perf_counter()
    settings = RaySettings(RayAddress(None, None, local=True), WORKERS)
    with connect(settings, 1), Classifier.open(artifact, threads=WORKERS) as classifier:
        connected_s = time.perf_counter() - began_s
        for number in range(setting.rounds + 1):
            pair: list[tuple[float, float]] = [(0.0, 0.0)] * 2
            for side in (0, 1) if number % 2 else (1, 0):
                pair[side] = _label(artifact, images, settings) if side == 0 else (_predict(classifier, images), 0.0)
            if number:  # the first pair warms up
                ours.append(pair[0][0])
                bare.append(pair[1][0])
                openings.append(pair[0][1])
    compared = compare_unpaired([[bare]], [[ours]])
    low, high = compared.interval
    value = (
        f"{compared.ratio:.3f} x [{low:.3f}, {high:.3f}], medians {count / quantile(ours, 0.5):,.0f} images/s against "
        f"{count / quantile(bare, 0.5):,.0f}, {len(ours)} pairs of {count:,} images"
    )
    start = f"start-up: {connected_s:.1f} s for Ray, {quantile(openings, 0.5):.1f} s for workers and model (median)"
    name = f"throughput of label --ray local, {WORKERS} workers of 1 thread, over a plain loop of {WORKERS} threads"
    yield Figure(name, value, f">= {LEAST} x", compared.ratio >= LEAST, (start,))


def _predict(classifier: Classifier, images: Path) -> float:
    """Seconds of the plain loop."""
    paths = sorted(images.iterdir())
    began_s = time.perf_counter()
    for first in range(0, len(paths), BATCH):
        classifier.predict(paths[first : first + BATCH], batch=BATCH)
    return time.perf_counter() - began_s


def _label(artifact: Path, images: Path, settings: RaySettings) -> tuple[float, float]:
    """Seconds from the moment when all workers are ready to the last shard, and those of opening."""
    out = images.parent / "labels"
    shutil.rmtree(out, ignore_errors=True)
    began_s = ready_s = ended_s = 0.0

    def start(worker_settings: WorkerSettings) -> RayExecutor:
        nonlocal began_s, ready_s
        began_s = time.perf_counter()
        executor = RayExecutor.start(worker_settings, settings)
        while executor.ready < WORKERS:
            executor.wait(0.1)
        ready_s = time.perf_counter()
        return executor

    def end(job: LabellingJob, progress: JobProgress) -> None:
        nonlocal ended_s
        if progress.executed == job.images:
            ended_s = time.perf_counter()

    request = LabellingRequest(str(images), artifact, str(out), shard=SHARD, batch=BATCH)
    label(request, start, JobListener(lambda _: None, lambda *_: None, end))
    return ended_s - ready_s, ready_s - began_s
