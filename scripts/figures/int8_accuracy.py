"""Top-1 lost by int8 on the published CIFAR-10 ResNets, measured on all test images: by default, and within a limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import runtimes
from exporter.data.dataset import Dataset
from exporter.data.opening import open_dataset
from exporter.export_request import ExportListener, ExportRequest
from exporter.models.variants import VARIANTS
from exporter.precision.acceptance import DropLimit
from exporter.precision.slowdown import describe_measurement, describe_slowdown
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.proportions import difference_interval
from exporter.targets import onnx_file
from runtimes import Artifact
from runtimes.artifacts.manifest import Calibration
from runtimes.errors import CheckFailedError, Reason, UsageError
from runtimes.parity import logits_of
from scripts.figures.setting import IMAGENET_STATISTICS, SILENT, Figure, FigureSettings

NETWORKS = ("resnet20", "resnet56")
BACKENDS = ("onnxruntime", "openvino")
DEFAULT_PP, ASKED_PP = 0.3, 0.1
BATCH = 100

Correct = NDArray[np.bool_]


def measure_int8(setting: FigureSettings) -> Iterator[Figure]:
    """The drop of each network on each backend against fp32 in ONNX Runtime; calibrated on training images."""
    if setting.shared is None:
        raise UsageError(
            "int8 needs --shared, the folder of the published weights and images",
            code="shared-folder-missing",
        )
    data = setting.shared / "cifar10-jpeg-test.tar.xz"
    for network in NETWORKS:
        request = ExportRequest(
            VARIANTS[network],
            f"{setting.folder}/{network}.onnx",
            weights=str(setting.shared / f"cifar10-{network}.th"),
            preprocessing=IMAGENET_STATISTICS,
            data=str(data),
            force=True,
        )
        dataset = open_dataset(str(data), setting.limit)
        reference = _correct(onnx_file.export(request, SILENT, precision_spec=FP32), BACKENDS[0], dataset)
        for asked in (None, ASKED_PP):
            yield from _measure(request, asked, dataset, reference, setting.shared)


def _measure(
    request: ExportRequest, asked: float | None, dataset: Dataset, reference: Correct, shared: Path
) -> Iterator[Figure]:
    spec = PrecisionSpec(
        "int8",
        calibration=str(shared / "cifar10-jpeg-train.tar.xz"),
        gate_images=1000 if asked is None else len(dataset),
        max_drop=asked,
    )
    bound = DEFAULT_PP if asked is None else asked
    option = "" if asked is None else f" --max-drop {asked:g}"
    title = f"top-1 drop, CIFAR-10 {request.variant.name}, JPEG copies, int8{option}"
    lines: list[str] = []

    def note(notice: str | Reason) -> None:
        if not isinstance(notice, Reason) or notice.code == "limit-not-resolved":
            lines.append(str(notice))

    listener = ExportListener(step=lambda _: None, notice=note)
    try:
        artifact = onnx_file.export(request, listener, precision_spec=spec)
    except CheckFailedError as error:
        yield Figure(title, "not exported", f"<= {bound:g} pp", False, (*lines, str(error)))
        return
    calibration = None if artifact.manifest is None else artifact.manifest.calibration
    for backend in BACKENDS:
        drop, (low, high) = difference_interval(reference, _correct(artifact, backend, dataset))
        value = (
            f"{100 * drop:+.2f} pp [{100 * low:+.2f}, {100 * high:+.2f}] on {len(dataset):,} images; "
            f"{_describe(calibration)}"
        )
        holds = DropLimit(bound / 100, asked=True).accepts(drop)
        notes = tuple(lines) if backend == BACKENDS[-1] else ()
        yield Figure(f"{title}, {backend}", value, f"<= {bound:g} pp", holds, notes)


def _describe(calibration: Calibration | None) -> str:
    """The recipe, and what it costs in speed."""
    if calibration is None:
        return "no calibration"
    if calibration.slowdown is None:
        return f"recipe {calibration.recipe}, no float layers: no slower than plain int8"
    layers = len(calibration.float_layers)
    cost = f"{describe_slowdown(calibration.slowdown)}, {describe_measurement(calibration.slowdown)}"
    return f"recipe {calibration.recipe}, {layers} float layers: {cost}"


def _correct(artifact: Artifact, backend: str, dataset: Dataset) -> Correct:
    """Which images are classified right."""
    manifest = artifact.manifest
    if manifest is None or manifest.preprocessing is None or dataset.targets is None:
        raise UsageError("the file or the data cannot be evaluated", code="not-evaluable", path=artifact.path)
    correct = np.zeros(len(dataset), np.bool_)
    with runtimes.open(artifact.path, backend) as runtime:
        for indices, images in dataset.batches(manifest.preprocessing, BATCH):
            correct[indices] = logits_of(runtime, images, BATCH).argmax(1) == dataset.targets[indices]
    return correct
