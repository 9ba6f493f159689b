"""The files that other runtimes are asked to open, with an input and the logits of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import runtimes
from exporter.data.opening import BUNDLED_NAME, open_dataset
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file
from runtimes.images.preprocessing import normalise, pixels_of
from scripts.figures.setting import SILENT

IMAGES = 16
"""The number of images, the first of the test set of Fashion-MNIST."""

VARIANT = "resnet20"


@dataclass(frozen=True)
class Form:
    """A form of an ONNX file: its precision, and whether it takes raw pixels."""

    name: str
    precision: str = "fp32"
    raw: bool = False


FORMS = (Form("fp32"), Form("raw", raw=True), Form("int8", "int8"), Form("raw-int8", "int8", raw=True))
"""The columns of the table."""


@dataclass(frozen=True, eq=False)
class Model:
    """A file to open.

    Attributes:
        form: The form of the file.
        path: The path of the file.
        images: The input, float32 (n, 3, 32, 32) or uint8 (n, 32, 32, 3).
        logits: The logits of ONNX Runtime, float32 (n, 10).
    """

    form: Form
    path: Path
    images: NDArray[np.float32] | NDArray[np.uint8]
    logits: NDArray[np.float32]


def export_models(folder: Path, forms: tuple[Form, ...] = FORMS) -> Iterator[Model]:
    """Export each form of the bundled ResNet-20, and run it in ONNX Runtime with one thread."""
    for form in forms:
        target = f"{folder}/{form.name}.onnx"
        request = ExportRequest(variant(VARIANT), target, weights="bundled", raw=form.raw, force=True)
        yield open_model(form, onnx_file.export(request, SILENT, precision_spec=PrecisionSpec(form.precision)).path)


def open_model(form: Form, path: Path) -> Model:
    """Return a file with its input and its logits."""
    with runtimes.open(path, "onnxruntime", threads=1) as runtime:
        manifest = runtime.artifact.manifest
        assert manifest is not None
        assert manifest.preprocessing is not None
        dataset = open_dataset(BUNDLED_NAME, IMAGES)
        pixels = pixels_of((dataset.image(index) for index in range(IMAGES)), manifest.preprocessing)
        images = pixels if form.raw else normalise(pixels, manifest.preprocessing)
        logits = runtime.infer({"input": images})["logits"]
    return Model(form, path, images, logits)
