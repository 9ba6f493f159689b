"""From JPEG files to labels: what decoding and the network allow together, and what scaled decoding brings."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image

from benchmarks.stats.comparison import compare_unpaired
from benchmarks.stats.intervals import quantile
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.targets import onnx_file
from runtimes import Classifier, Preprocessing
from runtimes.errors import UsageError
from runtimes.images import prefetch
from runtimes.images.preprocessing import Image, Pixels, fit_image
from runtimes.processors import usable_processors
from scripts.figures.setting import SILENT, VARIANT, Figure, FigureSettings, time_interleaved

LEAST = 0.9
"""The share of what decoding and the network allow together that ``Classifier.predict`` must reach."""

BATCH = 32
LARGE, LARGE_SIZE = 24, (4000, 3000)
"""The number and the size of the photographs that are enlarged to those of a telephone."""


def measure_photos(setting: FigureSettings) -> Iterator[Figure]:
    """``Classifier.predict`` on photographs, against decoding alone and the network alone with all processors."""
    if setting.shared is None or not (setting.shared / "photos.tar").exists():
        raise UsageError("photos needs --shared, the folder with photos.tar", code="shared-folder-missing")
    folder = setting.folder / "photos"
    with tarfile.open(setting.shared / "photos.tar") as archive:
        archive.extractall(folder, filter="data")
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[: setting.limit]
    for spec, backend in ((FP32, "onnxruntime"), (PrecisionSpec("int8"), "openvino")):
        path = onnx_file.export(
            ExportRequest(VARIANTS[VARIANT], f"{setting.folder}/{spec.precision}.onnx"), SILENT, precision_spec=spec
        ).path
        yield _compare_with_parts(setting, path, images, (spec.precision, backend))
        large = _enlarge(images[:LARGE], setting.folder / f"large-{spec.precision}")
        yield _compare_decoding(setting, path, large, (spec.precision, backend))


def _compare_with_parts(setting: FigureSettings, path: Path, images: list[Path], names: tuple[str, str]) -> Figure:
    """Time the whole and its two parts in turn.

    Each part alone keeps all processors busy. So the whole needs at least the sum of both times, if no processor rests.
    """
    precision, backend = names
    with ExitStack() as opened:
        classifier = opened.enter_context(Classifier.open(path, backend))
        single = opened.enter_context(Classifier.open(path, backend, threads=1))
        view = classifier.preprocessing
        ready = list(_batches(images, view))
        calls: dict[str, Callable[[], object]] = {
            "predict": lambda: classifier.predict(images, batch=BATCH),
            "decoding alone": lambda: [None for _ in _batches(images, view)],
            "the network alone": lambda: [classifier.answer(pixels) for pixels in ready],
            "decoding, then the network, batch by batch": lambda: [
                classifier.answer(pixels) for pixels in _decode_first(images, view)
            ],
            "predict with a network of one thread": lambda: single.predict(images, batch=BATCH),
        }
        spent: dict[str, list[float]] = {name: [] for name in calls}
        timed = tuple(partial(_count_cpu, call, spent[name]) for name, call in calls.items())
        samples = dict(zip(calls, time_interleaved(timed, max(3, setting.rounds // 3)), strict=True))
    whole, decoding, network = (quantile(samples[name], 0.5) for name in list(calls)[:3])
    count, share = len(images), (decoding + network) / whole
    notes = [
        f"{name}: {count / quantile(values, 0.5):,.1f} images/s, {1e3 * quantile(values, 0.5) / count:.2f} ms each, "
        f"{1e3 * quantile(spent[name][1:], 0.5) / count:.2f} ms of processor time"
        for name, values in samples.items()
    ]
    best = count / max(decoding, network)
    notes.append(f"the slower part alone: {best:,.1f} images/s, of which predict has {count / whole / best:.3f}")
    return Figure(
        f"JPEG to label, {VARIANT} {precision} on {backend}, {count} photographs, {usable_processors()} processors",
        f"{share:.3f} of the {count / (decoding + network):,.1f} images/s that decoding and the network allow together",
        f">= {LEAST}",
        share >= LEAST,
        tuple(notes),
    )


def _batches(images: list[Path], view: Preprocessing) -> Iterator[Pixels]:
    """Yield batches of fitted images, which all processors decode."""
    paths: list[Image] = list(images)
    for batch in prefetch.prefetch(paths, BATCH, lambda _, image: fit_image(image, view)):
        yield np.stack(batch)


def _decode_first(images: list[Path], view: Preprocessing) -> Iterator[Pixels]:
    """Yield batches that are decoded by all processors while the network rests."""
    for first in range(0, len(images), BATCH):
        yield from _batches(images[first : first + BATCH], view)


def _count_cpu(call: Callable[[], object], spent: list[float]) -> None:
    before = time.process_time()
    call()
    spent.append(time.process_time() - before)


def _enlarge(images: list[Path], folder: Path) -> list[Path]:
    folder.mkdir()
    paths = []
    for number, path in enumerate(images):
        paths.append(folder / f"{number:03}.jpg")
        with PIL.Image.open(path) as image:
            image.convert("RGB").resize(LARGE_SIZE, PIL.Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def _compare_decoding(setting: FigureSettings, path: Path, images: list[Path], names: tuple[str, str]) -> Figure:
    """Compare scaled with full decoding of large photographs."""
    precision, backend = names
    rounds = max(3, setting.rounds // 3)
    with Classifier.open(path, backend) as full:
        scaled = Classifier(full.runtime, replace(full.preprocessing, scaled_decoding=True), full.names)
        expected, found = (each.predict(images, top=1000, batch=8) for each in (full, scaled))
        ours, bare = time_interleaved(
            (lambda: scaled.predict(images, batch=8), lambda: full.predict(images, batch=8)), rounds
        )
    same = sum(left.label == right.label for left, right in zip(found, expected, strict=True))
    changes = [
        abs(left.probability - {label.index: label.probability for label in other.labels}[left.index])
        for one, other in zip(found, expected, strict=True)
        for left in one.labels
    ]
    compared = compare_unpaired([[bare]], [[ours]])
    (low, high), count = compared.interval, len(images)
    value = (
        f"{compared.ratio:.2f} x [{low:.2f}, {high:.2f}] the images/s, {count / quantile(ours, 0.5):,.1f} against "
        f"{count / quantile(bare, 0.5):,.1f}; {same} of {count} predictions are the same, and a probability changes by "
        f"at most {max(changes):.2g}"
    )
    size = f"{LARGE_SIZE[0]} x {LARGE_SIZE[1]}"
    return Figure(
        f"scaled against full decoding, {VARIANT} {precision} on {backend}, photographs of {size}",
        value,
        "stated",
        True,
    )
