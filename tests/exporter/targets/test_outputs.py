"""Files with several outputs, and trunks without a classifier: from the request to the manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx as onnx_library
import pytest
import torch

import runtimes
from exporter.export_request import ExpectedAccuracy, ExportListener, ExportRequest
from exporter.inspect import checkpoint_view, manifest_view
from exporter.models import resnet
from exporter.models.outputs import OUTPUTS
from exporter.models.variants import VARIANTS, Variant
from exporter.network import Network, prepare
from exporter.precision.gate import AccuracyGate
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import Bounds
from exporter.targets import onnx_file, rebuild
from exporter.weights.entries import Selection
from runtimes import Artifact, parity
from runtimes.artifacts.artifact import Vectors
from runtimes.artifacts.manifest import Gate
from runtimes.errors import ArtifactError, CheckFailedError, ModelMismatchError, ResourceError, UsageError
from tests.exporter.datasets import folder_of, png
from tests.exporter.small import BASIC, BOTTLENECK, LATER, SILENT, recording
from tests.refusals import refuses

NAMES = ("logits", "features", "stage1", "stage2", "cam")
SHAPES = {"logits": (10,), "features": (128,), "stage1": (64, 8, 8), "stage2": (128, 4, 4), "cam": (10, 4, 4)}


def export(row: Variant, folder: Path, outputs: tuple[str, ...] = OUTPUTS, precision: str = "fp32") -> Artifact:
    request = ExportRequest(row, f"{folder}/", outputs=outputs, force=True)
    typed = PrecisionSpec(precision, calibration_images=4, gate_images=8)
    return onnx_file.export(request, SILENT, precision_spec=typed)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(LATER["small-preactivation"], tmp_path_factory.mktemp("several"))


def outputs_on(artifact: Artifact, backend: str) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    with runtimes.open(artifact.path, backend) as runtime:
        return parity.outputs_of(runtime, artifact.vectors().inputs, 7)


def test_the_outputs_have_a_fixed_order_and_shapes(several: Artifact) -> None:
    assert several.manifest is not None
    assert tuple(spec.name for spec in several.manifest.outputs) == NAMES
    assert {spec.name: spec.shape for spec in several.manifest.outputs} == {
        name: ("batch", *shape) for name, shape in SHAPES.items()
    }
    vectors = several.vectors()
    assert {name: values.shape for name, values in vectors.outputs.items()} == {
        name: (7, *shape) for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_logits_and_class_maps_follow_from_the_last_map(several: Artifact, backend: str) -> None:
    values = outputs_on(several, backend)
    (head,) = (
        onnx_library.numpy_helper.to_array(tensor).reshape(10, -1).astype(np.float64)
        for tensor in onnx_library.load(several.path).graph.initializer
        if tensor.name == "cam.weight"
    )
    size = np.abs(values["logits"]).max()
    np.testing.assert_allclose(values["features"] @ head.T, values["logits"], rtol=0, atol=1e-6 * size)
    np.testing.assert_allclose(values["cam"].mean((2, 3)), values["logits"], rtol=0, atol=1e-5 * size)


def test_parity_has_a_line_for_each_output(several: Artifact) -> None:
    assert several.manifest is not None
    record = several.manifest.parity
    assert record is not None
    assert (record.output, record.agreement, record.batches) == ("logits", 1.0, (1, 2, 3, 7))
    assert tuple(other.name for other in record.others) == NAMES[1:]
    assert max(other.relative_difference for other in record.others) < 1e-5
    text = manifest_view.as_text(several.path)
    assert [name for name in NAMES if f"{name} " not in text and f"{name}:" not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_output_of_one_image_is_caught(several: Artifact, name: str) -> None:
    vectors = several.vectors()
    moved = vectors.outputs[name].copy()
    moved[4] += 1e-3 * np.abs(moved[4])
    spoilt = Vectors(vectors.inputs, {**vectors.outputs, name: moved})
    with runtimes.open(several.path) as runtime, refuses(CheckFailedError, "parity-failed", name):
        parity.check(runtime, spoilt, 5e-5, "PyTorch", "noise")


def test_vectors_that_lack_an_output_are_caught(several: Artifact) -> None:
    vectors = several.vectors()
    less = Vectors(vectors.inputs, {name: values for name, values in vectors.outputs.items() if name != "cam"})
    with runtimes.open(several.path) as runtime, refuses(ArtifactError, "vectors-other-outputs", "cam"):
        parity.check(runtime, less, 5e-5, "PyTorch", "noise")


def test_the_network_is_rebuilt_with_its_outputs(several: Artifact, tmp_path: Path) -> None:
    twin = rebuild.reference(several, tmp_path)
    assert twin.manifest is not None
    assert several.manifest is not None
    assert twin.manifest.outputs == several.manifest.outputs
    for name, values in outputs_on(twin, "pytorch").items():
        np.testing.assert_allclose(values, several.vectors().outputs[name], rtol=1e-4, atol=1e-4)


def test_every_output_of_int8_is_float32_and_held(tmp_path: Path) -> None:
    artifact = export(BASIC, tmp_path, precision="int8")
    graph = onnx_library.load(artifact.path).graph
    assert {value.type.tensor_type.elem_type for value in graph.output} == {onnx_library.TensorProto.FLOAT}
    assert artifact.manifest is not None
    record = artifact.manifest.gate
    assert record is not None
    assert (record.output, [other.name for other in record.others]) == (
        "logits", ["features", "stage1", "stage2", "stage3", "cam"]
    )  # fmt: skip
    assert all(0 < other.error <= other.bounds["error"] for other in record.others)


def test_a_precision_that_spoils_one_output_fails_its_gate(monkeypatch: pytest.MonkeyPatch, several: Artifact) -> None:
    """The maps of one stage come out a fifth too large; all other outputs are right."""
    network = rebuild.network_of(several, SILENT)
    real = parity.outputs_of

    def spoilt(*arguments: object) -> dict[str, object]:
        values = real(*arguments)  # type: ignore[arg-type]
        return {name: value * np.float32(1.2 if name == "stage1" else 1) for name, value in values.items()}

    monkeypatch.setattr("exporter.precision.gate.outputs_of", spoilt)
    typed = PrecisionSpec("fp16")
    assert typed.row.bounds is not None
    with (
        runtimes.open(several.path) as runtime,
        refuses(CheckFailedError, "gate-failed", "stage1") as caught,
    ):
        gated(runtime, typed, typed.row.bounds, network, SILENT)
    assert str(caught.value).count("(limit ") == 1


def gated(
    runtime: runtimes.Runtime, typed: PrecisionSpec, bounds: Bounds, network: Network, listener: ExportListener
) -> Gate:
    accuracy_gate = AccuracyGate(network, typed, bounds, listener)
    record = accuracy_gate.measure(runtime)
    accuracy_gate.check([record])
    return record


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trunk as self-supervised training leaves it."""
    model = resnet.build(replace(BOTTLENECK, classes=0))
    resnet.initialise(model, 5)
    resnet.settle_statistics(model, 5)
    path = tmp_path_factory.mktemp("trunk") / "trunk.pth"
    torch.save({"state_dict": {f"encoder.{name}": value for name, value in model.state_dict().items()}}, path)
    return path


