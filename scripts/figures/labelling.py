"""What ``rexport label`` costs beside a plain loop, and how much memory it needs however long the listing is."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from benchmarks.stats.comparison import compare_unpaired
from benchmarks.stats.intervals import quantile
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import Classifier
from runtimes.labelling.label import LabellingRequest, label
from runtimes.labelling.parts import part_name, read_indices
from runtimes.labelling.stores import LocalStore
from scripts.figures.labelled_images import export_bundled, write_images
from scripts.figures.process_tree import resident_bytes
from scripts.figures.setting import SILENT, Figure, FigureSettings, console_script, time_interleaved

LEAST = 0.97
"""The share of the plain loop's images a second that a job must reach."""

FLAT = 1.05
"""The largest ratio of the memory at the end of a job to the memory after a tenth of it."""

BATCH = 32
JPEGS, JPEG_SIZE = 256, (375, 500)
LISTED, PHOTOS = 1_000_000, 1000
EXTRAPOLATED = 100_000_000


def label_speed(setting: FigureSettings) -> Iterator[Figure]:
    """A whole job, with its listing and its files, against a loop over ``Classifier.predict`` in batches of 32."""
    small = write_images(setting.folder, setting.limit or 10_000)
    large = setting.folder / "large"
    _write_photos(large, min(JPEGS, setting.limit or JPEGS))
    yield _compare_speed(setting, export_bundled(setting.folder), small)
    random = onnx_file.export(ExportRequest(VARIANTS["resnet50"], f"{setting.folder}/"), SILENT).path
    yield _compare_speed(setting, random, large)


def _compare_speed(setting: FigureSettings, artifact: Path, source: Path) -> Figure:
    images = sorted(path for path in source.iterdir())
    runs = iter(range(10**6))

    def run_job() -> Path:
        out = setting.folder / f"labels-{artifact.stem}-{next(runs)}"
        label(LabellingRequest(str(source), artifact, str(out), batch=BATCH))
        return out

    def run_loop() -> list[int]:
        with Classifier.open(artifact) as classifier:
            return [
                prediction.labels[0].index
                for first in range(0, len(images), BATCH)
                for prediction in classifier.predict(images[first : first + BATCH], batch=BATCH)
            ]

    out, expected = run_job(), run_loop()
    shards = range(-(-len(images) // LabellingRequest.shard))
    found = [index for shard in shards for index in read_indices(LocalStore(out), shard)]
    ours, bare = time_interleaved((run_job, run_loop), setting.rounds)
    return _speed(f"{artifact.stem}, {len(images):,} images", len(images), (ours, bare), found == expected)


def _speed(name: str, images: int, samples: tuple[list[float], list[float]], same: bool) -> Figure:
    ours, bare = samples
    compared = compare_unpaired([[bare]], [[ours]])
    ratio, (low, high) = compared.ratio, compared.interval
    value = (
        f"{ratio:.3f} x [{low:.3f}, {high:.3f}], {images / quantile(ours, 0.5):,.0f} against "
        f"{images / quantile(bare, 0.5):,.0f} images/s, {len(ours)} pairs"
    )
    notes = () if same else ("the job and the loop do not give the same classes",)
    return Figure(
        f"images/s of rexport label over a plain loop, {name}", value, f">= {LEAST} x", same and ratio >= LEAST, notes
    )


def _write_photos(folder: Path, count: int) -> None:
    """Write smooth noise as JPEG files of the usual size of a photograph in ImageNet."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = PIL.Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8))
        coarse.resize(JPEG_SIZE[::-1], PIL.Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg", quality=90)


@dataclass(frozen=True)
class MemorySample:
    """The resident memory of a driver and of its workers at a moment of a job.

    Attributes:
        share: The share of the parts that were there.
        driver_bytes: The memory of the driver.
        worker_bytes: The largest memory of a worker.
    """

    share: float
    driver_bytes: int
    worker_bytes: int


def label_memory(setting: FigureSettings) -> Iterator[Figure]:
    """A list of a million paths to a thousand images, by two workers; and the same command when all is done but one
    shard."""
    count = setting.limit or LISTED
    photos = write_images(setting.folder, min(PHOTOS, count))
    paths = sorted(str(path) for path in photos.iterdir())
    listing = setting.folder / "list.txt"
    with listing.open("w", encoding="utf-8") as file:
        file.writelines(f"{paths[number % len(paths)]}\n" for number in range(count))
    artifact = export_bundled(setting.folder)
    out = setting.folder / "labels"
    shard = min(4096, max(1, count // 40))
    command = [console_script("rexport"), "label", str(listing), "-a", str(artifact), "-o", str(out)]
    command += ["--workers", "2", "--threads", "1", "--shard", str(shard)]
    shards = -(-count // shard)
    began_s = time.perf_counter()
    samples = list(_watch(command, out, shards))
    took_s = time.perf_counter() - began_s
    note = f"{count:,} images in {shards} shards, {took_s:,.0f} s, {count / took_s:,.0f} images/s"
    yield _flatness("driver", samples, lambda sample: sample.driver_bytes, note)
    yield _flatness("workers", samples, lambda sample: sample.worker_bytes, note)
    (out / part_name(shards - 1)).unlink()
    began_s = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    resume_s = time.perf_counter() - began_s
    size_bytes = sum(path.stat().st_size for path in (out / "_listing").iterdir())
    yield Figure(
        f"the same command with one of {shards} shards open",
        f"{resume_s:.1f} s for {count:,} images; the listing takes {size_bytes / count:.1f} bytes an image",
        "stated",
        True,
        (_extrapolate(count, took_s, resume_s, size_bytes),),
    )


def _extrapolate(count: int, took_s: float, resume_s: float, size_bytes: int) -> str:
    """Scale the measured values, which grow with the number of images. The memory does not."""
    factor = EXTRAPOLATED / count
    return (
        f"{EXTRAPOLATED:,} images: {factor * took_s / 3600:,.0f} hours on one machine like this, a tenth of it on ten; "
        f"a resume {factor * resume_s / 60:,.0f} minutes; the listing {factor * size_bytes / 1e9:.1f} GB"
    )


def _watch(command: list[str], out: Path, shards: int) -> Iterator[MemorySample]:
    """Run the command and yield the memory of its processes, ten times a second, from the first part on."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            time.sleep(0.1)
            parts = sum(name.startswith("part-") for name in os.listdir(out)) if out.exists() else 0
            workers = [resident_bytes(pid) for pid in _children(process.pid)]
            if parts and workers:
                yield MemorySample(parts / shards, resident_bytes(process.pid), max(workers))
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {process.communicate()[1]}")


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _flatness(who: str, samples: list[MemorySample], memory: Callable[[MemorySample], int], note: str) -> Figure:
    """Compare the last tenth of a job with the second tenth, by the medians."""
    early = [memory(sample) for sample in samples if 0.1 <= sample.share < 0.2]
    late = [memory(sample) for sample in samples if sample.share >= 0.9 and memory(sample)]
    before, after = (float(np.median(values)) / 2**20 for values in (early, late))
    ratio = after / before
    return Figure(
        f"memory of the {who} of rexport label at the end against after a tenth of the job",
        f"{ratio:.3f} x, {after:.0f} MiB against {before:.0f} MiB, at most {max(map(memory, samples)) / 2**20:.0f} MiB",
        f"<= {FLAT} x",
        ratio <= FLAT,
        (note,),
    )
