from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx as onnx_library
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import runtimes
from exporter.export_request import ExportRequest
from exporter.models.variants import FAMILIES, Variant, customise, variant
from exporter.network import INPUT, Network, prepare
from exporter.targets import onnx_file
from runtimes import Artifact, TensorSpec, files, parity
from runtimes.artifacts.manifest import FileRecord
from runtimes.errors import (
    ArtifactError,
    CheckFailedError,
    CompatibilityError,
    IntegrityError,
    ResourceError,
    UsageError,
)
from tests.exporter.small import BASIC, BOTTLENECK, LARGE, SILENT, content, export
from tests.refusals import refuses

TRACED, CHECKED = onnx_file._trace, onnx_file._check
"""The real ones, which tests replace."""

REPO = Path(__file__).resolve().parents[3]

MATRIX: tuple[tuple[str, Variant, int | None], ...] = (
    ("bottleneck", BOTTLENECK, None),
    ("fixed batch", BASIC, 4),
    ("batch of one", BOTTLENECK, 1),
    ("33x47", customise(BOTTLENECK, size=(33, 47)), None),
    ("1x1", customise(BASIC, size=(1, 1)), None),
    ("one channel, seven classes", customise(BASIC, in_channels=1, classes=7), None),
    ("four channels, one class", customise(BOTTLENECK, in_channels=4, classes=1), None),
    ("v1", customise(BOTTLENECK, stride="v1"), None),
    ("A under an ImageNet stem", customise(BOTTLENECK, shortcut="A"), None),
    ("C under a CIFAR stem", customise(BASIC, shortcut="C"), None),
    ("plain CIFAR", dataclasses.replace(BASIC, residual=False), None),
)

SMALLEST = {
    row.name: customise(row, size=(16, 16))
    for family in ("ResNet", "Plain", "ResNet, CIFAR", "Plain, CIFAR")
    for row in FAMILIES[family]
}
"""The networks of He et al. 2015. test_families exports the others, narrower."""


def graph_of(artifact: Artifact) -> onnx_library.GraphProto:
    return onnx_library.load(artifact.path).graph


def test_the_manifest_says_what_the_file_is(onnx_artifact: Artifact) -> None:
    manifest = Artifact.read(onnx_artifact.path).manifest
    assert manifest is not None
    assert (manifest.name, manifest.format, manifest.precision, manifest.opset) == ("resnet20", "onnx", "fp32", 20)
    assert manifest.inputs == (TensorSpec("input", "float32", ("batch", 3, 32, 32)),)
    assert manifest.outputs == (TensorSpec("logits", "float32", ("batch", 10)),)
    assert (manifest.weights.origin, manifest.weights.trained, manifest.weights.seed) == ("random", False, 0)
    assert manifest.size_bytes == onnx_artifact.path.stat().st_size
    assert (manifest.labels, manifest.dataset, manifest.parent, manifest.external) == (None, None, None, ())
    assert set(manifest.producers) == {"rexport", "torch", "onnx", "onnxscript"}
    assert manifest.parity is not None
    assert manifest.parity.batches == (1, 2, 3, 7)
    assert manifest.parity.reference.startswith("PyTorch ")
    assert manifest.parity.relative_difference <= manifest.parity.tolerance == 5e-5


def test_the_artifact_is_three_files(onnx_artifact: Artifact) -> None:
    manifest = onnx_artifact.manifest
    assert manifest is not None
    assert manifest.vectors is not None
    names = {"resnet20.onnx", "resnet20.onnx.json", manifest.vectors.name}
    assert {place.name for place in onnx_artifact.path.parent.iterdir()} == names


def test_the_graph_has_nothing_but_what_it_needs(onnx_artifact: Artifact) -> None:
    graph = graph_of(onnx_artifact)
    kinds = Counter(node.op_type for node in graph.node)
    assert (kinds["Conv"], kinds["Gemm"], kinds["Relu"], kinds["Add"]) == (19, 1, 19, 9)
    assert "BatchNormalization" not in kinds
    assert [value.name for value in graph.input] == [INPUT]
    assert [value.name for value in graph.output] == ["logits"]
    shape = graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == ["batch", 3, 32, 32]
    assert onnx_library.load(onnx_artifact.path).functions == []