def trunk_request(checkpoint: Path, folder: Path, outputs: tuple[str, ...] = ("features",)) -> ExportRequest:
    selection = Selection(headless=True)
    return ExportRequest(
        BOTTLENECK, f"{folder}/", weights=str(checkpoint), outputs=outputs, force=True, selection=selection
    )


def test_a_trunk_exports_its_features(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, BOTTLENECK.name, BOTTLENECK)
    artifact = onnx_file.export(trunk_request(checkpoint, tmp_path, ("features", "stages")), SILENT)
    manifest = artifact.manifest
    assert manifest is not None
    assert [spec.name for spec in manifest.outputs] == ["features", "stage1", "stage2"]
    assert (manifest.variant["classes"], manifest.labels) == (0, None)
    assert manifest.parity is not None
    assert (manifest.parity.output, manifest.parity.agreement) == ("features", None)
    assert Artifact.read(artifact.path).manifest == manifest
    record = manifest_view.verify_parity(artifact.path, "onnxruntime", None, None)
    assert (record.output, len(record.others)) == ("features", 2)
    network = rebuild.network_of(artifact, SILENT)  # from the file alone
    assert (network.outputs, network.classes) == (("features", "stage1", "stage2"), 0)
    assert rebuild._output_error(network.model, artifact, network.outputs) < 1e-5
    notices, listener = recording()
    typed = PrecisionSpec("fp16")
    assert typed.row.bounds is not None
    with runtimes.open(artifact.path) as runtime:
        gate = gated(runtime, typed, typed.row.bounds, network, listener)
    assert (gate.output, gate.agreement, gate.top1) == ("features", None, None)
    assert gate.error < 1e-5
    assert [other.name for other in gate.others] == ["stage1", "stage2"]
    assert "features error" in str(notices[-1])
    with runtimes.open(artifact.path) as runtime, refuses(CheckFailedError, "gate-failed", "features"):
        gated(runtime, typed, Bounds(0.0, 0.9, 0.1), network, SILENT)


