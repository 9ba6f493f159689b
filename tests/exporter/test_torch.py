from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch as torch_library

from exporter import torch
from exporter.network import Network, Request
from exporter.variants import customised
from runtimes import Artifact
from runtimes.errors import CheckFailedError, UsageError
from tests.exporter.small import BASIC, BOTTLENECK, SILENT, content

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
    ours, theirs = pt2_artifact.vectors().logits, onnx_artifact.vectors().logits
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-5 * np.abs(theirs).max())  # other threads, other sums


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