def test_nodes_bear_their_modules_names(onnx_artifact: Artifact) -> None:
    names = [node.name for node in graph_of(onnx_artifact).node]
    assert len(set(names)) == len(names)
    assert {"conv1/Conv", "layer1.0.conv1/Conv", "layer3.2.conv2/Conv", "fc/Gemm"} <= set(names)


def test_biases_survive_folding(onnx_artifact: Artifact) -> None:
    """Else the parity check of an untrained network would not see them."""
    biases = {tensor.name for tensor in graph_of(onnx_artifact).initializer if tensor.name.endswith(".bias")}
    assert {"conv1.bias", "layer1.0.conv1.bias", "layer3.2.conv2.bias"} <= biases


def test_the_file_tells_nothing_of_this_machine(onnx_artifact: Artifact) -> None:
    for place in (onnx_artifact.path, onnx_artifact.path.with_name("resnet20.onnx.json")):
        data = place.read_bytes()
        for trace in (str(REPO).encode(), b"/home", b"/usr", b"/tmp", b"site-packages", b".py", b"stack_trace"):
            assert trace not in data, (place.name, trace)
    model = onnx_library.load(onnx_artifact.path)
    assert [entry.key for entry in model.metadata_props] == ["rexport"]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


@pytest.mark.parametrize("batch", range(1, 10))
def test_any_batch_runs_in_the_bare_library(onnx_artifact: Artifact, batch: int) -> None:
    vectors = onnx_artifact.vectors()
    chosen = np.arange(batch) % 7
    session = onnxruntime.InferenceSession(onnx_artifact.path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {INPUT: vectors.inputs[chosen]})
    np.testing.assert_allclose(logits, vectors.logits[chosen], rtol=0, atol=5e-5 * np.abs(vectors.logits).max())


@pytest.mark.parametrize(("row", "batch"), [row[1:] for row in MATRIX], ids=[row[0] for row in MATRIX])
def test_every_shape_of_network_is_exported(tmp_path: Path, row: Variant, batch: int | None) -> None:
    artifact = export(row, tmp_path, batch=batch)
    manifest = artifact.manifest
    assert manifest is not None
    assert manifest.inputs[0].shape == (batch or "batch", row.in_channels, *row.size)
    assert manifest.outputs[0].shape == (batch or "batch", row.classes)
    assert manifest.parity is not None
    assert manifest.parity.batches == ((batch,) if batch else (1, 2, 3, 7))
    kinds = Counter(node.op_type for node in graph_of(artifact).node)
    assert ("Add" in kinds) == row.residual
    with runtimes.open(artifact.path, "openvino") as runtime:
        parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "noise")


BETWEEN = ("resnet32", "resnet44", "resnet56", "plain32", "plain44", "plain56", "plain110")
"""Networks of the table that only have more blocks of a kind than one below them, and fewer than one above; ResNet-110
has the layers of the plain one."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALLEST if name not in ("resnet1202", *BETWEEN, *LARGE)])
def test_every_variant_of_the_paper_is_exported(tmp_path: Path, name: str) -> None:
    """All but the one whose export takes minutes, those between two others, and those that test_engines holds to the
    same."""
    manifest = export(SMALLEST[name], tmp_path).manifest
    assert manifest is not None
    assert manifest.parity is not None
    assert manifest.parity.relative_difference < 1e-5


@pytest.mark.parametrize("opset", [18, 22])
def test_the_opset_is_the_one_asked_for(tmp_path: Path, opset: int) -> None:
    artifact = export(BASIC, tmp_path, opset)
    assert artifact.manifest is not None
    assert artifact.manifest.opset == opset
    (written,) = onnx_library.load(artifact.path).opset_import
    assert (written.domain, written.version) == ("", opset)


@pytest.mark.parametrize(("opset", "other"), [(17, "a higher --opset"), (99, "a lower --opset")])
def test_an_opset_that_torch_does_not_write_is_refused(tmp_path: Path, opset: int, other: str) -> None:
    with refuses(CompatibilityError, "opset-not-written", opset, other):
        export(BASIC, tmp_path, opset)
    assert content(tmp_path) == {}


def test_a_fixed_batch_takes_no_other(tmp_path: Path) -> None:
    artifact = export(BASIC, tmp_path, batch=4)
    with runtimes.open(artifact.path) as runtime:
        assert runtime.infer({INPUT: np.zeros((4, 3, 16, 16), np.float32)})["logits"].shape == (4, 10)
        with pytest.raises(runtimes.RexportError, match="4"):
            runtime.infer({INPUT: np.zeros((3, 3, 16, 16), np.float32)})


def test_real_images_give_labels_and_parity(tmp_path: Path) -> None:
    artifact = onnx_file.export(ExportRequest(BASIC, f"{tmp_path}/", data="fashion-mnist"), SILENT)
    assert artifact.manifest is not None
    assert artifact.manifest.parity is not None
    assert artifact.manifest.parity.images.endswith(" fashion-mnist")
    assert artifact.manifest.labels is not None
    assert "Ankle boot" in artifact.manifest.labels


def test_an_export_repeats_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "_trace", TRACED)
    first = content(export(BASIC, tmp_path).path.parent)
    assert content(export(BASIC, tmp_path).path.parent) == first


# The gate: each fault that an exporter has had, or could have, must leave nothing behind.


@pytest.fixture(scope="module")
def traced() -> onnx_library.ModelProto:
    """What torch makes of the small network, to be copied."""
    return TRACED(prepare(ExportRequest(BASIC, "unused"), SILENT), None, onnx_file.DEFAULT_OPSET)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, traced: onnx_library.ModelProto) -> None:
    """Exports of the small network skip torch's part, which takes a second or more."""

    def copied(*_: object) -> onnx_library.ModelProto:
        graph = onnx_library.ModelProto()
        graph.CopyFrom(traced)
        return graph

    monkeypatch.setattr(onnx_file, "_trace", copied)


