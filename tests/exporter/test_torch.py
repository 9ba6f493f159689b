from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx as onnx_library
import pytest
import torch as torch_library

import runtimes
from exporter import parity, torch
from exporter.network import Network, Request
from exporter.variants import Variant, customised
from runtimes import Artifact
from runtimes.errors import ArtifactError, CheckFailedError, CompatibilityError, IntegrityError, UsageError
from tests.conftest import FakeFactory
from tests.exporter.small import BASIC, BOTTLENECK, SILENT, content, export

REPO = Path(__file__).resolve().parents[2]


def operators(artifact: Artifact) -> list[str]:
    program = torch_library.export.load(str(artifact.path))
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def test_a_program_keeps_its_batch_norms(pt2_artifact: Artifact) -> None:
    manifest = pt2_artifact.manifest
    assert manifest is not None
    assert (manifest.format, manifest.precision, manifest.opset, manifest.parent) == ("pt2", "fp32", None, None)
    assert manifest.inputs[0].shape == ("batch", 3, 32, 32)
    assert manifest.parity is not None
    assert manifest.parity.runtime.startswith("pytorch ")
    assert sum("batch_norm" in name for name in operators(pt2_artifact)) == 19


def test_a_program_has_the_same_weights_as_the_onnx_file(pt2_artifact: Artifact, onnx_artifact: Artifact) -> None:
    assert pt2_artifact.manifest is not None
    assert onnx_artifact.manifest is not None
    assert pt2_artifact.manifest.weights == onnx_artifact.manifest.weights
    np.testing.assert_array_equal(pt2_artifact.vectors().logits, onnx_artifact.vectors().logits)


def test_a_program_tells_nothing_of_this_machine(pt2_artifact: Artifact) -> None:
    data = pt2_artifact.path.read_bytes()
    for trace in (str(REPO).encode(), b"site-packages", b"resnet.py"):
        assert trace not in data, trace


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_program_of_any_batch(tmp_path: Path, batch: int | None) -> None:
    row = customised(BOTTLENECK, size=(33, 47), in_channels=1)
    artifact = torch.export(Request(row, f"{tmp_path}/", batch=batch), SILENT)
    assert artifact.path == tmp_path / "small-bottleneck.pt2"
    assert artifact.manifest is not None
    assert artifact.manifest.inputs[0].shape == (batch or "batch", 1, 33, 47)


def test_an_existing_program_needs_force(tmp_path: Path) -> None:
    (tmp_path / "small-basic.pt2").write_bytes(b"old")
    with pytest.raises(UsageError, match="it is there already"):
        torch.export(Request(BASIC, f"{tmp_path}/"), SILENT)
    assert content(tmp_path) == {"small-basic.pt2": b"old"}


def test_wrong_logits_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(network: Network, batch: int | None) -> bytes:
        with torch_library.no_grad():
            network.model.fc.bias[0] += 1
        return program(network, batch)

    program = torch._program
    monkeypatch.setattr(torch, "_program", spoilt)
    with pytest.raises(CheckFailedError, match="parity failed on pytorch"):
        torch.export(Request(BASIC, f"{tmp_path}/"), SILENT)
    assert content(tmp_path) == {}


@pytest.mark.parametrize(
    "row",
    [BASIC, customised(BOTTLENECK, stride="v1"), customised(BASIC, shortcut="C", in_channels=1)],
    ids=["A", "B in v1", "C"],
)
def test_the_twin_of_an_onnx_file_is_the_same_network(tmp_path: Path, row: Variant) -> None:
    (tmp_path / "twin").mkdir()
    artifact = export(row, tmp_path)
    twin = torch.reference(artifact, tmp_path / "twin")
    assert artifact.manifest is not None
    assert twin.manifest is not None
    assert twin.manifest.parent == artifact.manifest.sha256
    assert twin.manifest.weights == artifact.manifest.weights
    norms = sum("batch_norm" in name for name in operators(twin))
    assert norms == sum(node.op_type == "Conv" for node in onnx_library.load(artifact.path).graph.node)
    with runtimes.open(twin.path) as runtime:
        parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "noise")


def test_the_twin_of_a_program_is_itself(pt2_artifact: Artifact, tmp_path: Path) -> None:
    assert torch.reference(pt2_artifact, tmp_path) is pt2_artifact


def test_a_foreign_file_has_no_twin(onnx_artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    shutil.copy(onnx_artifact.path, path)
    with pytest.raises(ArtifactError, match=r"foreign.onnx: a foreign file does not say which network"):
        torch.reference(Artifact.read(path), tmp_path)


def test_another_format_has_no_twin(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="there is no twin of fake in fp32"):
        torch.reference(fake_artifact(), tmp_path)


def test_a_changed_file_has_no_twin(onnx_artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(onnx_artifact.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / onnx_artifact.path.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="its bytes are not those"):
        torch.reference(Artifact.read(path), tmp_path)
