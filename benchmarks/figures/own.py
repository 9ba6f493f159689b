"""What rexport promises of its own cost and exactness, measured: ``python -m benchmarks.figures [NAME ...]``.

Ratios only: both sides in one run, interleaved A B A B, medians, with a 95 % interval. ``cifar`` needs the published
CIFAR-10 weights and images, which do not come with rexport: name their folder with ``--shared``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.request import Listener as RunListener
from benchmarks.request import Request as RunRequest
from benchmarks.results import Row
from benchmarks.run import run
from benchmarks.statistics import quantile, ratio_interval, ratio_of_medians
from exporter import onnx, terminal
from exporter.network import Listener, Request
from exporter.variants import VARIANTS
from runtimes import Artifact, Runtime
from runtimes.backends import onnxrt
from runtimes.errors import UsageError
from runtimes.processors import usable_processors
from runtimes.protocol import Options

VARIANT = "resnet50"
SILENT = Listener(step=lambda _: None, notice=lambda _: None)

BARE_INFERENCE = """
import sys
import numpy
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(session.run(None, {"input": numpy.zeros((1, 3, 224, 224), numpy.float32)})[0].shape)
"""

OUR_INFERENCE = """
import sys
import numpy
import runtimes
runtime = runtimes.open(sys.argv[1])
print(runtime.infer({"input": numpy.zeros((1, 3, 224, 224), numpy.float32)})["logits"].shape)
"""

BARE_EXPORT = """
import sys
import torch
from exporter.resnet import build
from exporter.variants import VARIANTS
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


@dataclass(frozen=True)
class Setting:
    """``folder`` for what is exported, ``rounds`` of pairs, ``shared`` the folder of the published CIFAR-10 files,
    ``limit`` of images for a trial."""

    folder: Path
    rounds: int
    shared: Path | None
    limit: int | None = None


@dataclass(frozen=True)
class Figure:
    """One measured value, and whether it is within its bound."""

    name: str
    value: str
    bound: str
    holds: bool


def _ratio(name: str, ours: list[float], bare: list[float], bound: float) -> Figure:
    ratio = ratio_of_medians(ours, bare)
    low, high = ratio_interval(ours, bare)
    value = (
        f"{ratio:.3f} x [{low:.3f}, {high:.3f}], medians {quantile(ours, 0.5) * 1e3:.1f} ms against "
        f"{quantile(bare, 0.5) * 1e3:.1f} ms, {len(ours)} pairs"
    )
    return Figure(name, value, f"<= {bound} x", ratio <= bound)


def _interleaved(calls: tuple[Callable[[], object], ...], rounds: int) -> list[list[float]]:
    """Seconds of each call, ``rounds`` times, in turn and in turned order, after one round that is not counted."""
    samples: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        order = range(len(calls)) if number % 2 else reversed(range(len(calls)))
        for index in order:
            start = time.perf_counter()
            calls[index]()
            elapsed = time.perf_counter() - start
            if number:
                samples[index].append(elapsed)
    return samples


def _process(*command: str) -> Callable[[], object]:
    return lambda: subprocess.run(command, check=True, capture_output=True)


def _console_script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _exported(folder: Path) -> Artifact:
    return onnx.export(Request(VARIANTS[VARIANT], f"{folder}/", force=True), SILENT)


def overhead(setting: Setting) -> Iterator[Figure]:
    """``Runtime.infer`` against ``InferenceSession.run`` of the very same session."""
    artifact = _exported(setting.folder)
    session = onnxrt.BACKEND.open(artifact, Options("cpu", usable_processors()))
    if not isinstance(session, onnxrt.OnnxRuntimeSession):
        raise TypeError(f"not ONNX Runtime's session: {type(session)}")
    feeds = {"input": np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)}
    with Runtime(artifact, session) as runtime:
        ours, bare = _interleaved(
            (lambda: runtime.infer(feeds), lambda: session.native.run(None, feeds)), setting.rounds * 20
        )
    yield _ratio(f"Runtime.infer against InferenceSession.run, {VARIANT} batch 1", ours, bare, 1.02)


def startup(setting: Setting) -> Iterator[Figure]:
    """A process that opens an artifact and predicts once, against the bare ONNX Runtime script."""
    path = str(_exported(setting.folder).path)
    ours, bare = _interleaved(
        (
            _process(sys.executable, "-c", OUR_INFERENCE, path),
            _process(sys.executable, "-c", BARE_INFERENCE, path),
        ),
        setting.rounds,
    )
    yield _ratio(f"process start to first prediction, {VARIANT}", ours, bare, 1.15)


