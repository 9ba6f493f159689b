"""The example of a Triton client prints the labels that rexport gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.deploy.triton_repository import TritonRequest, add_version
from exporter.deploy.triton_settings import TritonSettings
from exporter.models.variants import variant
from exporter.network import ExportRequest
from exporter.targets import onnx_file
from runtimes import Classifier
from scripts.triton_server import triton_server
from tests.conftest import SILENT
from tests.peers import peer

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "triton_client.py"


@pytest.mark.peers
def test_the_client_prints_the_labels_of_rexport(tmp_path: Path) -> None:
    environment = peer("triton")
    request = ExportRequest(variant("resnet20"), f"{tmp_path}/resnet20.onnx", weights="bundled")
    artifact = onnx_file.export(request, SILENT)
    settings = TritonSettings("python", threads=1, opened_with="onnxruntime")
    add_version(artifact.path, TritonRequest(tmp_path / "repository", settings), lambda _: None)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(tmp_path / "photo.png")
    with triton_server(tmp_path / "repository", environment=environment) as server:
        address = server.grpc.removeprefix("grpc://")
        command = [sys.executable, str(EXAMPLE), address, "resnet20", str(tmp_path / "photo.png")]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.splitlines()
    with Classifier.open(artifact.path, "onnxruntime", threads=1) as classifier:
        (prediction,) = classifier.predict(tmp_path / "photo.png", top=3)
    assert [line.strip().rpartition(": ")[0] for line in shown[1:]] == [label.name for label in prediction.labels]
