"""Whether the columns of a GPU say what they claim: the same as trtexec, no launch in the device time, true rates."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np

import runtimes
from benchmarks.analysis.figures import Figures
from benchmarks.analysis.limits import PARITY
from benchmarks.commands.options import TRTEXEC, TRTEXEC_FOLDER
from benchmarks.records.request import BenchmarkRequest as RunRequest
from benchmarks.stats.intervals import quantile
from benchmarks.worker.throughput import ConcurrentCalls
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file
from runtimes.runtime import example
from runtimes.tensors import cuda
from scripts.figures.setting import SILENT, VARIANT, Figure, FigureSettings, measure, time_interleaved

BATCHES = (1, 8, 64)

RATE_BOUND = (0.9, 1.1)
"""The rate of one thread over that of a plain loop."""

WINDOW_S = 0.5


def measure_gpu_columns(setting: FigureSettings) -> Iterator[Figure]:
    """The parity of TensorRT's rows with trtexec, and the device time of all rows against inference only, on a GPU; and
    on any machine the rate of one stream against a plain loop."""
    yield _one_stream(setting)
    missing = cuda.missing()
    if missing is not None:
        yield Figure("device ms and trtexec", f"not measured: {missing}", f"{PARITY[0]} to {PARITY[1]}", holds=False)
        return
    program = shutil.which(TRTEXEC) or shutil.which(TRTEXEC, path=str(TRTEXEC_FOLDER))
    request = RunRequest(
        (VARIANT,),
        device="cuda",
        precisions=("fp16",),
        batches=BATCHES,
        trtexec=program,
        duration_s=1.0,
        roofline=False,
    )
    for figures in measure(request):
        if figures.result.status == "ok":
            yield from _of_row(figures)


def _of_row(figures: Figures) -> Iterator[Figure]:
    identity, device, compute = figures.result.identity, figures.device_p50, figures.compute_p50
    name = f"{identity.backend} {identity.precision}, batch {identity.batch}"
    if device is None or compute is None:
        return
    value = f"{1e3 * device.value:.4g} ms of {1e3 * compute.value:.4g} ms"
    yield Figure(f"device ms of inference only ms, {name}", value, "<= 1.05 x", device.value <= 1.05 * compute.value)
    if figures.trtexec_ratio is not None:
        holds = PARITY[0] <= figures.trtexec_ratio <= PARITY[1]
        ratio = f"{figures.trtexec_ratio:.3f} x"
        yield Figure(f"trtexec of device ms, {name}", ratio, f"{PARITY[0]} to {PARITY[1]} x", holds)


def _one_stream(setting: FigureSettings) -> Figure:
    """Windows of ``ConcurrentCalls`` with one thread, and calls in a loop, in turn."""
    request = ExportRequest(variant("resnet20"), str(setting.folder / "columns.onnx"), weights="bundled")
    with runtimes.open(onnx_file.export(request, SILENT).path, "onnxruntime") as runtime:
        feeds = example(runtime)
        calls = ConcurrentCalls(runtime.infer, [feeds], [runtime.infer(feeds)], 1)
        windows, loop = time_interleaved(
            (lambda: calls.turn(WINDOW_S), lambda: [runtime.infer(feeds) for _ in range(200)]), setting.rounds
        )
        rates = calls.series().rates_per_s[-len(windows) :]
    ratios = [rate * taken / 200 for rate, taken in zip(rates, loop, strict=True)]
    ratio = quantile(ratios, 0.5)
    spread = f"[{np.min(ratios):.3f}, {np.max(ratios):.3f}]"
    bound = f"{RATE_BOUND[0]} to {RATE_BOUND[1]} x"
    return Figure(
        "the rate of one stream of a plain loop",
        f"{ratio:.3f} x {spread}",
        bound,
        RATE_BOUND[0] <= ratio <= RATE_BOUND[1],
    )