def export(setting: Setting) -> Iterator[Figure]:
    """``rexport onnx``, parity included, against a bare ``torch.onnx.export`` script."""
    ours, bare = _interleaved(
        (
            _process(_console_script("rexport"), "onnx", VARIANT, "--force", "-o", f"{setting.folder}/ours.onnx"),
            _process(sys.executable, "-c", BARE_EXPORT, f"{setting.folder}/bare.onnx", VARIANT),
        ),
        max(3, setting.rounds // 3),
    )
    yield _ratio(f"rexport onnx {VARIANT}, whole process", ours, bare, 1.6)


def first_help(setting: Setting) -> Iterator[Figure]:
    """Both commands' ``--help`` against importing click, plus 0.1 s."""
    commands = [_console_script(name) for name in ("rexport", "rbench")]
    bare, *rest = _interleaved(
        (_process(sys.executable, "-c", "import click"), *(_process(command, "--help") for command in commands)),
        setting.rounds,
    )
    allowed = quantile(bare, 0.5) + 0.1
    for command, samples in zip(commands, rest, strict=True):
        taken = quantile(samples, 0.5)
        value = f"{taken * 1e3:.0f} ms against {quantile(bare, 0.5) * 1e3:.0f} ms for click alone, {len(bare)} rounds"
        yield Figure(f"{Path(command).name} --help", value, f"<= {allowed * 1e3:.0f} ms", taken <= allowed)


def _rows(request: RunRequest) -> list[Row]:
    return [
        row for row in run(request, RunListener(step=lambda *_: None, notice=lambda _: None)) if row.status != "skipped"
    ]


def _accuracy(row: Row, least: float, most: float, disagreeing: int) -> Figure:
    top1, images, agreement = row.top1 or 0.0, row.images or 0, row.agreement or 0.0
    different = round((1 - agreement) * images)
    return Figure(
        f"{row.artifact} on {row.runtime}",
        f"{row.status}: top-1 {top1:.2%} of {images}, {different} predicted otherwise than by PyTorch",
        f"{least:.2%} to {most:.2%}, at most {disagreeing} otherwise",
        row.status == "ok" and least <= top1 <= most and different <= disagreeing,
    )


def bundled(setting: Setting) -> Iterator[Figure]:
    """The bundled ResNet-20 over its 10,000 test images on every runtime."""
    for row in _rows(RunRequest(duration_s=0.2, limit=setting.limit)):
        yield _accuracy(row, 0.935, 1.0, 2)


def cifar(setting: Setting) -> Iterator[Figure]:
    """The published CIFAR-10 ResNet-20 and -56, as they are, over the JPEG copies of the test images."""
    shared = setting.shared
    if shared is None:
        raise UsageError("cifar needs --shared, the folder of the published weights and images")
    data = str(shared / "cifar10-jpeg-test.tar.xz")
    for name, top1 in (("resnet20", 0.8103), ("resnet56", 0.8320)):
        request = Request(
            VARIANTS[name],
            f"{setting.folder}/{name}-cifar10.onnx",
            weights=str(shared / f"cifar10-{name}.th"),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            data=data,
            force=True,
        )
        artifact = onnx.export(request, SILENT)
        measured = RunRequest(
            subjects=(str(artifact.path),),
            runtimes=("pytorch", "onnxruntime"),
            data=data,
            duration_s=0.2,
            limit=setting.limit,
        )
        for row in _rows(measured):
            yield _accuracy(row, top1 - 0.00025, top1 + 0.00025, 2)


FIGURES: dict[str, Callable[[Setting], Iterator[Figure]]] = {
    "help": first_help,
    "overhead": overhead,
    "startup": startup,
    "export": export,
    "bundled": bundled,
    "cifar": cifar,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option("--rounds", type=click.IntRange(3), default=15, show_default=True, help="Pairs of processes.")
@click.option(
    "--shared", type=click.Path(path_type=Path, exists=True), help="Folder of the published CIFAR-10 files, for cifar."
)
@click.option("--limit", type=click.IntRange(1), help="Images to evaluate, for a trial.")
def main(names: tuple[str, ...], rounds: int, shared: Path | None, limit: int | None) -> None:
    """Measure rexport's own figures, by default all that can be; exit code 1 if one is out of its bound."""
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), rounds, shared, limit)
        for name in names or [name for name in FIGURES if shared is not None or name != "cifar"]:
            for figure in FIGURES[name](setting):
                click.echo(f"{'holds ' if figure.holds else 'MISSED'}  {figure.name}: {figure.value} ({figure.bound})")
                missed = missed or not figure.holds
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    terminal.run(main)
