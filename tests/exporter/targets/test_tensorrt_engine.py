"""Engines from ONNX artifacts. TensorRT-RTX builds them for real; where a GPU is wanted, it is the double of
``tests.runtimes.backends.tensorrt``, and an engine answers what ONNX Runtime answers for the file that it was built
from."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import runtimes
from exporter.export_request import ExpectedAccuracy, ExportListener, ExportRequest
from exporter.inspect import engine_view, manifest_view
from exporter.precision import gate
from exporter.precision.spec import PrecisionSpec
from exporter.targets import tensorrt_engine
from exporter.targets.sparse_weights import count_sparse_layers, is_sparse
from runtimes import Artifact, codec
from runtimes.artifacts.artifact import manifest_path
from runtimes.artifacts.manifest import Engine, Manifest, Profile
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.inspector import EngineLayer
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    IntegrityError,
    Reason,
    RexportError,
    UsageError,
)
from runtimes.protocol import Array, Arrays, Layer
from runtimes.tensors import cuda
from tests.exporter.datasets import folder_of, png
from tests.exporter.small import BASIC, SILENT, content, export, reason_codes, recording
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.networks import Network

NAME = BASIC.name
RTX = tensorrt_engine.EngineRequest("rtx")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small network in some precisions, by its precision. Not to be changed."""
    folder = tmp_path_factory.mktemp("shared")
    typings = (
        PrecisionSpec(),
        PrecisionSpec("tf32"),
        PrecisionSpec("fp16"),
        PrecisionSpec("int8", calibration_images=2, gate_images=2),
    )
    return {
        row.precision: export(BASIC, _make_folder(folder / row.precision), precision_spec=row).path for row in typings
    }


def _make_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def source(shared: dict[str, Path], tmp_path: Path) -> Path:
    """An fp32 ONNX artifact in a folder of the test's own."""
    return _copy_artifact(shared["fp32"], tmp_path)


def _copy_artifact(path: Path, folder: Path) -> Path:
    shutil.copytree(path.parent, folder, dirs_exist_ok=True)
    return folder / path.name


def manifest_of(path: Path) -> Manifest:
    found = Artifact.read(path).manifest
    assert found is not None
    return found


def engine_of(path: Path) -> Engine:
    found = manifest_of(path).engine
    assert found is not None
    return found


def rewrite(path: Path, **fields: object) -> None:
    manifest_path(path).write_text(codec.dumps(replace(manifest_of(path), **fields)))  # type: ignore[arg-type]


def test_an_engine_and_its_manifest_lie_beside_the_onnx_file(source: Path) -> None:
    heard, listener = recording()
    artifact = tensorrt_engine.build_artifact(source, RTX, listener)
    parent, manifest = manifest_of(source), manifest_of(artifact.path)
    assert artifact.path == source.with_suffix(".engine")
    assert artifact.path.read_bytes()[:4] == b"vtrt"
    artifact.check_digest()
    same = ("name", "variant", "weights", "precision", "inputs", "outputs", "labels", "preprocessing", "dataset")
    assert all(getattr(manifest, name) == getattr(parent, name) for name in same)
    assert (manifest.parent, manifest.opset, manifest.parity) == (parent.sha256, None, None)
    engine = engine_of(artifact.path)
    assert (engine.flavor, engine.gpu, engine.compute_capability, engine.driver) == ("rtx", None, None, None)
    assert (engine.profiles, engine.opt_level, engine.tf32) == ((Profile(1, 8, 64),), 3, False)
    assert (engine.onnx, engine.tolerance) == (source.name, 5e-5)
    assert manifest.producers["tensorrt_rtx"] == engine.version
    (vectors, ours) = (Artifact.read(place).vectors() for place in (source, artifact.path))
    assert (vectors.inputs == ours.inputs).all()
    assert (vectors.logits == ours.logits).all()
    assert reason_codes(heard) == ["engine-unchecked"]
    assert any(str(Profile(1, 8, 64)) in str(line) for line in heard)


