"""What rexport's own code costs beside the libraries that it stands on, and how exact fp32 is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.analysis.figures import Figures
from benchmarks.records.request import BenchmarkRequest as RunRequest
from benchmarks.stats.intervals import quantile
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import Artifact, Runtime
from runtimes.backends.onnxruntime import backend as onnxrt
from runtimes.errors import UsageError
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
    process,
    ratio,
    time_interleaved,
)

BARE_INFERENCE = {
    "onnxruntime": """
import sys
import numpy
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(session.run(None, {"input": numpy.zeros((1, 3, 224, 224), numpy.float32)})[0].shape)
""",
    "openvino": """
import sys
import numpy
import openvino
model = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
print(model({"input": numpy.zeros((1, 3, 224, 224), numpy.float32)})[0].shape)
""",
}
"""The shortest script with each library. OpenVINO computes in bfloat16 by itself where the processor can, and we never
do unless the graph says so: the comparison is in float32."""

OUR_INFERENCE = """
import sys
import numpy
import runtimes
runtime = runtimes.open(sys.argv[1], sys.argv[2], model_cache=sys.argv[3] if len(sys.argv) > 3 else None)
print(runtime.infer({"input": numpy.zeros((1, 3, 224, 224), numpy.float32)})["logits"].shape)
"""

BARE_EXPORT = """
import sys
import torch
from exporter.models.resnet import build
from exporter.models.variants import VARIANTS
torch.onnx.export(
    build(VARIANTS[sys.argv[2]]),
    (torch.randn(2, 3, 224, 224),),
    sys.argv[1],
    dynamo=True,
    input_names=["input"],
    output_names=["logits"],
    dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
)
"""


def _export_model(folder: Path) -> Artifact:
    return onnx_file.export(ExportRequest(VARIANTS[VARIANT], f"{folder}/", force=True), SILENT)


def overhead(setting: FigureSettings) -> Iterator[Figure]:
    """``Runtime.infer`` against ``InferenceSession.run`` of the very same session."""
    artifact = _export_model(setting.folder)
    session = onnxrt.BACKEND.open(artifact, Options("cpu", usable_processors()))
    if not isinstance(session, onnxrt.OnnxRuntimeSession):
        raise TypeError(f"not ONNX Runtime's session: {type(session)}")
    feeds = {"input": np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)}
    with Runtime(artifact, session) as runtime:
        ours, bare = time_interleaved(
            (lambda: runtime.infer(feeds), lambda: session.native.run(None, feeds)), setting.rounds * 20
        )
    yield ratio(f"Runtime.infer against InferenceSession.run, {VARIANT} batch 1", ours, bare, 1.02)


def startup(setting: FigureSettings) -> Iterator[Figure]:
    """A process that opens an artifact and predicts once, against the shortest script with the same library and against
    itself with OpenVINO's cache of compiled models; and ``import runtimes`` against ``import numpy``."""
    path = str(_export_model(setting.folder).path)
    cache = setting.folder / "compiled"
    cache.mkdir()
    for backend, script in BARE_INFERENCE.items():
        ours, bare = time_interleaved(
            (
                process(sys.executable, "-c", OUR_INFERENCE, path, backend),
                process(sys.executable, "-c", script, path),
            ),
            setting.rounds,
        )
        yield ratio(f"process start to first prediction, {VARIANT} on {backend}", ours, bare, 1.10)
    cached, without = time_interleaved(
        (
            process(sys.executable, "-c", OUR_INFERENCE, path, "openvino", str(cache)),
            process(sys.executable, "-c", OUR_INFERENCE, path, "openvino"),
        ),
        setting.rounds,
    )
    yield ratio(f"the second start with a model cache against one without, {VARIANT} on openvino", cached, without, 1.0)
    ours, bare = time_interleaved(
        (
            process(sys.executable, "-c", "import runtimes"),
            process(sys.executable, "-c", "import numpy"),
        ),
        setting.rounds,
    )
    yield ratio("import runtimes against import numpy", ours, bare, 1.15)


def export(setting: FigureSettings) -> Iterator[Figure]:
    """``rexport onnx``, parity included, against a bare ``torch.onnx.export`` script."""
    ours, bare = time_interleaved(
        (
            process(console_script("rexport"), "onnx", VARIANT, "--force", "-o", f"{setting.folder}/ours.onnx"),
            process(sys.executable, "-c", BARE_EXPORT, f"{setting.folder}/bare.onnx", VARIANT),
        ),
        max(3, setting.rounds // 3),
    )
    yield ratio(f"rexport onnx {VARIANT}, whole process", ours, bare, 1.6)


def first_help(setting: FigureSettings) -> Iterator[Figure]:
    """Both commands' ``--help`` against importing click, plus 0.1 s."""
    commands = [console_script(name) for name in ("rexport", "rbench")]
    bare, *rest = time_interleaved(
        (process(sys.executable, "-c", "import click"), *(process(command, "--help") for command in commands)),
        setting.rounds,
    )
    allowed = quantile(bare, 0.5) + 0.1
    for command, samples in zip(commands, rest, strict=True):
        taken = quantile(samples, 0.5)
        value = f"{taken * 1e3:.0f} ms against {quantile(bare, 0.5) * 1e3:.0f} ms for click alone, {len(bare)} rounds"
        yield Figure(f"{Path(command).name} --help", value, f"<= {allowed * 1e3:.0f} ms", taken <= allowed)


def _accuracy(figures: Figures, least: float, most: float, disagreeing: int) -> Figure:
    result, images = figures.result, figures.images or 0
    top1, agreement = (0.0 if share is None else share.value for share in (figures.top1, figures.agreement))
    different = round((1 - agreement) * images)
    return Figure(
        f"{result.identity.artifact} on {result.identity.backend}",
        f"{result.status}: top-1 {top1:.2%} of {images}, {different} predicted otherwise than by PyTorch",
        f"{least:.2%} to {most:.2%}, at most {disagreeing} otherwise",
        result.status == "ok" and least <= top1 <= most and different <= disagreeing,
    )


def measure_bundled(setting: FigureSettings) -> Iterator[Figure]:
    """The bundled ResNet-20 over its 10,000 test images on every runtime."""
    for figures in measure(RunRequest(duration_s=0.2, limit=setting.limit)):
        yield _accuracy(figures, 0.935, 1.0, 2)


def cifar(setting: FigureSettings) -> Iterator[Figure]:
    """The published CIFAR-10 ResNet-20 and -56, as they are, over the JPEG copies of the test images."""
    shared = setting.shared
    if shared is None:
        raise UsageError(
            "cifar needs --shared, the folder of the published weights and images", code="shared-folder-missing"
        )
    data = str(shared / "cifar10-jpeg-test.tar.xz")
    for name, top1 in (("resnet20", 0.8103), ("resnet56", 0.8320)):
        request = ExportRequest(
            VARIANTS[name],
            f"{setting.folder}/{name}-cifar10.onnx",
            weights=str(shared / f"cifar10-{name}.th"),
            preprocessing=IMAGENET_STATISTICS,
            data=data,
            force=True,
        )
        artifact = onnx_file.export(request, SILENT)
        measured = RunRequest(
            subjects=(str(artifact.path),),
            backends=("pytorch", "onnxruntime"),
            data=data,
            duration_s=0.2,
            limit=setting.limit,
        )
        for figures in measure(measured):
            yield _accuracy(figures, top1 - 0.00025, top1 + 0.00025, 2)
