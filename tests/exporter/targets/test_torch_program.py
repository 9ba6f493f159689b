from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch as torch_library

from exporter.export_request import ExportRequest
from exporter.models.variants import customise
from exporter.network import Network
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import PRECISIONS, Bounds
from exporter.targets import torch_program
from runtimes import Artifact
from runtimes.errors import CheckFailedError, UsageError
from tests.exporter.small import BASIC, BOTTLENECK, SILENT, content, reason_codes, recording
from tests.refusals import refuses

REPO = Path(__file__).resolve().parents[3]
FLOATS = [row.name for row in PRECISIONS.values() if row.element is not None]
NARROW = [row.name for row in PRECISIONS.values() if row.element not in (None, "float32")]


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


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """By its digest ``rbench compare`` knows two runs' programs for the same; hashes of strings are seeded anew."""
    digests = []
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "exporter.cli", "torch", "resnet20", "-o", f"{tmp_path}/{seed}/"]
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, cwd=REPO, capture_output=True, check=True)
        manifest = Artifact.read(tmp_path / seed / "resnet20.pt2").manifest
        assert manifest is not None
        digests.append(manifest.sha256)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_program_of_any_batch(tmp_path: Path, batch: int | None) -> None:
    row = customise(BOTTLENECK, size=(33, 47), in_channels=1)
    artifact = torch_program.export(ExportRequest(row, f"{tmp_path}/", batch=batch), SILENT)
    assert artifact.path == tmp_path / "small-bottleneck.pt2"
    assert artifact.manifest is not None
    assert artifact.manifest.inputs[0].shape == (batch or "batch", 1, 33, 47)


def test_an_existing_program_needs_force(tmp_path: Path) -> None:
    (tmp_path / "small-basic.pt2").write_bytes(b"old")
    with refuses(UsageError, "target-exists"):
        torch_program.export(ExportRequest(BASIC, f"{tmp_path}/"), SILENT)
    assert content(tmp_path) == {"small-basic.pt2": b"old"}


def test_wrong_logits_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(network: Network, batch: int | None, element: str) -> bytes:
        with torch_library.no_grad():
            network.model.get_parameter("fc.bias")[0] += 1
        return program(network, batch, element)

    program = torch_program._program
    monkeypatch.setattr(torch_program, "_program", spoilt)
    with refuses(CheckFailedError, "parity-failed", "pytorch"):
        torch_program.export(ExportRequest(BASIC, f"{tmp_path}/"), SILENT)
    assert content(tmp_path) == {}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("precision", FLOATS)
def test_a_program_in_each_float_precision(tmp_path: Path, precision: str, raw: bool) -> None:
    artifact = torch_program.export(ExportRequest(BASIC, f"{tmp_path}/", raw=raw), SILENT, PrecisionSpec(precision))
    manifest, row = artifact.manifest, PRECISIONS[precision]
    assert manifest is not None
    assert manifest.precision == precision
    assert (manifest.inputs[0].dtype, manifest.outputs[0].dtype) == ("uint8" if raw else "float32", "float32")
    assert manifest.parity is not None
    assert (manifest.parity.tolerance, manifest.gate is None) == (row.tolerance, row.bounds is None)
    state = torch_library.export.load(str(artifact.path)).state_dict
    dtypes = {str(value.dtype).removeprefix("torch.") for name, value in state.items() if name.endswith("weight")}
    assert dtypes == {row.element}


@pytest.mark.parametrize("precision", NARROW)
def test_a_narrow_program_has_no_batch_norms_and_keeps_its_names(tmp_path: Path, precision: str) -> None:
    artifact = torch_program.export(ExportRequest(BASIC, f"{tmp_path}/"), SILENT, PrecisionSpec(precision))
    assert not any("batch_norm" in name for name in operators(artifact))
    assert {"conv1.weight", "conv1.bias", "layer2.0.conv1.bias", "fc.weight"} <= set(
        torch_library.export.load(str(artifact.path)).state_dict
    )


def test_tf32_is_the_program_of_fp32_with_a_warning(tmp_path: Path) -> None:
    notices, listener = recording()
    artifact = torch_program.export(ExportRequest(BASIC, f"{tmp_path}/"), listener, PrecisionSpec("tf32"))
    assert reason_codes(notices) == ["untrained", "precision-needs-device"]
    assert "tf32" in str(notices[1])
    assert artifact.allows_tf32
    assert any("batch_norm" in name for name in operators(artifact))


def test_int8_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with refuses(UsageError, "program-needs-float", "int8", "--precision int8"):
        torch_program.export(ExportRequest(BASIC, f"{tmp_path}/"), SILENT, PrecisionSpec("int8"))
    assert content(tmp_path) == {}


def test_a_program_that_fails_its_gate_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(PRECISIONS["fp16"], bounds=Bounds(error=1e-12, agreement=1.0, drop=0.0))
    monkeypatch.setitem(PRECISIONS, "fp16", row)
    with refuses(CheckFailedError, "gate-failed", "fp16"):
        torch_program.export(ExportRequest(BASIC, f"{tmp_path}/"), SILENT, PrecisionSpec("fp16"))
    assert content(tmp_path) == {}
