"""What the test for NaN and infinity in the inputs costs."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import Runtime
from runtimes.backends.onnxruntime import backend as onnxrt
from runtimes.processors import usable_processors
from runtimes.protocol import Options
from scripts.figures.setting import SILENT, Figure, FigureSettings, ratio, time_interleaved

NETWORKS = ("resnet20", "resnet50")
BATCHES = (1, 64)
LIMIT = 1.02
"""The largest ratio of a call with the test to one without it."""


def measure_finite_check(setting: FigureSettings) -> Iterator[Figure]:
    """``Runtime.infer`` with the test against ``Runtime.infer`` without it."""
    for name in NETWORKS:
        artifact = onnx_file.export(ExportRequest(VARIANTS[name], f"{setting.folder}/", force=True), SILENT)
        session = onnxrt.BACKEND.open(artifact, Options("cpu", usable_processors()))
        with Runtime(artifact, session) as checked:  # both runtimes run the very same session
            unchecked = Runtime(artifact, session, check_finite=False)
            (spec,) = checked.inputs
            sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
            for batch in BATCHES:
                images = np.random.default_rng(0).standard_normal((batch, *sizes)).astype(np.float32)
                calls = [functools.partial(runtime.infer, {spec.name: images}) for runtime in (checked, unchecked)]
                ours, bare = time_interleaved((calls[0], calls[1]), setting.rounds * (20 if batch == 1 else 2))
                yield ratio(f"Runtime.infer with and without check_finite, {name} batch {batch}", ours, bare, LIMIT)
