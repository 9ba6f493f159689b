"""What the forms that more runtimes open cost the two that rexport embeds: the same network with and without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np

import runtimes
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.precision import integer_forms
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file
from scripts.figures.setting import SILENT, Figure, FigureSettings, ratio, time_interleaved

BATCHES = (1, 32)

CALLS = 20
"""The number of pairs for each round of the settings."""

BOUND = 1.02
"""The largest ratio of the latencies."""


def measure_graph_forms(setting: FigureSettings) -> Iterator[Figure]:
    """Latency of the bundled ResNet-20, one thread: pooled and unsigned, against strided slices and mixed signs."""
    for precision in ("fp32", "int8"):
        ours, former = (export(setting.folder, precision, name) for name in ("ours", "former"))
        for backend in ("onnxruntime", "openvino"):
            with runtimes.open(ours, backend, threads=1) as new, runtimes.open(former, backend, threads=1) as old:
                for batch in BATCHES:
                    images = np.random.default_rng(0).standard_normal((batch, 3, 32, 32)).astype(np.float32)
                    feeds = {"input": images}
                    yield same_logits(f"{precision} on {backend}, batch {batch}", new, old, images)
                    calls = new.bind(feeds), old.bind(feeds)
                    new_s, old_s = time_interleaved(calls, setting.rounds * CALLS)
                    yield ratio(f"resnet20 {precision} on {backend}, batch {batch}", new_s, old_s, BOUND)


def export(folder: Path, precision: str, name: str) -> Path:
    """Export the network; as ``former``, with strided slices, signed activations and shared dequantisers."""
    request = ExportRequest(VARIANTS["resnet20"], f"{folder}/{name}-{precision}.onnx", weights="bundled")
    with ExitStack() as stack:
        if name == "former":
            stack.enter_context(mock.patch.object(onnx_file, "pool_strided_slices", lambda graph: graph))
            for step in ("convert_to_unsigned", "separate_dequantisers"):
                stack.enter_context(mock.patch.object(integer_forms, step))
        return onnx_file.export(request, SILENT, precision_spec=PrecisionSpec(precision)).path


def same_logits(name: str, new: runtimes.Runtime, old: runtimes.Runtime, images: np.ndarray) -> Figure:
    """Compare the logits of both graphs, bit for bit."""
    ours, former = (runtime.infer({"input": images})["logits"] for runtime in (new, old))
    largest = float(np.abs(ours - former).max())
    return Figure(f"resnet20 {name}: largest difference of a logit", f"{largest:.1e}", "0", largest == 0)
