"""An engine's way into the library: the very bytes that its manifest records, and its weights where it has none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtimes import Artifact, TensorSpec, codec, files
from runtimes.artifacts.artifact import manifest_path
from runtimes.artifacts.formats import FORMATS
from runtimes.backends.tensorrt import engine_manifest
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.engine import LoadedEngine, deserialise, specs
from runtimes.backends.tensorrt.flavors import FLAVORS
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    IntegrityError,
    ResourceError,
    RexportError,
    UnsafeArtifactError,
)
from runtimes.tensors import cuda
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.engines import manifest_of, publish_script_engine
from tests.runtimes.backends.tensorrt.networks import NETWORK
from tests.samples import copied

TENSORRT = FLAVORS["tensorrt"]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return double.installed(monkeypatch)


def load_engine(artifact: Artifact) -> LoadedEngine:
    about = manifest_of(artifact).engine
    assert about is not None
    return deserialise(artifact, about, TENSORRT)


def test_the_bytes_of_the_manifest_reach_the_library(recorder: Recorder, tmp_path: Path) -> None:
    artifact = publish_script_engine(tmp_path)
    found = load_engine(artifact)
    assert recorder.deserialised == [artifact.path.read_bytes()]
    assert specs(found) == (NETWORK.inputs, NETWORK.outputs)
    assert found.library.__name__ == "tensorrt"


def test_bytes_that_changed_since_the_digest_was_checked_do_not(recorder: Recorder, tmp_path: Path) -> None:
    artifact = publish_script_engine(tmp_path)
    artifact.check_digest()
    artifact.path.write_bytes(artifact.path.read_bytes() + b" ")
    with refuses(IntegrityError, "engine-digest-mismatch", "again: rexport tensorrt"):
        load_engine(artifact)
    assert recorder.deserialised == []


def test_unknown_first_bytes_are_the_librarys_to_judge(recorder: Recorder, tmp_path: Path) -> None:
    artifact = publish_script_engine(tmp_path)
    artifact.path.write_bytes(double.plan(NETWORK, b"????"))
    changed = replace(manifest_of(artifact), sha256=files.sha256_of(artifact.path))
    manifest_path(artifact.path).write_text(codec.dumps(changed), encoding="utf-8")
    load_engine(Artifact.read(artifact.path))
    assert [plan[:4] for plan in recorder.deserialised] == [b"????"]
    artifact.path.write_bytes(double.plan(NETWORK, b"!!!!"))
    with refuses(IntegrityError, "file-digest-mismatch"):
        Artifact.read(artifact.path)


def test_anothers_plan_under_a_manifest_of_this_library(recorder: Recorder, tmp_path: Path) -> None:
    """Only who writes the manifest can make this, and the library must not be asked all the same."""
    artifact = publish_script_engine(tmp_path)
    artifact.path.write_bytes(double.plan(NETWORK, b"vtrt"))
    changed = replace(manifest_of(artifact), sha256=files.sha256_of(artifact.path))
    with refuses(IntegrityError, "engine-flavor-mismatch", "TensorRT"):
        load_engine(replace(artifact, manifest=changed))
    assert recorder.deserialised == []


def test_a_refusal_has_the_librarys_words(recorder: Recorder, tmp_path: Path) -> None:
    artifact = publish_script_engine(tmp_path)
    artifact.path.write_bytes(b"ftrt what only a newer library understands")
    artifact = replace(artifact, manifest=replace(manifest_of(artifact), sha256=files.sha256_of(artifact.path)))
    with refuses(CompatibilityError, "engine-refused", "TensorRT", "no such plan", "again: rexport tensorrt"):
        load_engine(artifact)
    assert len(recorder.deserialised) == 1


def make_library_fail(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """Makes the double's library say this and give nothing."""

    class Refusing:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> None:  # noqa: ARG002
            self._logger.log(sys.modules["tensorrt"].ILogger.Severity.ERROR, words)

    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", Refusing)


