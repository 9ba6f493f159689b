"""Whether an exported network sees images as in training: predictions against a loop in PyTorch, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import nn

import runtimes
from benchmarks.records.request import BenchmarkRequest as RunRequest
from exporter.data.opening import open_dataset
from exporter.export_request import ExpectedAccuracy, ExportRequest
from exporter.models.variants import VARIANTS
from exporter.network import prepare
from exporter.preprocessing.options import PreprocessingOptions
from exporter.targets import onnx_file
from runtimes.errors import CheckFailedError, UsageError
from runtimes.images.preprocessing import decode
from scripts.figures.setting import IMAGENET_STATISTICS, SILENT, Figure, FigureSettings, measure

IMAGES = 1000
WIDE = 48, 32  # width and height of the images, as Pillow has them
SIZE = 32, 32
BACKENDS = ("pytorch", "onnxruntime", "openvino")

Classes = NDArray[np.int64]


def measure_preprocessing(setting: FigureSettings) -> Iterator[Figure]:
    """The published CIFAR-10 ResNet-20 on images that were stretched to 48 x 32 pixels and are squashed to 32 x 32:
    the classifier, and rbench on each backend, against Pillow and PyTorch alone."""
    if setting.shared is None:
        raise UsageError(
            "preprocessing needs --shared, the folder of the published weights and images",
            code="shared-folder-missing",
        )
    count = setting.limit or IMAGES
    folder = _stretch(setting.shared / "cifar10-jpeg-test.tar.xz", setting.folder / "stretched", count)
    dataset = open_dataset(str(folder))
    assert dataset.targets is not None
    squashed = PreprocessingOptions(resize=SIZE, mean=IMAGENET_STATISTICS.mean, std=IMAGENET_STATISTICS.std)
    request = ExportRequest(
        VARIANTS["resnet20"],
        f"{setting.folder}/squashed.onnx",
        weights=str(setting.shared / "cifar10-resnet20.th"),
        preprocessing=squashed,
        data=str(folder),
        force=True,
    )
    expected = _loop(prepare(request, SILENT).model, dataset.labels)
    top1 = float((expected == dataset.targets).mean())
    wrong = ExportRequest(
        request.variant,
        f"{setting.folder}/cropped.onnx",
        weights=request.weights,
        preprocessing=IMAGENET_STATISTICS,
        data=request.data,
        expected=ExpectedAccuracy(top1, 0.005),
        force=True,
    )
    yield _refusal(wrong)
    artifact = onnx_file.export(request, SILENT)
    for backend in BACKENDS[1:]:
        with runtimes.Classifier.open(artifact.path, backend) as classifier:
            found = np.array([one.labels[0].index for one in classifier.predict(dataset.labels)])
        yield _figure(f"Classifier on {backend}", found, expected, top1)
    benchmark = RunRequest((str(artifact.path),), BACKENDS, data=str(folder), processes=1, quick=True, roofline=False)
    for figures in measure(benchmark):
        predictions = figures.predictions
        found = np.full(len(expected), -1) if predictions is None else predictions.best[:, 0]
        yield _figure(f"rbench on {figures.result.identity.backend}", found, expected, top1)


def _figure(name: str, found: Classes, expected: Classes, top1: float) -> Figure:
    same, total = int((found == expected).sum()), len(expected)
    value = f"{same:,} of {total:,} predictions are the same, top-1 {top1:.2%}"
    return Figure(f"squashed images, {name} against a loop in PyTorch", value, f"{total:,}", same == total)


def _refusal(request: ExportRequest) -> Figure:
    """Without the right preprocessing, the export has to fail and to name it."""
    try:
        onnx_file.export(request, SILENT)
    except CheckFailedError as error:
        named = error.hint is not None and error.hint.startswith(f"--resize {SIZE[0]}x{SIZE[1]} ")
        return Figure("export of the same weights with a centre crop", "refused", "refused", named, (str(error),))
    return Figure("export of the same weights with a centre crop", "exported", "refused", False)


def _stretch(source: Path, folder: Path, count: int) -> Path:
    """Writes so many of the images, stretched, into a folder for each class."""
    dataset = open_dataset(str(source), count)
    assert dataset.targets is not None
    for index, target in enumerate(dataset.targets):
        pixels = decode(dataset.image(index))
        place = folder / dataset.classes[target] / f"{index:05}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).resize(WIDE, PIL.Image.Resampling.BICUBIC).save(place)
    return folder


def _loop(model: nn.Module, paths: Sequence[str]) -> Classes:
    """What a user's own evaluation does: Pillow resizes to the size of the input, PyTorch normalises and computes."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_STATISTICS.mean, IMAGENET_STATISTICS.std))
    classes = []
    with torch.inference_mode():
        for path in paths:
            with PIL.Image.open(path) as image:
                resized = image.convert("RGB").resize(SIZE, PIL.Image.Resampling.BILINEAR)
            tensor = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float().div(255)
            classes.append(int(model(((tensor - mean) / std)[None]).argmax()))
    return np.array(classes, np.int64)
