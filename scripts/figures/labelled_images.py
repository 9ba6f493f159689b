"""A folder of images and a model, for the figures of ``rexport label``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from exporter.data.opening import open_dataset
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file
from scripts.figures.setting import SILENT


def write_images(folder: Path, count: int) -> Path:
    """The bundled test images as PNG files with names of five digits; from 10,000 on, they repeat."""
    images = np.asarray(open_dataset("fashion-mnist").images)
    target = folder / "images"
    target.mkdir()
    for number in range(count):
        PIL.Image.fromarray(images[number % len(images)].squeeze()).save(target / f"{number:05}.png")
    return target


def export_bundled(folder: Path) -> Path:
    return onnx_file.export(ExportRequest(variant("resnet20"), f"{folder}/", weights="bundled"), SILENT).path