@pytest.mark.parametrize(("precision", "tf32", "tolerance"), [("fp32", False, 5e-5), ("tf32", True, 1e-2)])
def test_the_file_says_whether_tensorfloat_is_allowed(
    shared: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    tf32: bool,
    tolerance: float,
) -> None:
    asked: list[Settings] = []

    def recorded(onnx: Path, settings: Settings, *others: object) -> object:
        asked.append(settings)
        return build(onnx, settings, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(tensorrt_engine, "build", recorded)
    artifact = tensorrt_engine.build_artifact(_copy_artifact(shared[precision], tmp_path), RTX, SILENT)
    engine = engine_of(artifact.path)
    assert ([settings.tf32 for settings in asked], engine.tf32, engine.tolerance) == ([tf32], tf32, tolerance)


def test_settings_come_into_the_manifest(source: Path) -> None:
    settings = Settings(
        profiles=(Profile(1, 1, 1), Profile(2, 4, 16)), opt_level=1, workspace_bytes=1 << 30, targets=("8.6", "8.9")
    )
    artifact = tensorrt_engine.build_artifact(
        source, replace(RTX, settings=settings, out=f"{source.parent}/my.engine"), SILENT
    )
    engine = engine_of(artifact.path)
    assert artifact.path.name == "my.engine"
    assert (engine.profiles, engine.opt_level, engine.workspace_bytes) == (settings.profiles, 1, 1 << 30)
    assert engine.targets == ("8.6", "8.9")
    facts = manifest_view.as_text(artifact.path)
    assert "8.6, 8.9" in facts
    assert "; ".join(map(str, settings.profiles)) in facts
    assert "1,073,741,824 bytes" in facts


def test_a_fixed_batch_is_the_only_profile(tmp_path: Path) -> None:
    source = export(BASIC, tmp_path, batch=4).path
    assert engine_of(tensorrt_engine.build_artifact(source, RTX, SILENT).path).profiles == (Profile(4, 4, 4),)
    others = replace(RTX, settings=Settings(profiles=(Profile(1, 4, 8),)), force=True)
    with refuses(UsageError, "profiles-for-fixed-batch", 4):
        tensorrt_engine.build_artifact(source, others, SILENT)


def test_a_variant_is_exported_beside_its_engine(tmp_path: Path) -> None:
    heard, listener = recording()
    request = ExportRequest(BASIC, f"{tmp_path}/out/")
    artifact = tensorrt_engine.export(request, RTX, listener, precision_spec=PrecisionSpec("fp16"))
    assert artifact.path == tmp_path / "out" / f"{NAME}.engine"
    source = artifact.path.with_suffix(".onnx")
    assert (manifest_of(source).precision, manifest_of(source).sha256) == ("fp16", manifest_of(artifact.path).parent)
    assert any(str(line).startswith(f"{source}: ") for line in heard)
    with refuses(UsageError, "target-exists", "--force"):
        tensorrt_engine.export(request, RTX, SILENT)
    artifact.path.unlink()
    with refuses(UsageError, "engine-source-exists", "ONNX"):
        tensorrt_engine.export(request, RTX, SILENT)
    with refuses(UsageError, "engine-name-onnx"):
        tensorrt_engine.export(ExportRequest(BASIC, f"{tmp_path}/new.onnx"), RTX, SILENT)


def test_an_engine_is_replaced_only_by_force(source: Path) -> None:
    first = tensorrt_engine.build_artifact(source, RTX, SILENT)
    before = content(source.parent)
    with refuses(UsageError, "target-exists", "--force"):
        tensorrt_engine.build_artifact(source, RTX, SILENT)
    assert content(source.parent) == before
    narrow = replace(RTX, settings=Settings(profiles=(Profile(1, 1, 2),)), force=True)
    tensorrt_engine.build_artifact(source, narrow, SILENT)
    assert engine_of(first.path).profiles == (Profile(1, 1, 2),)
    assert set(content(source.parent)) == set(before)


def _drop_manifest(path: Path) -> None:
    manifest_path(path).unlink()


def _flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def _drop_parity(path: Path) -> None:
    rewrite(path, parity=None)


def _empty_vectors(path: Path) -> None:
    next(path.parent.glob("*.npz")).write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "error", "code"),
    [
        (_drop_manifest, ArtifactError, "engine-vectors-missing"),
        (_flip_bit, IntegrityError, "file-digest-mismatch"),
        (_drop_parity, ArtifactError, "parity-unrecorded"),
        (_empty_vectors, IntegrityError, "vectors-digest-mismatch"),
    ],
)
def test_no_engine_of_what_cannot_be_checked(
    source: Path, spoil: Callable[[Path], None], error: type[ArtifactError], code: str
) -> None:
    spoil(source)
    before = content(source.parent)
    with refuses(error, code, NAME):
        tensorrt_engine.build_artifact(source, RTX, SILENT)
    assert content(source.parent) == before


def test_an_engine_is_made_of_an_onnx_file_alone(pt2_artifact: Artifact) -> None:
    with refuses(ArtifactError, "engine-needs-onnx", "ONNX", "pt2", "VARIANT"):
        tensorrt_engine.build_artifact(pt2_artifact.path, RTX, SILENT)