def test_features_of_a_classifier_load_its_weights_again(tmp_path: Path) -> None:
    """The file does not hold the linear layer, so the network comes from its seed."""
    artifact = export(BASIC, tmp_path, ("features",))
    assert not any(tensor.name.startswith("fc.") for tensor in onnx_library.load(artifact.path).graph.initializer)
    network = rebuild.network_of(artifact, SILENT)
    assert network.classes == BASIC.classes
    assert rebuild._output_error(network.model, artifact, ("features",)) < 1e-5


def test_a_trunk_is_inspected(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, BOTTLENECK.name, BOTTLENECK)
    facts = checkpoint_view.inspect(checkpoint, Selection())
    assert (facts.variants, facts.classes, facts.classifier) == ((BOTTLENECK.name,), 0, None)
    assert "classifier" in checkpoint_view.as_text(facts)


def test_a_trunk_has_no_logits(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, BOTTLENECK.name, BOTTLENECK)
    with refuses(ModelMismatchError, "output-needs-classifier", "cam"):
        prepare(trunk_request(checkpoint, tmp_path, ("features", "cam")), SILENT)
    asked = replace(trunk_request(checkpoint, tmp_path, ("logits",)), selection=Selection())
    with refuses(ModelMismatchError, "classifier-missing", "--output features"):
        prepare(asked, SILENT)


def test_what_needs_classes_is_refused_without_them(tmp_path: Path) -> None:
    request = ExportRequest(BASIC, f"{tmp_path}/", outputs=("features",))
    with refuses(UsageError, "labels-without-classes", "--output logits"):
        prepare(replace(request, labels=tuple("abcdefghij")), SILENT)
    with refuses(UsageError, "expected-top1-needs-logits"):
        prepare(replace(request, expected=ExpectedAccuracy(0.5, 0.1)), SILENT)


def test_vectors_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    request = ExportRequest(BASIC, f"{tmp_path}/", outputs=("stages",))
    vectors = prepare(request, SILENT).vectors
    inputs, outputs = vectors.inputs.nbytes, sum(array.nbytes for array in vectors.outputs.values())
    for limit, size in ((inputs - 1, inputs), (inputs + outputs - 1, inputs + outputs)):
        monkeypatch.setattr("exporter.network.VECTORS_LIMIT_BYTES", limit)
        with refuses(ResourceError, "vectors-too-large", f"{size:,}", f"{limit:,}"):
            prepare(request, SILENT)


def test_vectors_of_data_are_counted_and_not_estimated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = folder_of(tmp_path / "photos", {f"{name}/1.png": png(1) for name in "abcdefghij"})
    for path in sorted(images.rglob("*.png"))[3:]:
        path.unlink()  # classes without images keep their folders
    request = ExportRequest(BASIC, f"{tmp_path}/", outputs=("stages",), data=str(images))
    vectors = prepare(request, SILENT).vectors
    assert len(vectors.inputs) == 3
    size = vectors.inputs.nbytes + sum(array.nbytes for array in vectors.outputs.values())
    monkeypatch.setattr("exporter.network.IMAGES", 7_000)  # an estimate by the usual number would refuse these
    monkeypatch.setattr("exporter.network.require_memory", lambda *_: None)
    monkeypatch.setattr("exporter.network.VECTORS_LIMIT_BYTES", size)
    prepare(request, SILENT)
    monkeypatch.setattr("exporter.network.VECTORS_LIMIT_BYTES", size - 1)
    with refuses(ResourceError, "vectors-too-large", f"{size:,}", f"{size - 1:,}"):
        prepare(request, SILENT)


def test_a_limit_of_accuracy_needs_logits(tmp_path: Path) -> None:
    request = ExportRequest(BASIC, f"{tmp_path}/", outputs=("features",), data="fashion-mnist")
    with refuses(UsageError, "max-drop-needs-logits"):
        onnx_file.export(request, SILENT, precision_spec=PrecisionSpec("fp16", max_drop=1.0))