@pytest.fixture
def kept(tmp_path: Path, quick: None) -> dict[str, bytes]:  # noqa: ARG001
    """A folder with an older artifact in it."""
    export(BASIC, tmp_path)
    return content(tmp_path)


def change_graph(graph: onnx_library.ModelProto, name: str, by: float) -> None:
    (tensor,) = (tensor for tensor in graph.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += by
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def spoil_written(monkeypatch: pytest.MonkeyPatch, name: str, by: float) -> None:
    """From now on, one number of what is written is another."""
    write = onnx_file._write

    def spoilt(graph: onnx_library.ModelProto, place: Path, target: Path) -> tuple[FileRecord, ...]:
        change_graph(graph, name, by)
        return write(graph, place, target)

    monkeypatch.setattr(onnx_file, "_write", spoilt)


@pytest.mark.parametrize("name", ["conv1.weight", "layer2.0.conv1.weight", "layer3.0.conv2.bias", "fc.weight"])
@pytest.mark.parametrize("by", [0.1, float("nan"), float("inf")])
def test_one_wrong_number_fails_parity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: dict[str, bytes], name: str, by: float
) -> None:
    spoil_written(monkeypatch, name, by)
    with refuses(CheckFailedError, "parity-failed", "onnxruntime") as caught:
        export(BASIC, tmp_path)
    assert caught.value.exit_code == 1
    assert content(tmp_path) == kept


def test_an_unfolded_batch_norm_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: dict[str, bytes], traced: onnx_library.ModelProto
) -> None:
    def with_batch_norm(*_: object) -> onnx_library.ModelProto:
        graph = onnx_library.ModelProto()
        graph.CopyFrom(traced)
        graph.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "ones"))
        node = helper.make_node("BatchNormalization", [INPUT, *["ones"] * 4], ["normalised"], name="bn")
        graph.graph.node.insert(0, node)
        return graph

    monkeypatch.setattr(onnx_file, "_trace", with_batch_norm)
    with refuses(CheckFailedError, "batch-norm-unfolded", "1"):
        export(BASIC, tmp_path)
    assert content(tmp_path) == kept


def test_an_invalid_graph_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: dict[str, bytes], traced: onnx_library.ModelProto
) -> None:
    def without_a_weight(*_: object) -> onnx_library.ModelProto:
        graph = onnx_library.ModelProto()
        graph.CopyFrom(traced)
        del graph.graph.initializer[0]
        return graph

    monkeypatch.setattr(onnx_file, "_trace", without_a_weight)
    with refuses(CheckFailedError, "graph-invalid"):
        export(BASIC, tmp_path)
    assert content(tmp_path) == kept