def test_a_file_that_is_replaced_meanwhile_gives_no_engine(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(onnx: Path, *others: object) -> object:
        found = build(onnx, *others)  # type: ignore[arg-type]
        other = onnx.with_name("other")
        shutil.copy(onnx, other)
        other.replace(onnx)
        return found

    monkeypatch.setattr(tensorrt_engine, "build", slow)
    with refuses(IntegrityError, "engine-source-replaced"):
        tensorrt_engine.build_artifact(source, RTX, SILENT)
    assert not [name for name in content(source.parent) if "engine" in name]


def test_an_interrupt_leaves_nothing(source: Path) -> None:
    before = content(source.parent)

    def step(text: str) -> None:
        if "Optimizing graph" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tensorrt_engine.build_artifact(source, RTX, ExportListener(step=step, notice=lambda _: None))
    assert content(source.parent) == before


def test_weights_that_are_left_out_must_lie_beside_the_engine(source: Path, tmp_path: Path) -> None:
    stripped = replace(RTX, settings=Settings(strip_weights=True))
    with refuses(UsageError, "stripped-engine-apart"):
        tensorrt_engine.build_artifact(source, replace(stripped, out=f"{tmp_path}/elsewhere/"), SILENT)
    with pytest.raises(CompatibilityError, match=r"TensorRT-RTX .* GPU"):
        tensorrt_engine.build_artifact(source, stripped, SILENT)


@pytest.mark.parametrize(
    ("order", "error", "code", "value"),
    [
        (tensorrt_engine.EngineRequest("cuda"), UsageError, "flavor-unknown", "'cuda'"),
        (
            tensorrt_engine.EngineRequest("rtx", Settings(targets=("9.0",))),
            UsageError,
            "compute-capability-unsupported",
            "9.0",
        ),
        (
            tensorrt_engine.EngineRequest("rtx", Settings(version_compat=True)),
            UsageError,
            "setting-unsupported",
            "later versions",
        ),
        (
            tensorrt_engine.EngineRequest("tensorrt"),
            BackendUnavailableError,
            "flavor-unavailable",
            "'rexport[tensorrt]'",
        ),
    ],
)
def test_what_the_library_lacks_is_said_first(
    tmp_path: Path, order: tensorrt_engine.EngineRequest, error: type[RexportError], code: str, value: str
) -> None:
    with refuses(error, code, value):
        tensorrt_engine.export(ExportRequest(BASIC, f"{tmp_path}/"), order, SILENT)
    with refuses(error, code, value):
        tensorrt_engine.build_artifact(tmp_path / "missing.onnx", order, SILENT)
    assert content(tmp_path) == {}


@pytest.mark.parametrize("error", [ArtifactError, CompatibilityError])
def test_an_int8_graph_for_cpus_gets_the_recipe_for_tensorrt(
    shared: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[ArtifactError | CompatibilityError],
) -> None:
    """TensorRT-RTX refuses unsigned integers; TensorRT's refusals are made up here."""
    source = _copy_artifact(shared["int8"], tmp_path)
    with refuses(CompatibilityError, "int8-not-signed", "--precision int8 --target tensorrt)"):
        tensorrt_engine.build_artifact(source, RTX, SILENT)

    def refused(*_: object) -> None:
        raise error("not taken", code="parser-refused")

    monkeypatch.setattr(tensorrt_engine, "build", refused)
    with refuses(error, "int8-not-signed", "not taken; ", "--precision int8 --target tensorrt)"):
        tensorrt_engine.build_artifact(source, replace(RTX, force=True), SILENT)
    record = manifest_of(source).calibration
    assert record is not None
    rewrite(source, calibration=replace(record, target="tensorrt"))
    with refuses(error, "parser-refused"):
        tensorrt_engine.build_artifact(source, replace(RTX, force=True), SILENT)


def with_gpu(patch: pytest.MonkeyPatch, source: Path, profiles: tuple[Profile, ...] = (Profile(1, 8, 64),)) -> Recorder:
    """TensorRT and a GPU, by their doubles, on which engines answer as ONNX Runtime answers for ``source``."""
    manifest = manifest_of(source)
    recorder = double.installed(patch, "tensorrt", Network(manifest.inputs, manifest.outputs, profiles))
    honest = runtimes.open(source, "onnxruntime")

    def compute(feeds: Arrays) -> Arrays:
        return honest.infer(feeds)

    recorder.compute = compute
    return recorder


def test_with_a_gpu_parity_is_checked_and_recorded(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = with_gpu(monkeypatch, source)
    heard, listener = recording()
    artifact = tensorrt_engine.build_artifact(source, tensorrt_engine.EngineRequest(), listener)
    manifest, engine, here = manifest_of(artifact.path), engine_of(artifact.path), cuda.device()
    assert (engine.flavor, engine.gpu, engine.driver) == ("tensorrt", here.name, here.driver)
    assert engine.compute_capability == here.compute_capability
    assert manifest.parity is not None
    assert manifest.parity.runtime == f"tensorrt {double.VERSION}"
    assert manifest.parity.batches == (1, 2, 3, 7)
    assert manifest.parity.relative_difference <= 5e-5
    assert reason_codes(heard) == []
    assert manifest_view.verify_parity(artifact.path, None, "cuda", None).runtime == manifest.parity.runtime
    assert recorder.faults == []


def test_with_a_gpu_the_gate_of_the_precision_is_repeated(
    shared: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _copy_artifact(shared["fp16"], tmp_path)
    with_gpu(monkeypatch, source)
    heard, listener = recording()
    manifest = manifest_of(tensorrt_engine.build_artifact(source, tensorrt_engine.EngineRequest(), listener).path)
    assert manifest.gate is not None
    assert manifest.gate.runtime == f"tensorrt {double.VERSION}"
    assert f"fp16: {gate.describe_gate(manifest.gate)}" in heard


def test_with_a_gpu_the_expected_accuracy_is_checked_too(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = folder_of(tmp_path / "photos", {f"{name}/a.png": png(20 * name) for name in range(10)})
    with_gpu(monkeypatch, source)
    request = ExportRequest(BASIC, f"{tmp_path}/out/", data=str(photos), expected=ExpectedAccuracy(0.5, 0.5))
    artifact = tensorrt_engine.export(request, tensorrt_engine.EngineRequest(), SILENT)
    records = [manifest_of(path).accuracy for path in (artifact.path, artifact.path.with_suffix(".onnx"))]
    assert [record and record.runtime.split()[0] for record in records] == ["tensorrt", "onnxruntime"]
    assert len({record and record.top1 for record in records}) == 1


def test_a_gate_that_cannot_be_repeated_is_a_warning(
    shared: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _copy_artifact(shared["fp16"], tmp_path)
    rewrite(source, weights=replace(manifest_of(source).weights, origin="file", source="gone.pt"))
    with_gpu(monkeypatch, source)
    heard, listener = recording()
    manifest = manifest_of(tensorrt_engine.build_artifact(source, tensorrt_engine.EngineRequest(), listener).path)
    assert (manifest.gate, manifest.parity is None) == (None, False)
    assert reason_codes(heard) == ["gate-not-repeated"]
    assert any(str(line).startswith("fp16: ") for line in heard)


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_an_engine_that_answers_wrongly_is_never_there(
    source: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    recorder = with_gpu(monkeypatch, source)
    right = recorder.compute
    assert right is not None
    recorder.compute = lambda feeds: {name: array * factor for name, array in right(feeds).items()}
    before = content(source.parent)
    with refuses(CheckFailedError, "parity-failed", "tensorrt"):
        tensorrt_engine.build_artifact(source, tensorrt_engine.EngineRequest(), SILENT)
    assert content(source.parent) == before


def test_an_engine_for_other_gpus_is_built_and_not_checked(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double.installed(monkeypatch, "rtx")
    here = cuda.device().compute_capability
    elsewhere = replace(RTX, settings=Settings(targets=("7.5" if here != "7.5" else "8.6",)))
    heard, listener = recording()
    fp16 = export(BASIC, source.parent, precision_spec=PrecisionSpec("fp16")).path
    manifest = manifest_of(tensorrt_engine.build_artifact(fp16, elsewhere, listener).path)
    assert manifest.parity is None
    assert reason_codes(heard) == ["engine-unchecked"]
    assert any("compute capability" in str(line) for line in heard)


def test_a_long_build_reports_its_progress_now_and_then() -> None:
    now, steps = [0.0], list[str]()
    heard: list[str | Reason] = []
    told = tensorrt_engine.BuildProgress(ExportListener(steps.append, heard.append), clock=lambda: now[0])
    for second in range(0, 70, 7):
        now[0] = second
        assert told("Timing \x1b tactics", second, 70)
    assert len(steps) == 10
    (line,) = map(str, heard)
    assert [part for part in (r"Timing \x1b tactics", "35 of 70", "35 s") if part not in line] == []


def _layer(nodes: tuple[str, ...], kind: str, precision: str, weighted: bool, tactic: str | None) -> EngineLayer:
    name = nodes[0] if nodes else "Reformatting CopyNode"
    return EngineLayer(Layer(name, nodes, kind, precision, weighted, None), " + ".join(nodes) or name, tactic)


LAYERS = (
    _layer((), "Reformat", "float32", False, None),
    _layer(("conv1/Conv", "relu/Relu"), "CaskConvolution", "float16", True, "sm90_fprop"),
    _layer(("layer1.0.conv1/Conv", "layer1.0.relu/Relu"), "CaskConvolution", "float16", True, "sm90_fprop"),
    _layer(
        ("layer1.0.conv2/Conv", "layer1.0/Add", "layer1.0.relu/Relu_2"), "CaskConvolution", "float16", True, "sm90_add"
    ),
    _layer(("layer2.0.conv2/Conv",), "CaskConvolution", "float32", True, None),
    _layer(("layer2.0/Add", "layer2.0.relu/Relu_2"), "PointWiseV2", "float16", False, None),
    _layer(("fc/Gemm",), "gemm", "float16", True, "sm90_gemm"),
)
"""As an inspector tells of a network of two blocks: the addition of one is fused into its convolution."""


def test_fused_blocks_are_counted() -> None:
    found = engine_view.summarise_layers(LAYERS)
    assert (found.blocks, found.fused_blocks) == (2, 1)
    assert found.arithmetic.split(", ") == ["float16 (4 of 5)", "float32 (1 of 5)"]
    first, *lines = engine_view.layer_lines(found)
    kinds = ("7 layers", "4 CaskConvolution", "1 Reformat", "1 PointWiseV2", "1 gemm", "1 of 2 blocks")
    assert [part for part in (*kinds, found.arithmetic) if part not in first] == []
    assert lines[3].split() == ["float16", "3", *LAYERS[3].title.split(), "[sm90_add]"]


def test_layers_without_nodes_count_no_blocks() -> None:
    found = engine_view.summarise_layers(tuple(_layer((), "Reformat", "float32", False, None) for _ in range(3)))
    assert (found.blocks, found.fused_blocks) == (0, 0)
    assert "blocks" not in engine_view.layer_lines(found)[0]


def test_inspect_gives_the_reason_for_missing_layers(source: Path) -> None:
    artifact = tensorrt_engine.build_artifact(source, RTX, SILENT)
    if cuda.missing() is None:
        pytest.skip("a GPU is here")
    text = manifest_view.as_text(artifact.path)
    assert text.splitlines()[-1].startswith("layers: ")
    assert re.search(r"^parity +not checked", text, re.MULTILINE)
    facts = json.loads(manifest_view.as_json(artifact.path))
    assert (facts["layers"], facts["engine"]["flavor"]) == (None, "rtx")
    assert "GPU" in facts["no_layers"]


def test_inspect_shows_the_layers_of_an_engine(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, source)
    artifact = tensorrt_engine.build_artifact(source, tensorrt_engine.EngineRequest(), SILENT)
    monkeypatch.setattr(engine_view, "inspect_layers", lambda _: LAYERS)  # the double's inspector knows no layers
    assert engine_view.layer_lines(engine_view.view(artifact))[0] in manifest_view.as_text(artifact.path)
    facts = json.loads(manifest_view.as_json(artifact.path))
    assert (facts["layers"]["fused_blocks"], facts["no_layers"]) == (1, None)
    assert facts["layers"]["layers"][1]["tactic"] == "sm90_fprop"


@pytest.mark.parametrize(
    ("weights", "axis", "sparse"),
    [
        (np.tile([1, 0, 0, 2], 4).reshape(2, 8), 1, True),
        (np.tile([1, 0, 3, 2], 4).reshape(2, 8), 1, False),
        (np.tile([1, 0, 0, 2], 4).reshape(2, 8).T, 0, True),
        (np.zeros((4, 3, 3, 3)), 1, False),  # three channels
        (np.zeros((4, 8, 3, 3)), 1, True),
    ],
)
def test_sparse_weights_are_recognised(weights: Array, axis: int, sparse: bool) -> None:
    assert is_sparse(weights, axis) == sparse


def test_sparse_kernels_without_sparse_weights_are_a_warning(source: Path) -> None:
    order = replace(RTX, settings=Settings(sparse_weights=True))
    heard, listener = recording()
    tensorrt_engine.build_artifact(source, order, listener)
    assert reason_codes(heard) == ["sparse-weights-absent", "engine-unchecked"]
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).copy()
        if values.ndim > 1 and values.shape[1] % 4 == 0:
            values.reshape(values.shape[0], -1, 4, *values.shape[2:])[:, :, :2] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, source)
    sparse, layers = count_sparse_layers(source)
    assert 0 < sparse == layers - 1  # all but the stem, which has three channels
