"""Where an int8 network loses against the int8 roof of the machine: options of OpenVINO, and groups of layers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import runtimes
from benchmarks.roofline.matmul import products
from benchmarks.stats.comparison import compare_unpaired
from benchmarks.stats.intervals import quantile
from exporter.data.noise import noise
from exporter.export_request import ExportRequest
from exporter.models.layers import VariantLayer, layers
from exporter.models.variants import VARIANTS
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file
from runtimes.errors import RexportError
from runtimes.processors import usable_processors
from runtimes.protocol import Array
from scripts.figures.setting import SILENT, VARIANT, Figure, FigureSettings, time_interleaved

if TYPE_CHECKING:
    import openvino

BATCHES = (1, 8)
SIZES = (1024, 2048, 4096)
"""The sizes of the square int8 products, the fastest of which is the roof. They take turns with the network."""

PROFILES = 5
"""The number of profiles of the layers; the least time of each layer counts."""

ARITHMETIC = "int8"


@dataclass(frozen=True)
class Trial:
    """A way to run the network in OpenVINO.

    Attributes:
        name: What differs from the way of ``runtimes.open``.
        settings: The settings of OpenVINO that differ.
        change: Changes the model before it is compiled, for a batch size.
        requests: The number of calls at the same time.
        threads: The number of threads, or 0 for all.
    """

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)
    change: Callable[[Any, int], Any] = lambda model, batch: model  # noqa: ARG005
    requests: int = 1
    threads: int = 0


def _fix_batch(model: openvino.Model, batch: int) -> openvino.Model:
    model.reshape([batch, 3, 224, 224])
    return model


def _take_pixels(model: openvino.Model, batch: int) -> openvino.Model:
    """Let the model take raw pixels: uint8, channels last, normalised in the graph."""
    import openvino

    steps = openvino.preprocess.PrePostProcessor(_fix_batch(model, batch))
    pixels = steps.input(0)
    pixels.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    pixels.model().set_layout(openvino.Layout("NCHW"))
    scale = [255 * value for value in (0.229, 0.224, 0.225)]
    mean = [255 * value for value in (0.485, 0.456, 0.406)]
    pixels.preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(scale)
    return steps.build()


TRIALS = (
    Trial("as runtimes.open runs it"),
    Trial("the batch is fixed in the graph", change=_fix_batch),
    Trial("raw pixels at the input, batch fixed", change=_take_pixels),
    Trial("float layers in bfloat16", {"INFERENCE_PRECISION_HINT": "bf16"}),
    Trial("threads not pinned", {"ENABLE_CPU_PINNING": False}),
    Trial("denormal numbers flushed", {"CPU_DENORMALS_OPTIMIZATION": True}),
    Trial("one thread, against the roof of one", threads=1),
    Trial("a stream and a call for each thread", {"NUM_STREAMS": usable_processors()}, requests=usable_processors()),
)


def measure_int8_roof(setting: FigureSettings) -> Iterator[Figure]:
    """The int8 network in OpenVINO against int8 matrix products, interleaved: in ways to run it, and by layers."""
    path = onnx_file.export(
        ExportRequest(VARIANTS[VARIANT], f"{setting.folder}/", force=True),
        SILENT,
        precision_spec=PrecisionSpec(ARITHMETIC),
    ).path
    for batch in BATCHES:
        yield _measure_batch(setting, path, batch)


@dataclass(frozen=True)
class Measured:
    """The samples of a batch size.

    Attributes:
        trials: The seconds of a call by the name of the trial.
        roof: The highest rate of the products, multiply-adds a second, with all threads.
        roof_of_one: The same with one thread.
        method: The product that gave ``roof``.
    """

    trials: Mapping[str, list[float]]
    roof: float
    roof_of_one: float
    method: str


def _measure_batch(setting: FigureSettings, path: Path, batch: int) -> Figure:
    multiply_adds = batch * sum(layer.multiply_adds for layer in layers(VARIANTS[VARIANT]))
    measured = _measure(setting, path, batch)
    first, *_ = measured.trials.values()
    share = multiply_adds / quantile(first, 0.5) / measured.roof
    notes = [
        f"roof: {measured.roof / 1e9:,.0f} G multiply-adds/s ({measured.method}); {measured.roof_of_one / 1e9:,.0f} "
        "with one thread",
        f"{multiply_adds / 1e9:.2f} G multiply-adds a call, {1e3 * multiply_adds / measured.roof:.2f} ms at the roof",
    ]
    for trial in TRIALS:
        if trial.name not in measured.trials:
            notes.append(f"{trial.name}: cannot be run here")
            continue
        samples = measured.trials[trial.name]
        compared = compare_unpaired([[first]], [[samples]])
        rate = trial.requests * multiply_adds / quantile(samples, 0.5)
        roof = measured.roof_of_one if trial.threads else measured.roof
        low, high = compared.interval
        notes.append(
            f"{trial.name}: {1e3 * quantile(samples, 0.5):.2f} ms a call, {rate / roof:.2f} of the roof, "
            f"time {1 / compared.ratio:.3f} x [{1 / high:.3f}, {1 / low:.3f}] for {trial.requests} call(s)"
        )
    notes += _profile_notes(path, batch, quantile(first, 0.5), measured.roof)
    return Figure(
        f"share of the int8 roof, {VARIANT} in OpenVINO, batch {batch}", f"{share:.2f}", "stated", True, tuple(notes)
    )


def _measure(setting: FigureSettings, path: Path, batch: int) -> Measured:
    """Time the trials and the products in turn."""
    threads = usable_processors()
    with ExitStack() as opened:
        calls: dict[str, Callable[[], object]] = {}
        for trial in TRIALS:
            call = _compile(trial, path, batch, threads)
            if call is not None:
                calls[trial.name] = call
        squares = {}
        for count in dict.fromkeys((threads, 1)):
            folder = setting.folder / f"products-{batch}-{count}"
            folder.mkdir()
            for product in products(count, "cpu", (ARITHMETIC,), folder):
                if product.library == "PyTorch":  # slower, and it would take the threads of the process
                    continue
                try:
                    product.check()
                    for size in SIZES:
                        squares[product.library, size, count] = opened.enter_context(product.make(size))
                except RexportError:
                    continue
        rounds = max(5, setting.rounds * (4 if batch == 1 else 1))
        samples = time_interleaved((*calls.values(), *squares.values()), rounds)
    rates = {
        key: key[1] ** 3 / quantile(values, 0.5) for key, values in zip(squares, samples[len(calls) :], strict=True)
    }
    best = max((key for key in rates if key[2] == threads), key=rates.__getitem__)
    one = max(rate for key, rate in rates.items() if key[2] == 1)
    return Measured(
        dict(zip(calls, samples, strict=False)),
        rates[best],
        one,
        f"{best[0]}, {best[1]} x {best[1]}, {threads} threads",
    )


def _compile(trial: Trial, path: Path, batch: int, threads: int) -> Callable[[], object] | None:
    """Return a function that makes the calls of a trial and waits for them, or ``None`` if it cannot run here."""
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": trial.threads or threads,
    } | dict(trial.settings)
    if trial.settings.get("INFERENCE_PRECISION_HINT") == "bf16":
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return None
        settings["EXECUTION_MODE_HINT"] = "PERFORMANCE"
    compiled = core.compile_model(trial.change(core.read_model(path), batch), "CPU", settings)
    pixels = compiled.inputs[0].get_element_type() == openvino.Type.u8
    x: Array = (
        np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
        if pixels
        else noise((batch, 3, 224, 224), 1)
    )
    requests = [compiled.create_infer_request() for _ in range(trial.requests)]
    for request in requests:
        request.infer([x], share_inputs=True)
    if len(requests) == 1:
        return partial(requests[0].infer, share_outputs=True)
    return partial(_run_together, requests)


def _run_together(requests: list[openvino.InferRequest]) -> None:
    for request in requests:
        request.start_async()
    for request in requests:
        request.wait()


def _profile_notes(path: Path, batch: int, call_s: float, roof: float) -> Iterator[str]:
    """Yield a line for each group of layers, those that lose most time against the roof first."""
    known = {layer.name: layer for layer in layers(VARIANTS[VARIANT])}
    feeds = {"input": noise((batch, 3, 224, 224), 1)}
    runs = [runtimes.profile(path, feeds, "openvino", batch=batch) for _ in range(PROFILES)]
    durations: dict[str, float] = defaultdict(float)
    work: dict[str, int] = defaultdict(int)
    moved: dict[str, int] = defaultdict(int)
    least: dict[tuple[str, str], float] = {}
    for step in (step for run in runs for step in run):  # a step of less than a microsecond is left out of a profile
        key = step.name, step.operator
        least[key] = min(step.duration_s or 0.0, least.get(key, math.inf))
    for (name, operator), duration_s in least.items():
        layer = known.get(name.rpartition("/")[0])
        group = f"not a layer: {operator}" if layer is None or operator not in _LAYERS else _group(layer)
        durations[group] += duration_s
        if layer is not None and operator in _LAYERS:
            work[group] += batch * layer.multiply_adds
            moved[group] += _bytes_moved(layer, batch)
    total = sum(durations.values())
    yield (
        f"layers: {1e3 * total:.2f} ms in all, {total / call_s:.2f} of the call's {1e3 * call_s:.2f} ms (the rest is "
        "between the layers, and the profiler's own error)"
    )
    lost = {group: duration - work[group] / roof for group, duration in durations.items()}
    for group in sorted(durations, key=lost.__getitem__, reverse=True):
        reached = f"{work[group] / durations[group] / roof:.2f} of the roof" if durations[group] else "no time"
        density = f", {work[group] / moved[group]:,.0f} multiply-adds a byte" if moved[group] else ""
        yield (
            f"{group}: {1e3 * durations[group]:.3f} ms, {reached}{density}, loses {1e3 * lost[group]:.3f} ms = "
            f"{lost[group] / total:.1%} of the layers' time"
        )


_LAYERS = ("Convolution", "FullyConnected", "MatMul")
"""OpenVINO's names of the steps that multiply."""


def _group(layer: VariantLayer) -> str:
    """Return the stage of a layer and its place in the block."""
    if not layer.kernel:
        return "classifier"
    place = layer.name.rpartition(".")[2] if "downsample" not in layer.name else "shortcut"
    kernel = "x".join(map(str, layer.kernel))
    added = " with the residual addition" if place == "conv3" else ""
    return f"{layer.stage} {place} {kernel} stride {layer.stride}{added}"


def _bytes_moved(layer: VariantLayer, batch: int) -> int:
    """Return the bytes of weights, inputs and outputs of a layer, in 8 bits each."""
    area = int(np.prod(layer.out_size)) if layer.out_size else 1
    inputs = layer.in_channels * area * layer.stride**2
    sums = layer.out_channels * area if layer.name.endswith("conv3") else 0
    return int(np.prod(layer.shape)) + batch * (inputs + layer.out_channels * area + sums)