@pytest.mark.parametrize("found", [None, b"\xff\xff"])
def test_a_file_that_cannot_be_read_back_is_not_an_invalid_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: dict[str, bytes], found: bytes | None
) -> None:
    def check(path: Path, network: Network) -> None:
        path.unlink() if found is None else path.write_bytes(found)
        CHECKED(path, network)

    monkeypatch.setattr(onnx_file, "_check", check)
    with refuses(ResourceError, "file-access-failed", "proto"):
        export(BASIC, tmp_path)
    assert content(tmp_path) == kept


def test_a_frozen_batch_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: dict[str, bytes]) -> None:
    monkeypatch.setattr(onnx_file, "_trace", lambda network, _, opset: TRACED(network, 2, opset))
    with pytest.raises((CheckFailedError, ArtifactError, CompatibilityError), match=r"batch|shape|input"):
        export(BASIC, tmp_path)
    assert content(tmp_path) == kept


def test_an_older_file_stays_without_force(tmp_path: Path, kept: dict[str, bytes]) -> None:
    with refuses(UsageError, "target-exists"):
        onnx_file.export(ExportRequest(BASIC, f"{tmp_path}/"), SILENT)
    assert content(tmp_path) == kept


# Weights past the limit of one file.


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if protocol buffers ended at a kilobyte."""
    monkeypatch.setattr(onnx_file, "ONE_FILE_BYTES", 1024)


def data_files(folder: Path) -> list[str]:
    return [place.name for place in folder.iterdir() if place.suffix == ".data"]


@pytest.mark.usefixtures("quick", "small_files")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_weights_beside_the_file_open(tmp_path: Path, backend: str) -> None:
    artifact = export(BASIC, tmp_path)
    assert artifact.manifest is not None
    assert [record.name for record in artifact.manifest.external] == data_files(tmp_path)
    with runtimes.open(artifact.path, backend) as runtime:
        parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "noise")


@pytest.mark.usefixtures("quick", "small_files")
def test_changed_weights_beside_the_file_are_noticed(tmp_path: Path) -> None:
    artifact = export(BASIC, tmp_path)
    (name,) = data_files(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=name):
        runtimes.open(artifact.path)


@pytest.mark.usefixtures("quick")
def test_old_weights_go_with_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = tmp_path / "small-basic.onnx.notours1.data"
    other = tmp_path / "other.onnx.00112233.data"
    for place in (stranger, other):
        place.write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(onnx_file, "ONE_FILE_BYTES", 1024)
        export(BASIC, tmp_path)
        (first,) = set(data_files(tmp_path)) - {stranger.name, other.name}
        export(BASIC, tmp_path)
        (second,) = set(data_files(tmp_path)) - {stranger.name, other.name}
        assert first == second  # the name holds the digest
    export(BASIC, tmp_path)
    assert set(data_files(tmp_path)) == {stranger.name, other.name}


@pytest.mark.usefixtures("quick", "small_files")
def test_a_failure_leaves_the_old_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(BASIC, tmp_path)
    before = content(tmp_path)
    spoil_written(monkeypatch, "conv1.weight", 0.5)
    with pytest.raises(CheckFailedError, match="parity failed"):
        export(BASIC, tmp_path)
    assert content(tmp_path) == before


@pytest.mark.usefixtures("quick", "small_files")
def test_weights_that_cannot_be_written_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with refuses(ResourceError, "file-access-failed", "small-basic.onnx"):
        export(BASIC, tmp_path)
    assert content(tmp_path) == {}


@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_file, "_write", full)
    with refuses(ResourceError, "file-access-failed") as caught:
        export(BASIC, tmp_path)
    assert isinstance(caught.value, ResourceError)
    assert caught.value.errno == 28
    assert content(tmp_path) == {}


def test_an_artifact_may_be_moved_with_its_files(tmp_path: Path, onnx_artifact: Artifact) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(onnx_artifact.path.parent, folder)
    with runtimes.open(folder / "resnet20.onnx") as runtime:
        parity.check(runtime, Artifact.read(folder / "resnet20.onnx").vectors(), 5e-5, "PyTorch", "noise")


def test_the_models_own_forward_is_the_reference() -> None:
    network = prepare(ExportRequest(variant("resnet20"), "unused"), SILENT)
    assert not network.model.training
    assert network.vectors.logits.shape == (7, 10)
