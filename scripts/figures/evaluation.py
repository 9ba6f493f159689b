"""What evaluating accuracy costs beside the runs of the network."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.process.job import Job
from benchmarks.records.plan import Plan
from benchmarks.stats.comparison import compare_unpaired
from benchmarks.stats.intervals import quantile
from benchmarks.worker import evaluate, inputs
from exporter.data.opening import BUNDLED_NAME
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import Runtime
from runtimes.backends.onnxruntime import backend as onnxrt
from runtimes.processors import usable_processors
from runtimes.protocol import Options
from scripts.figures.setting import SILENT, Figure, FigureSettings, time_interleaved

LEAST = 0.97
"""Of the plain loop's images a second."""

Classes = NDArray[np.int64]


def evaluation(setting: FigureSettings) -> Iterator[Figure]:
    """rbench's evaluation, which begins at the file of images, against ``InferenceSession.run`` of the very same
    session, and ``argmax``, over batches that lie ready in memory."""
    artifact = onnx_file.export(
        ExportRequest(VARIANTS["resnet20"], f"{setting.folder}/", weights="bundled", force=True), SILENT
    )
    threads = usable_processors()
    session = onnxrt.BACKEND.open(artifact, Options("cpu", threads))
    if not isinstance(session, onnxrt.OnnxRuntimeSession):
        raise TypeError(f"not ONNX Runtime's session: {type(session)}")
    job = Job(
        str(artifact.path), "onnxruntime", "cpu", threads, 1, BUNDLED_NAME, setting.limit, True, seed=0, plan=Plan(1.0)
    )
    with Runtime(artifact, session) as runtime, open(os.devnull, "w", buffering=1, encoding="utf-8") as channel:
        name, ready = runtime.inputs[0].name, [images for _, images in inputs.evaluation(job, runtime, []).batches]

        def step(line: str) -> None:
            channel.write(line + "\n")

        def evaluate_with_rexport() -> Classes:
            return evaluate.evaluate(job, runtime, [], step).best[:, 0]

        def evaluate_directly() -> Classes:
            return np.concatenate([session.native.run(None, {name: images})[0].argmax(axis=1) for images in ready])

        same = bool((evaluate_with_rexport() == evaluate_directly()).all())
        mine, plain = time_interleaved((evaluate_with_rexport, evaluate_directly), max(3, setting.rounds // 3))
    yield _figure(sum(map(len, ready)), mine, plain, same)


def _figure(images: int, ours: list[float], bare: list[float], same: bool) -> Figure:
    compared = compare_unpaired([[bare]], [[ours]])
    ratio, (low, high) = compared.ratio, compared.interval
    value = (
        f"{ratio:.3f} x [{low:.3f}, {high:.3f}], {images / quantile(ours, 0.5):,.0f} against "
        f"{images / quantile(bare, 0.5):,.0f} images/s, {images:,} images, {len(ours)} pairs"
    )
    notes = () if same else ("the two loops do not give the same classes",)
    name = "images/s of the evaluation against a plain loop over arrays in memory, resnet20 on onnxruntime"
    return Figure(name, value, f">= {LEAST} x", same and ratio >= LEAST, notes)
