"""What a narrower precision brings and what it costs: speed against PyTorch, other quantisers, fp32; top-1 lost."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.figures import Figures, negate
from benchmarks.analysis.ranking import name
from benchmarks.format import points
from benchmarks.records.request import REFERENCE
from benchmarks.records.request import BenchmarkRequest as RunRequest
from benchmarks.records.result import Estimate
from exporter.data.noise import noise
from exporter.export_request import ExportRequest
from exporter.models.layers import multiply_adds
from exporter.models.variants import VARIANTS
from exporter.network import prepare
from exporter.precision.calibration_images import for_calibration
from exporter.precision.quantise import quantiser
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.targets import onnx_file
from exporter.weights.sources import IMAGENET_PREPROCESSING, scale_preprocessing
from runtimes import Artifact, Classifier, Runtime
from runtimes.backends import openvino as openvino_backend
from runtimes.errors import UsageError
from runtimes.images.preprocessing import fit_image
from runtimes.processors import usable_processors
from runtimes.protocol import Options
from scripts.figures.setting import (
    IMAGENET_STATISTICS,
    SILENT,
    VARIANT,
    Figure,
    FigureSettings,
    console_script,
    measure,
    ratio,
    time_interleaved,
)

if TYPE_CHECKING:
    import openvino

INT8 = PrecisionSpec("int8")
DROPS = {"fp16": 0.001, "bf16": 0.003, "int8": 0.005}
"""The largest allowed drop of top-1, a fraction."""
BATCHES = (1, 8)


def _export_variant(folder: Path, precision_spec: PrecisionSpec = FP32, raw: bool = False) -> Artifact:
    name = f"{VARIANT}-{precision_spec.precision}{'-raw' if raw else ''}.onnx"
    return onnx_file.export(
        ExportRequest(VARIANTS[VARIANT], str(folder / name), force=True, raw=raw), SILENT, precision_spec=precision_spec
    )


def _input(batch: int) -> NDArray[np.float32]:
    return noise((batch, 3, 224, 224), 1)


def native(setting: FigureSettings) -> Iterator[Figure]:
    """Our int8 ONNX file in OpenVINO against the same network that NNCF quantised as OpenVINO's own model."""
    import nncf
    import openvino

    ours = _export_variant(setting.folder, INT8)
    network = prepare(ExportRequest(VARIANTS[VARIANT], "unused"), SILENT)
    images = for_calibration(network, None, INT8.calibration_images)
    core = openvino.Core()
    quantised = nncf.quantize(
        core.read_model(_export_variant(setting.folder).path),
        nncf.Dataset([image[None] for image in images.floats(0, len(images))]),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(images),
    )
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": usable_processors(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    requests = [
        core.compile_model(model, "CPU", settings).create_infer_request()
        for model in (core.read_model(ours.path), quantised)
    ]
    for batch in BATCHES:
        x = _input(batch)
        mine, theirs = time_interleaved(tuple(_calls(one, x) for one in requests), setting.rounds * 4)
        yield ratio(f"int8 {VARIANT} in OpenVINO against {quantiser()}'s own model, batch {batch}", mine, theirs, 1.10)


def _calls(request: openvino.InferRequest, x: NDArray[np.float32]) -> Callable[[], object]:
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)


def request(setting: FigureSettings) -> Iterator[Figure]:
    """``Runtime.infer`` on OpenVINO against the infer request of a model that was compiled with the same settings."""
    artifact = _export_variant(setting.folder, INT8)
    session = openvino_backend.BACKEND.open(artifact, Options("cpu", usable_processors()))
    if not isinstance(session, openvino_backend.OpenVinoSession):
        raise TypeError(f"not OpenVINO's session: {type(session)}")
    bare = session.native.create_infer_request()
    with Runtime(artifact, session) as runtime:
        for batch in BATCHES:
            feeds = {"input": _input(batch)}
            both = partial(runtime.infer, feeds), _calls(bare, feeds["input"])
            name = f"Runtime.infer on OpenVINO against a bare infer request, int8 {VARIANT}, batch {batch}"
            mine, theirs = time_interleaved(both, setting.rounds * 8)
            yield ratio(name, mine, theirs, 1.05)


