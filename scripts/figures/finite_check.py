"""What the test for NaN and infinity in the inputs costs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import runtimes
from exporter.models.variants import VARIANTS
from exporter.network import ExportRequest
from exporter.targets import onnx_file
from scripts.figures.setting import SILENT, Figure, FigureSettings, ratio, time_interleaved

NETWORKS = ("resnet20", "resnet50")
BATCHES = (1, 64)
LIMIT = 1.02
"""The largest ratio of a call with the test to one without it."""


def measure_finite_check(setting: FigureSettings) -> Iterator[Figure]:
    """``Runtime.infer`` with the test against ``Runtime.infer`` of a runtime that was opened without it."""
    for name in NETWORKS:
        path = onnx_file.export(ExportRequest(VARIANTS[name], f"{setting.folder}/", force=True), SILENT).path
        with runtimes.open(path) as checked, runtimes.open(path, check_finite=False) as unchecked:
            (spec,) = checked.inputs
            sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
            for batch in BATCHES:
                images = np.random.default_rng(0).standard_normal((batch, *sizes)).astype(np.float32)
                feeds = {spec.name: images}
                ours, bare = time_interleaved(
                    (lambda feeds=feeds: checked.infer(feeds), lambda feeds=feeds: unchecked.infer(feeds)),  # type: ignore[misc]
                    setting.rounds * (20 if batch == 1 else 2),
                )
                yield ratio(f"Runtime.infer with and without check_finite, {name} batch {batch}", ours, bare, LIMIT)