def test_too_little_memory_is_no_mismatch(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not recorder.deserialised
    make_library_fail(monkeypatch, "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)")
    with refuses(ResourceError, "engine-exceeds-memory", "out of memory"):
        load_engine(publish_script_engine(tmp_path))


def test_a_library_without_a_driver(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not recorder.deserialised

    def nothing(_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", nothing)
    with refuses(BackendUnavailableError, "driver-unusable", "TensorRT"):
        load_engine(publish_script_engine(tmp_path))


def test_an_engine_for_later_versions_may_bring_its_runtime(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT refuses such an engine unless it is told that the code in it may run; no other engine may bring any."""
    assert not recorder.deserialised
    allowed: list[bool] = []
    true = sys.modules["tensorrt"].Runtime.deserialize_cuda_engine

    def noticed(self: Any, plan: bytes) -> object:
        allowed.append(self.engine_host_code_allowed)
        return true(self, plan)

    monkeypatch.setattr(sys.modules["tensorrt"].Runtime, "deserialize_cuda_engine", noticed)
    load_engine(publish_script_engine(tmp_path, version_compat=True))
    load_engine(publish_script_engine(tmp_path))
    assert allowed == [True, False]


@pytest.fixture
def stripped(recorder: Recorder, tmp_path: Path, onnx_artifact: Artifact) -> Artifact:
    """An engine without weights, and the ONNX file beside it that has them."""
    assert not recorder.calls
    copied(onnx_artifact, tmp_path)
    network = replace(NETWORK, stripped=True)
    return publish_script_engine(
        tmp_path, network, onnx=onnx_artifact.path.name, parent=manifest_of(onnx_artifact).sha256
    )


def test_a_stripped_engine_gets_weights_from_its_onnx_file(stripped: Artifact, recorder: Recorder) -> None:
    load_engine(stripped)
    assert recorder.count("refit_from_file") == 1


def missing_onnx(stripped: Artifact, onnx: Path) -> Artifact:
    onnx.unlink()
    return stripped


def another_onnx(stripped: Artifact, onnx: Path) -> Artifact:
    onnx.with_name(f"{onnx.name}.json").unlink()
    onnx.write_bytes(onnx.read_bytes() + b"\x7a\x00")
    return stripped


def elsewhere(stripped: Artifact, onnx: Path) -> Artifact:
    manifest = manifest_of(stripped)
    assert manifest.engine is not None
    return replace(stripped, manifest=replace(manifest, engine=replace(manifest.engine, onnx=f"../{onnx.name}")))


@pytest.mark.parametrize(
    ("spoil", "kind", "code", "value"),
    [
        (missing_onnx, ArtifactError, "engine-weights-absent", "resnet20.onnx"),
        (another_onnx, IntegrityError, "engine-weights-mismatch", "again: rexport tensorrt"),
        (elsewhere, UnsafeArtifactError, "manifest-names-outside", ""),
    ],
)
def test_weights_from_another_file_are_refused(
    spoil: Callable[[Artifact, Path], Artifact],
    kind: type[RexportError],
    code: str,
    value: str,
    stripped: Artifact,
    recorder: Recorder,
) -> None:
    with refuses(kind, code, value):
        load_engine(spoil(stripped, stripped.path.with_name("resnet20.onnx")))
    assert recorder.count("refit_from_file") == 0


def test_weights_that_are_replaced_meanwhile_are_refused(stripped: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    refit = double.OnnxParserRefitter.refit_from_file

    def slow(parser: double.OnnxParserRefitter, model: str) -> bool:
        os.utime(stripped.path.with_name("resnet20.onnx"))
        return refit(parser, model)

    monkeypatch.setattr(double.OnnxParserRefitter, "refit_from_file", slow)
    with refuses(IntegrityError, "weights-replaced-during-refit", "open the engine"):
        load_engine(stripped)


def test_a_refit_that_fails_names_the_nodes(stripped: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reason:
        def desc(self) -> str:
            return "conv1/Conv has another shape"

    class Failing:
        num_errors = 1

        def __init__(self, *_: object) -> None: ...

        def refit_from_file(self, model: str) -> bool:  # noqa: ARG002
            return False

        def get_error(self, index: int) -> Reason:  # noqa: ARG002
            return Reason()

    monkeypatch.setattr(sys.modules["tensorrt"], "OnnxParserRefitter", Failing)
    with refuses(ArtifactError, "engine-weights-unreadable", "TensorRT", "conv1/Conv"):
        load_engine(stripped)
    monkeypatch.setattr(sys.modules["tensorrt"], "OnnxParserRefitter", lambda *_: Silent())
    with refuses(CompatibilityError, "engine-weights-incomplete", "TensorRT"):
        load_engine(stripped)


class Silent:
    """Says that it refitted, and did not."""

    def refit_from_file(self, model: str) -> bool:  # noqa: ARG002
        return True


def test_inputs_of_a_type_that_no_runtime_takes(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not recorder.deserialised
    found = load_engine(publish_script_engine(tmp_path))
    monkeypatch.setitem(double._DTYPES, "float32", sys.modules["tensorrt"].DataType.BF16)
    with refuses(CompatibilityError, "tensor-type-unsupported", "input", "BF16"):
        specs(found)


def test_a_dimension_that_varies_has_a_name(recorder: Recorder, tmp_path: Path) -> None:
    assert not recorder.deserialised
    network = replace(NETWORK, inputs=(TensorSpec("input", "float32", (4, 3, "height", 8)),))
    found = load_engine(publish_script_engine(tmp_path, network))
    assert specs(found)[0] == (TensorSpec("input", "float32", (4, 3, "dim2", 8)),)


@pytest.mark.skipif(cuda.missing() is None, reason="there is a GPU here, which may take the engine")
def test_the_real_library_refuses_in_its_own_words(onnx_artifact: Artifact, tmp_path: Path) -> None:
    """TensorRT-RTX builds here for real, and cannot deserialise without a driver."""
    flavor, settings = FLAVORS["rtx"], Settings()
    source = copied(onnx_artifact, tmp_path)
    built = build(source.path, settings, flavor)
    plan = tmp_path / "resnet20.engine"
    plan.write_bytes(built.plan)
    manifest = engine_manifest.manifest(source, plan, built, settings, flavor, None)
    artifact = Artifact(plan, FORMATS["engine"], manifest)
    assert manifest.engine is not None
    with refuses(BackendUnavailableError, "driver-unusable", "driver version"):
        deserialise(artifact, manifest.engine, flavor)


def test_the_record_of_an_engine(onnx_artifact: Artifact, tmp_path: Path) -> None:
    flavor, settings = FLAVORS["rtx"], Settings(opt_level=1, targets=("8.9",))
    built = build(onnx_artifact.path, settings, flavor)
    plan = tmp_path / "resnet20.engine"
    plan.write_bytes(built.plan)
    found, parent = (
        engine_manifest.manifest(onnx_artifact, plan, built, settings, flavor, None),
        manifest_of(onnx_artifact),
    )
    assert found.engine is not None
    assert parent.parity is not None
    assert (found.format, found.sha256, found.parent) == ("engine", files.sha256_of(plan), parent.sha256)
    assert (found.name, found.weights, found.inputs, found.precision) == (
        *(parent.name, parent.weights, parent.inputs, parent.precision),
    )
    assert (found.parity, found.gate, found.vectors, found.opset) == (None, None, None, None)
    assert found.producers == {**parent.producers, "tensorrt_rtx": flavor.version()}
    about = found.engine
    assert (about.flavor, about.version, about.gpu, about.driver) == ("rtx", flavor.version(), None, None)
    assert (about.opt_level, about.targets, about.onnx) == (1, ("8.9",), "resnet20.onnx")
    assert about.tolerance == parent.parity.tolerance
    assert about.profiles == built.profiles
    foreign = Artifact(onnx_artifact.path, onnx_artifact.format, None)
    found = engine_manifest.manifest(
        foreign, plan, built, settings, flavor, cuda.Device(0, "NVIDIA L4", "8.9", "13.0", 1)
    )
    assert found.engine is not None
    assert (found.parent, found.precision, found.labels) == (parent.sha256, "float32", None)
    assert (found.engine.gpu, found.engine.compute_capability, found.engine.driver) == ("NVIDIA L4", "8.9", "13.0")
    assert found.engine.tolerance is None
