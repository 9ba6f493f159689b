from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from exporter.export_request import ExportRequest
from exporter.inspect import manifest_view
from exporter.models.variants import variant
from exporter.precision import gate
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file
from runtimes import Artifact, codec
from runtimes.artifacts.artifact import manifest_path
from runtimes.artifacts.manifest import Tuning
from runtimes.errors import (
    ArtifactError,
    CheckFailedError,
    IntegrityError,
    UsageError,
)
from tests.conftest import SILENT, FakeFactory
from tests.refusals import refuses

CPU_RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture
def copied(onnx_artifact: Artifact, tmp_path: Path) -> Path:
    """An artifact that the test may spoil."""
    shutil.copytree(onnx_artifact.path.parent, tmp_path / "copy")
    return tmp_path / "copy" / onnx_artifact.path.name


def flip(path: Path, at: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def rewrite(path: Path, **fields: object) -> None:
    """Replaces fields of the manifest."""
    manifest = Artifact.read(path).manifest
    assert manifest is not None
    manifest_path(path).write_text(codec.dumps(dataclasses.replace(manifest, **fields)))  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", CPU_RUNTIMES)
def test_verify_repeats_parity_on_each_runtime(onnx_artifact: Artifact, backend: str) -> None:
    record = manifest_view.verify_parity(onnx_artifact.path, backend, "cpu", 1)
    assert record.runtime.startswith(f"{backend} ")
    assert record.relative_difference <= 5e-5
    assert json.loads(manifest_view.parity_as_json(record))["batches"] == [1, 2, 3, 7]
    text = manifest_view.parity_as_text(onnx_artifact.path, record)
    assert text.startswith(f"{onnx_artifact.path}: ")
    assert f": {record.runtime} " in text
    assert "\n" not in text


@pytest.mark.parametrize("backend", ["pytorch"])
def test_verify_repeats_parity_of_programs(pt2_artifact: Artifact, backend: str) -> None:
    assert manifest_view.verify_parity(pt2_artifact.path, backend, "cpu", 1).agreement == 1.0


def test_verify_notices_a_changed_model(copied: Path) -> None:
    flip(copied)
    with refuses(IntegrityError, "file-digest-mismatch", copied):
        manifest_view.verify_parity(copied, None, "cpu", 1)
    with pytest.raises(IntegrityError):
        manifest_view.as_json(copied)
    with pytest.raises(IntegrityError):
        manifest_view.as_text(copied)


def test_verify_notices_changed_vectors(copied: Path) -> None:
    (vectors,) = copied.parent.glob("*.npz")
    flip(vectors)
    with refuses(IntegrityError, "vectors-digest-mismatch", vectors):
        manifest_view.verify_parity(copied, None, "cpu", 1)


def test_verify_notices_another_model_under_an_adapted_manifest(copied: Path) -> None:
    """Someone who fixes the digest as well still has to give the same logits."""
    import onnx as onnx_library
    from onnx import numpy_helper

    from runtimes import files

    model = onnx_library.load(copied)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "conv1.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, tensor.name))
    onnx_library.save(model, copied)
    rewrite(copied, sha256=files.sha256_of(copied), size_bytes=copied.stat().st_size)
    with refuses(CheckFailedError, "parity-failed", "onnxruntime"):
        manifest_view.verify_parity(copied, None, "cpu", 1)


def test_verify_goes_by_our_tolerance_not_the_files(copied: Path) -> None:
    manifest = Artifact.read(copied).manifest
    assert manifest is not None
    assert manifest.parity is not None
    rewrite(copied, parity=dataclasses.replace(manifest.parity, tolerance=9.0))
    assert manifest_view.verify_parity(copied, None, "cpu", 1).tolerance == 5e-5


def test_missing_vectors_are_named(copied: Path) -> None:
    for place in copied.parent.glob("*.npz"):
        place.unlink()
    with refuses(ArtifactError, "vectors-file-missing", "vectors.npz"):
        manifest_view.verify_parity(copied, None, "cpu", 1)


def test_an_artifact_without_a_record_cannot_be_verified(fake_artifact: FakeFactory) -> None:
    with refuses(ArtifactError, "parity-unrecorded"):
        manifest_view.verify_parity(fake_artifact().path, None, "cpu", 1)


def test_a_runtime_that_does_not_open_the_format_is_refused(onnx_artifact: Artifact) -> None:
    with refuses(UsageError, "backend-format-mismatch", "pytorch"):
        manifest_view.verify_parity(onnx_artifact.path, "pytorch", "cpu", 1)


def test_inspect_describes_an_artifact(onnx_artifact: Artifact) -> None:
    text = manifest_view.as_text(onnx_artifact.path)
    facts = dict(line.split("  ", 1) for line in text.splitlines())
    assert facts["variant"].strip().split(", ") == ["resnet20", "shortcut A", "stride v1.5"]
    assert facts["weights"].strip().split(", ") == ["random seed 0", "untrained"]
    assert "onnx, opset 20" in facts["format"]
    assert [step.split()[-1] for step in facts["preprocessing"].split("; ")[:2]] == ["32", "32x32"]
    assert json.loads(manifest_view.as_json(onnx_artifact.path))["weights"]["trained"] is False


def test_inspect_shortens_long_lists(copied: Path) -> None:
    rewrite(copied, labels=tuple(f"label {number}" for number in range(10)), parent="ab" * 32)
    assert "label 0, " in manifest_view.as_text(copied)
    assert f"made from{' ' * 6}{'ab' * 32}" in manifest_view.as_text(copied)
    assert manifest_view._shorten_labels(tuple("abcdefghijkl")) == ", ".join([*"abcdefghij", "… (12)"])


def test_inspect_takes_a_foreign_file(copied: Path) -> None:
    manifest_path(copied).unlink()
    text = manifest_view.as_text(copied)
    assert re.search(r"^manifest +none", text, re.MULTILINE)
    data = json.loads(manifest_view.as_json(copied))
    assert data["manifest"] is None
    assert data["format"] == "onnx"
    assert data["inputs"][0]["shape"] == ["batch", 3, 32, 32]


def test_a_foreign_file_cannot_be_verified(copied: Path) -> None:
    manifest_path(copied).unlink()
    with refuses(ArtifactError, "vectors-absent", copied):
        manifest_view.verify_parity(copied, None, "cpu", 1)


def test_inspect_shows_what_a_narrower_precision_cost(tmp_path: Path) -> None:
    request = ExportRequest(variant("resnet20"), f"{tmp_path}/", weights="bundled", raw=True)
    artifact = onnx_file.export(
        request, SILENT, precision_spec=PrecisionSpec("int8", calibration_images=20, gate_images=20)
    )
    tuning = Tuning("openvino", "cpu", 2, 8, "throughput", 0.0125, 640.0, "a machine", 2)
    rewrite(artifact.path, tuning=tuning)
    facts = dict(line.split("  ", 1) for line in manifest_view.as_text(artifact.path).splitlines())
    assert facts["precision"].strip() == "int8"
    manifest = Artifact.read(artifact.path).manifest
    assert manifest is not None
    assert manifest.calibration is not None
    assert manifest.gate is not None
    assert {manifest.calibration.quantiser, "cpu", manifest.calibration.data} <= set(
        re.split(r" for |, on ", facts["calibration"].strip())
    )
    assert facts["gate"].endswith(f"{manifest.gate.runtime}: {gate.describe_gate(manifest.gate)}")
    tuned = facts["tuned"].strip()
    assert [
        value
        for value in ("openvino", "cpu", "2 calls", "12.5 ms", "640 images/s", "(a machine)")
        if value not in tuned
    ] == []
    assert facts["preprocessing"].endswith(" graph")
    assert facts["inputs"].strip() == str(manifest.inputs[0])
