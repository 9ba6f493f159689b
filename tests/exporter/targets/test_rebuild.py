from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx as onnx_library
import pytest

import runtimes
from exporter.export_request import ExportRequest
from exporter.models.variants import Variant, customise, variant
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file, rebuild, torch_program
from exporter.targets.rebuild import SILENT
from runtimes import Artifact, codec, parity
from runtimes.artifacts.artifact import manifest_path
from runtimes.errors import ArtifactError, CompatibilityError, IntegrityError, Reason
from tests.conftest import FakeFactory
from tests.exporter.small import BASIC, BOTTLENECK, export
from tests.exporter.targets.test_torch_program import operators
from tests.refusals import refuses

FP16 = PrecisionSpec("fp16")


@pytest.mark.parametrize(
    "row",
    [BASIC, customise(BOTTLENECK, stride="v1"), customise(BASIC, shortcut="C", in_channels=1)],
    ids=["A", "B in v1", "C"],
)
def test_the_twin_of_an_onnx_file_is_the_same_network(tmp_path: Path, row: Variant) -> None:
    (tmp_path / "twin").mkdir()
    artifact = export(row, tmp_path)
    twin = rebuild.reference(artifact, tmp_path / "twin")
    assert artifact.manifest is not None
    assert twin.manifest is not None
    assert twin.manifest.parent == artifact.manifest.sha256
    assert twin.manifest.weights == artifact.manifest.weights
    norms = sum("batch_norm" in name for name in operators(twin))
    assert norms == sum(node.op_type == "Conv" for node in onnx_library.load(artifact.path).graph.node)
    with runtimes.open(twin.path) as runtime:
        parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "noise")


def test_the_twin_keeps_what_the_outputs_mean(tmp_path: Path) -> None:
    (tmp_path / "twin").mkdir()
    artifact = onnx_file.export(ExportRequest(BASIC, f"{tmp_path}/", activation="sigmoid"), SILENT)
    assert artifact.manifest is not None
    guesses = (Reason("activation-assumed", "said before"),)
    manifest_path(artifact.path).write_text(codec.dumps(dataclasses.replace(artifact.manifest, guesses=guesses)))
    twin = rebuild.reference(Artifact.read(artifact.path), tmp_path / "twin").manifest
    assert twin is not None
    assert (twin.activation, twin.guesses) == ("sigmoid", guesses)


def test_the_twin_of_a_program_is_itself(pt2_artifact: Artifact, tmp_path: Path) -> None:
    assert rebuild.reference(pt2_artifact, tmp_path) is pt2_artifact


def test_a_foreign_file_has_no_twin(onnx_artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    shutil.copy(onnx_artifact.path, path)
    with refuses(ArtifactError, "network-unknown", "foreign.onnx"):
        rebuild.reference(Artifact.read(path), tmp_path)


def test_an_unknown_variant_has_no_reference(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="block"):
        rebuild.reference(fake_artifact(), tmp_path)


def test_a_changed_file_has_no_reference(onnx_artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(onnx_artifact.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / onnx_artifact.path.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with refuses(IntegrityError, "file-digest-mismatch", path):
        rebuild.reference(Artifact.read(path), tmp_path)


@pytest.mark.parametrize("raw", [False, True])
def test_the_reference_of_a_narrower_file_has_its_first_weights(tmp_path: Path, raw: bool) -> None:
    """They are drawn again from the manifest's seed; the file's own are rounded."""
    (tmp_path / "twin").mkdir()
    artifact = export(BASIC, tmp_path, precision_spec=FP16, raw=raw)
    twin = rebuild.reference(artifact, tmp_path / "twin")
    assert twin.manifest is not None
    assert twin.manifest.precision == "fp32"
    assert twin.manifest.inputs[0].dtype == ("uint8" if raw else "float32")
    with runtimes.open(twin.path) as runtime:
        parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "noise")


def test_the_twin_of_a_raw_file_takes_pixels(tmp_path: Path) -> None:
    (tmp_path / "twin").mkdir()
    artifact = export(BOTTLENECK, tmp_path, raw=True)
    twin = rebuild.reference(artifact, tmp_path / "twin")
    assert twin.manifest is not None
    assert artifact.manifest is not None
    assert twin.manifest.inputs == artifact.manifest.inputs
    with runtimes.open(twin.path) as runtime:
        parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "pixels")


def test_bundled_weights_are_found_again(tmp_path: Path) -> None:
    request = ExportRequest(variant("resnet20"), f"{tmp_path}/", weights="bundled")
    artifact = onnx_file.export(request, SILENT, precision_spec=dataclasses.replace(FP16, gate_images=20))
    network = rebuild.network_of(artifact, SILENT)
    assert (network.data, network.raw) == ("fashion-mnist", False)
    np.testing.assert_array_equal(network.vectors.logits, artifact.vectors().logits)


def rewrite_weights(artifact: Artifact, **weights: object) -> Artifact:
    """The artifact with another record of its weights in the manifest."""
    assert artifact.manifest is not None
    manifest = dataclasses.replace(
        artifact.manifest,
        weights=dataclasses.replace(artifact.manifest.weights, **weights),  # type: ignore[arg-type]
    )
    manifest_path(artifact.path).write_text(codec.dumps(manifest))
    return Artifact.read(artifact.path)


def test_other_weights_than_the_recorded_ones_are_refused(tmp_path: Path) -> None:
    artifact = rewrite_weights(export(BASIC, tmp_path, precision_spec=FP16), seed=1)
    with refuses(CompatibilityError, "fp32-weights-changed", "fp32"):
        rebuild.network_of(artifact, SILENT)


def test_a_lost_weights_file_is_told(tmp_path: Path) -> None:
    artifact = rewrite_weights(export(BASIC, tmp_path, precision_spec=FP16), origin="file", source="lost.pt")
    with refuses(CompatibilityError, "fp32-weights-lost", "lost.pt", "fp32"):
        rebuild.network_of(artifact, SILENT)


def test_a_weights_file_beside_the_artifact_is_found(tmp_path: Path) -> None:
    import torch

    from exporter.models.resnet import build, initialise, settle_statistics

    model = build(BASIC)
    initialise(model, 3)
    settle_statistics(model, 3)
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    request = ExportRequest(BASIC, f"{tmp_path}/", weights=str(tmp_path / "mine.pt"))
    network = rebuild.network_of(onnx_file.export(request, SILENT, precision_spec=FP16), SILENT)
    np.testing.assert_array_equal(network.model.get_parameter("fc.weight").detach(), model.fc.weight.detach())


def test_random_weights_are_the_same_on_another_processor(tmp_path: Path) -> None:
    """There the digest differs by rounding, which the answers do not show."""
    artifact = rewrite_weights(export(BASIC, tmp_path, precision_spec=FP16), sha256="0" * 64)
    assert rebuild.network_of(artifact, SILENT).name == "small-basic"


def test_a_tf32_files_weights_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = export(BASIC, tmp_path, precision_spec=PrecisionSpec("tf32"))
    monkeypatch.setattr(rebuild, "resolve", None)  # nothing is loaded again
    assert rebuild.network_of(artifact, SILENT).weights.origin == "random"


def test_the_reference_of_a_narrow_program_reloads_its_weights(tmp_path: Path) -> None:
    (tmp_path / "twin").mkdir()
    narrow = torch_program.export(ExportRequest(BASIC, f"{tmp_path}/"), SILENT, FP16)
    twin = rebuild.reference(narrow, tmp_path / "twin")
    assert narrow.manifest is not None
    assert twin.manifest is not None
    assert (twin.manifest.precision, twin.manifest.parent) == ("fp32", narrow.manifest.sha256)
