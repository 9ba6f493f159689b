"""The example of a Triton client prints the labels that rexport gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.deploy.triton_repository import TritonRequest, add_version
from exporter.deploy.triton_settings import TritonSettings
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file
from runtimes import Classifier
from scripts.triton_server import triton_server
from tests.conftest import SILENT
from tests.peers import peer

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "triton_client.py"


STAND_IN = """
import numpy as np

class InferInput:
    def __init__(self, *of): pass
    def set_data_from_numpy(self, array): pass

class InferRequestedOutput:
    def __init__(self, name, class_count): pass

class InferenceServerClient:
    def __init__(self, address): pass
    def __enter__(self): return self
    def __exit__(self, *of): pass
    def infer(self, *of, **options): return self
    def as_numpy(self, name): return np.array([ENTRIES], dtype=object)
"""
"""What the client uses of tritonclient. Its server answers ENTRIES, which have the form of Triton's."""


@pytest.mark.parametrize(
    ("entries", "lines"),
    [
        (
            (b"1.500000:7:ankle boot", b"-2.000000:0:bag: a large one"),
            ["ankle boot: 1.500", "bag: a large one: -2.000"],
        ),
        ((b"1.500000:7", b"-2.000000:0"), ["class 7: 1.500", "class 0: -2.000"]),
    ],
    ids=["labels", "no labels"],
)
def test_the_client_prints_labels_or_numbers(entries: tuple[bytes, ...], lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "tritonclient").mkdir()
    (tmp_path / "tritonclient" / "__init__.py").touch()
    (tmp_path / "tritonclient" / "grpc.py").write_text(STAND_IN.replace("ENTRIES", repr(list(entries))))
    (tmp_path / "photo.png").write_bytes(b"an image")
    command = [sys.executable, str(EXAMPLE), "127.0.0.1:8001", "resnet20", str(tmp_path / "photo.png")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.strip() for line in done.stdout.splitlines()[1:]] == lines


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