def int8(setting: FigureSettings) -> Iterator[Figure]:
    """int8 in ONNX Runtime against fp32 in ONNX Runtime, each in processes of its own."""
    fp32 = _export_variant(setting.folder)
    ratios = []
    for _ in range(max(3, setting.rounds // 3)):
        found = {
            figures.result.identity.precision: figures
            for figures in measure(RunRequest((str(fp32.path),), ("onnxruntime",), precisions=("fp32", "int8")))
            if figures.result.identity.backend == "onnxruntime"
        }
        ratios.append(_p50(found["fp32"]) / _p50(found["int8"]))
    yield _at_least(f"int8 {VARIANT} in ONNX Runtime over its own fp32, batch 1", ratios, 2.2)


def _p50(figures: Figures) -> float:
    if figures.p50 is None:
        result = figures.result
        raise UsageError(f"{name(result)}: {result.status}: {result.reason}", code="row-not-measured")
    return figures.p50.value


def _at_least(name: str, ratios: list[float], bound: float) -> Figure:
    median = statistics.median(ratios)
    runs = f"{len(ratios)} runs of both in processes of their own"
    value = f"{median:.2f} x, from {min(ratios):.2f} to {max(ratios):.2f} in {runs}"
    return Figure(name, value, f">= {bound} x", median >= bound)


def tune(setting: FigureSettings) -> Iterator[Figure]:
    """The best that ``rbench tune`` finds, against PyTorch eager in fp32; and what the processor could do at most."""
    least = {1: 10.0, 8: 15.0}
    attainable = _attainable()
    for batch in BATCHES:
        out = setting.folder / f"best-{batch}.onnx"
        tuned = console_script("rbench"), "tune", VARIANT, "--batch", str(batch), "-o", str(out), "--force"
        subprocess.run(tuned, check=True, capture_output=True)
        manifest = Artifact.read(out).manifest
        best = None if manifest is None else manifest.tuning
        if manifest is None or best is None:
            raise UsageError("rbench tune wrote no options", code="options-not-written", path=out)
        ratios, seconds = [], []
        for _ in range(max(3, setting.rounds // 3)):
            wanted = RunRequest((str(out),), (best.runtime,), threads=best.threads, batches=(batch,))
            found = {figures.result.identity.backend: figures for figures in measure(wanted)}
            seconds.append(_p50(found[REFERENCE]))
            ratios.append(_p50(found[REFERENCE]) / _p50(found[best.runtime]))
        name = f"rbench tune {VARIANT} --batch {batch}: {best.runtime} {manifest.precision} over PyTorch eager fp32"
        figure = _at_least(name, ratios, least[batch])
        yield replace(figure, notes=tuple(_limits(statistics.median(seconds), batch, attainable)))


def sizes(setting: FigureSettings) -> Iterator[Figure]:
    """The search over input sizes of the bundled network; what it writes opens as it was measured, without a word."""
    out = setting.folder / "sizes.onnx"
    sizes = "resnet20", "--weights", "bundled", "--size", "24,28,32", "--precision", "fp32", "--precision", "int8"
    tuned = console_script("rbench"), "tune", *sizes, "-o", str(out), "--force"
    done = subprocess.run(tuned, check=True, capture_output=True, text=True)
    with Classifier.open(out) as classifier:
        opened, manifest = classifier.runtime.description, classifier.runtime.artifact.manifest
    best = None if manifest is None else manifest.tuning
    if manifest is None or best is None:
        raise UsageError("rbench tune wrote no options", code="sizes-without-options", path=out)
    wanted = (best.runtime, min(best.threads, usable_processors()))
    size = "x".join(map(str, manifest.size or ()))
    yield Figure(
        "rbench tune resnet20 over sizes 24, 28, 32 in fp32 and int8",
        f"{size}, {manifest.precision}, {best.runtime}, {best.threads} threads, {1e3 * best.p50_s:.3f} ms",
        "opens as it was tuned",
        (opened.backend, opened.threads) == wanted,
        tuple(line.rstrip() for line in done.stdout.splitlines() if line.strip()),
    )


def _limits(taken_s: float, batch: int, attainable: dict[str, float]) -> Iterator[str]:
    """How much faster than ``taken_s`` a network would be that ran as fast as a large matrix product does."""
    work = batch * multiply_adds(VARIANTS[VARIANT]) / 1e9
    yield f"PyTorch eager takes {taken_s * 1e3:.1f} ms for {work:.1f} G multiply-adds"
    for kind, rate in attainable.items():
        yield (
            f"at the {rate:.0f} G/s that a large matrix product in {kind} reaches here they take "
            f"{work / rate * 1e3:.1f} ms, {taken_s / (work / rate):.1f} x less"
        )


def _attainable() -> dict[str, float]:
    """Giga multiply-adds a second of the best of some large matrix products, by type, in oneDNN by way of PyTorch."""
    import torch

    torch.set_num_threads(usable_processors())
    size = 2048
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(size, size, generator=generator)
    whole = torch.randint(-100, 100, (size, size), dtype=torch.int8, generator=generator)
    products: dict[str, Callable[[], object]] = {
        "fp32": lambda: real @ real,
        "bf16": lambda: real.bfloat16() @ real.bfloat16(),
        "int8": lambda: torch._int_mm(whole, whole),
    }
    return {kind: size**3 / min(_seconds(product) for _ in range(10)) / 1e9 for kind, product in products.items()}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def drops(setting: FigureSettings) -> Iterator[Figure]:
    """Top-1 lost in each precision: the bundled ResNet-20 and, with ``--shared``, the published CIFAR-10 ResNet-56."""
    request = RunRequest(
        ("resnet20",),
        ("onnxruntime", "openvino"),
        weights="bundled",
        precisions=("fp32", *DROPS),
        duration_s=0.2,
        limit=setting.limit,
    )
    yield from _measure_drops("bundled resnet20", request)
    if setting.shared is None:
        return
    wanted = ExportRequest(
        VARIANTS["resnet56"],
        str(setting.folder / "resnet56-cifar10.onnx"),
        weights=str(setting.shared / "cifar10-resnet56.th"),
        preprocessing=IMAGENET_STATISTICS,
        force=True,
    )
    request = replace(
        request,
        subjects=(str(onnx_file.export(wanted, SILENT).path),),
        weights=None,
        data=str(setting.shared / "cifar10-jpeg-test.tar.xz"),
        calibration=str(setting.shared / "cifar10-jpeg-train.tar.xz"),
    )
    yield from _measure_drops("CIFAR-10 resnet56, JPEG copies", request)


def _measure_drops(title: str, request: RunRequest) -> Iterator[Figure]:
    for figures in measure(request):
        result, of = figures.result, figures.result.identity
        if of.precision not in DROPS or of.backend == REFERENCE:
            continue
        bound = DROPS[of.precision]
        drop = Estimate(1.0) if figures.top1_change is None else negate(figures.top1_change)
        top1 = 0.0 if figures.top1 is None else figures.top1.value
        value = (
            f"{result.status}: {points(drop.value, drop.interval)} points, top-1 {top1:.2%} of {figures.images}; "
            f"ran {result.ran.arithmetic}"
        )
        passed = result.status == "ok" and drop.value <= bound
        yield Figure(
            f"top-1 drop, {title}, {of.precision} on {of.backend}", value, f"<= {100 * bound:.1f} points", passed
        )


PICTURES = 96

OUR_PIPELINE = """
import json, sys, time
import runtimes
content = [open(path, "rb").read() for path in sys.argv[2:]]
with runtimes.Classifier.open(sys.argv[1], "openvino") as classifier:
    classifier.predict(content[:8], batch=8)
    start = time.perf_counter()
    answers = classifier.predict(content, batch=8)
    print(json.dumps(len(answers) / (time.perf_counter() - start)))
"""

BARE_PIPELINE = """
import io, json, sys, time
import numpy
import torch
from PIL import Image
model = torch.export.load(sys.argv[1]).module()
content = [open(path, "rb").read() for path in sys.argv[3:]]
mean = numpy.array((0.485, 0.456, 0.406), numpy.float32)
std = numpy.array((0.229, 0.224, 0.225), numpy.float32)

def prepared(data):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = numpy.asarray(image.crop((left, top, left + 224, top + 224)), numpy.float32) / 255
    return ((pixels - mean) / std).transpose(2, 0, 1)

def predict(batch):
    with torch.inference_mode():
        return model(torch.from_numpy(numpy.stack([prepared(data) for data in batch]))).argmax(1).tolist()

size = int(sys.argv[2])
predict(content[:size])
start = time.perf_counter()
answers = [label for first in range(0, len(content), size) for label in predict(content[first:first + size])]
print(json.dumps(len(answers) / (time.perf_counter() - start)))
"""


def pipeline(setting: FigureSettings) -> Iterator[Figure]:
    """From JPEG bytes to labels: int8 with raw input in OpenVINO, against Pillow, NumPy and PyTorch eager in fp32."""
    from exporter.targets import torch_program

    pictures = _pictures(setting.folder)
    ours = _export_variant(setting.folder, INT8, raw=True)
    program = torch_program.export(
        ExportRequest(VARIANTS[VARIANT], str(setting.folder / f"{VARIANT}.pt2"), force=True), SILENT
    )
    ratios: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    speeds = []
    for _ in range(max(3, setting.rounds // 3)):
        speed = _images_per_s(OUR_PIPELINE, str(ours.path), *pictures)
        speeds.append(speed)
        for batch, found in ratios.items():
            found.append(speed / _images_per_s(BARE_PIPELINE, str(program.path), str(batch), *pictures))
    best = min(ratios, key=lambda batch: statistics.median(ratios[batch]))
    name = (
        f"JPEG bytes to label, int8 {VARIANT} with raw input, {statistics.median(speeds):.0f} images/s, over Pillow, "
        f"NumPy and PyTorch eager at batch {best}, its better one"
    )
    yield replace(_at_least(name, ratios[best], 8.0), notes=(_decoding(pictures),))


def _decoding(pictures: list[str]) -> str:
    """What the pictures cost before any network sees them."""
    view = scale_preprocessing(IMAGENET_PREPROCESSING, VARIANTS[VARIANT].size)
    contents = [Path(path).read_bytes() for path in pictures]
    taken = [_seconds(partial(fit_image, content, view)) for content in contents]
    return f"decoding and resizing a picture takes {statistics.median(taken) * 1e3:.1f} ms of one core"


def _images_per_s(program: str, *arguments: str) -> float:
    result = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    return float(json.loads(result.stdout))


def _pictures(folder: Path) -> list[str]:
    """Paths of seeded pictures of 500 x 375 pixels, with structure at every scale, as JPEG files of quality 90."""
    from PIL import Image

    random = np.random.default_rng(0)
    paths = []
    for number in range(PICTURES):
        picture = np.zeros((375, 500, 3), np.float64)
        for cells in (4, 16, 64):
            coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
            picture += np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.float64) / 3
        path = folder / f"picture-{number}.jpg"
        Image.fromarray(picture.astype(np.uint8)).save(path, quality=90)
        paths.append(str(path))
    return paths
