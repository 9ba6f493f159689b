"""Small labelling jobs: folders of images, requests, and the rows that a job wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from runtimes.backends.fake import Script
from runtimes.labelling.driver import JobProgress
from runtimes.labelling.executor import Executor
from runtimes.labelling.in_process import InProcessExecutor
from runtimes.labelling.job import LabellingJob
from runtimes.labelling.label import ErrorLimit, JobListener, LabellingRequest, LabellingResult, label
from runtimes.labelling.work import WorkerSettings
from runtimes.tensors.spec import TensorSpec
from tests.samples import SCRIPT

WITH_FEATURES = replace(SCRIPT, outputs=(*SCRIPT.outputs, TensorSpec("features", "float32", ("batch", 4))))
ANY_ERRORS = ErrorLimit(1.0, is_share=True)


def slow(delay_s: float) -> Script:
    """A network whose calls take this long."""
    return replace(SCRIPT, delays_s=(delay_s,))


def write_images(folder: Path, count: int, classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    """Writes images of 8 x 8 pixels into a folder for each class."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / classes[number % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(place / f"{number:04}.png")
    return folder


def request(source: Path | str, artifact: Path, out: Path | str, **changes: Any) -> LabellingRequest:
    """A request of small shards, in batches of 4."""
    values: dict[str, Any] = {"shard": 10, "batch": 4, "threads": 1, "max_errors": ANY_ERRORS} | changes
    return LabellingRequest(str(source), artifact, str(out), **values)


def run(
    asked: LabellingRequest,
    executor: Callable[[WorkerSettings], Executor] = InProcessExecutor,
    progress: Callable[[LabellingJob, JobProgress], None] = lambda *_: None,
) -> LabellingResult:
    """Runs a job in silence."""
    return label(asked, executor, JobListener(progress=progress))


def rows(out: Path | str) -> list[dict[str, Any]]:
    """The rows of all parts, in the order of the listing, read as any reader of Parquet does."""
    from pyarrow import dataset

    found: list[dict[str, Any]] = dataset.dataset(str(out), format="parquet").to_table().to_pylist()
    return found


def digests(out: Path) -> dict[str, str]:
    """The SHA-256 of each file of an output folder."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }
