"""A server in a thread, which many tests share, and images for it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file
from runtimes import Artifact
from runtimes.serving import ServedModel
from tests.conftest import SILENT
from tests.servers import AppServer, serve_app


def png_of(seed: int, size: tuple[int, int] = (28, 28)) -> bytes:
    """A picture of noise, which is another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def bundled_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The bundled ResNet-20, with labels. Shared: not to be changed."""
    folder = tmp_path_factory.mktemp("bundled")
    return onnx_file.export(ExportRequest(variant("resnet20"), f"{folder}/resnet20.onnx", weights="bundled"), SILENT)


@pytest.fixture(scope="module")
def server(bundled_artifact: Artifact) -> Iterator[AppServer]:
    with serve_app([ServedModel.open(bundled_artifact.path, threads=1)]) as server:
        yield server


@pytest.fixture
def bundled_path(bundled_artifact: Artifact) -> Path:
    return bundled_artifact.path
