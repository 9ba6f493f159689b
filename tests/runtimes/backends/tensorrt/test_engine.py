"""An engine's way into the library: the very bytes that its manifest records, and its weights where it has none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtimes import Artifact, TensorSpec, files
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
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.engines import manifest_of, published
from tests.runtimes.backends.tensorrt.networks import NETWORK
from tests.samples import copied

TENSORRT = FLAVORS["tensorrt"]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return double.installed(monkeypatch)


def loaded(artifact: Artifact) -> LoadedEngine:
    about = manifest_of(artifact).engine
    assert about is not None
    return deserialise(artifact, about, TENSORRT)


def test_the_bytes_of_the_manifest_reach_the_library(recorder: Recorder, tmp_path: Path) -> None:
    artifact = published(tmp_path)
    found = loaded(artifact)
    assert recorder.deserialised == [artifact.path.read_bytes()]
    assert specs(found) == (NETWORK.inputs, NETWORK.outputs)
    assert found.library.__name__ == "tensorrt"


def test_bytes_that_changed_since_the_digest_was_checked_do_not(recorder: Recorder, tmp_path: Path) -> None:
    artifact = published(tmp_path)
    artifact.check_digest()
    artifact.path.write_bytes(artifact.path.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=r"its bytes are not those .*\(build it again: rexport tensorrt"):
        loaded(artifact)
    assert recorder.deserialised == []


def test_anothers_plan_under_a_manifest_of_this_library(recorder: Recorder, tmp_path: Path) -> None:
    """Only who writes the manifest can make this, and the library must not be asked all the same."""
    artifact = published(tmp_path)
    artifact.path.write_bytes(double.plan(NETWORK, b"vtrt"))
    changed = replace(manifest_of(artifact), sha256=files.sha256_of(artifact.path))
    with pytest.raises(IntegrityError, match="says that it is of TensorRT, and it does not begin like that"):
        loaded(replace(artifact, manifest=changed))
    assert recorder.deserialised == []


def test_a_refusal_has_the_librarys_words(recorder: Recorder, tmp_path: Path) -> None:
    artifact = published(tmp_path)
    artifact.path.write_bytes(b"ftrt what only a newer library understands")
    artifact = replace(artifact, manifest=replace(manifest_of(artifact), sha256=files.sha256_of(artifact.path)))
    with pytest.raises(CompatibilityError, match=r"TensorRT refused it: .*no such plan.*\(build it again: rexport"):
        loaded(artifact)
    assert len(recorder.deserialised) == 1


def failing(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """Makes the double's library say this and give nothing."""

    class Refusing:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> None:  # noqa: ARG002
            self._logger.log(sys.modules["tensorrt"].ILogger.Severity.ERROR, words)

    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", Refusing)


def test_too_little_memory_is_no_mismatch(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not recorder.deserialised
    failing(monkeypatch, "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)")
    with pytest.raises(ResourceError, match=r"the GPU's memory does not hold it: .*out of memory"):
        loaded(published(tmp_path))


def test_a_library_without_a_driver(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not recorder.deserialised

    def nothing(_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", nothing)
    with pytest.raises(BackendUnavailableError, match="TensorRT finds no usable NVIDIA driver"):
        loaded(published(tmp_path))


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
    loaded(published(tmp_path, version_compat=True))
    loaded(published(tmp_path))
    assert allowed == [True, False]


@pytest.fixture
def stripped(recorder: Recorder, tmp_path: Path, onnx_artifact: Artifact) -> Artifact:
    """An engine without weights, and the ONNX file beside it that has them."""
    assert not recorder.calls
    copied(onnx_artifact, tmp_path)
    network = replace(NETWORK, stripped=True)
    return published(tmp_path, network, onnx=onnx_artifact.path.name, parent=manifest_of(onnx_artifact).sha256)


def test_a_stripped_engine_gets_its_weights_from_the_file_beside_it(stripped: Artifact, recorder: Recorder) -> None:
    loaded(stripped)
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
    ("spoil", "kind", "words"),
    [
        (missing_onnx, ArtifactError, r"built without its weights, and resnet20.onnx, .* does not lie beside it"),
        (another_onnx, IntegrityError, r"is not the file that it was built from \(build it again: rexport tensorrt"),
        (elsewhere, UnsafeArtifactError, "names a file outside its folder"),
    ],
)
def test_weights_from_another_file_are_refused(
    spoil: Callable[[Artifact, Path], Artifact],
    kind: type[RexportError],
    words: str,
    stripped: Artifact,
    recorder: Recorder,
) -> None:
    with pytest.raises(kind, match=words):
        loaded(spoil(stripped, stripped.path.with_name("resnet20.onnx")))
    assert recorder.count("refit_from_file") == 0


def test_weights_that_are_replaced_meanwhile_are_refused(stripped: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    refit = double.OnnxParserRefitter.refit_from_file

    def slow(parser: double.OnnxParserRefitter, model: str) -> bool:
        os.utime(stripped.path.with_name("resnet20.onnx"))
        return refit(parser, model)

    monkeypatch.setattr(double.OnnxParserRefitter, "refit_from_file", slow)
    with pytest.raises(IntegrityError, match=r"replaced while the engine's weights were taken .*open the engine again"):
        loaded(stripped)


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
    with pytest.raises(
        ArtifactError, match="TensorRT cannot take the engine's weights from it: conv1/Conv has another"
    ):
        loaded(stripped)
    monkeypatch.setattr(sys.modules["tensorrt"], "OnnxParserRefitter", lambda *_: Silent())
    with pytest.raises(CompatibilityError, match="TensorRT did not take all weights"):
        loaded(stripped)


class Silent:
    """Says that it refitted, and did not."""

    def refit_from_file(self, model: str) -> bool:  # noqa: ARG002
        return True


def test_inputs_of_a_type_that_no_runtime_takes(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not recorder.deserialised
    found = loaded(published(tmp_path))
    monkeypatch.setitem(double._DTYPES, "float32", sys.modules["tensorrt"].DataType.BF16)
    with pytest.raises(CompatibilityError, match="input has the type BF16, which no runtime here takes"):
        specs(found)


def test_a_dimension_that_varies_has_a_name(recorder: Recorder, tmp_path: Path) -> None:
    assert not recorder.deserialised
    network = replace(NETWORK, inputs=(TensorSpec("input", "float32", (4, 3, "height", 8)),))
    found = loaded(published(tmp_path, network))
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
    with pytest.raises(BackendUnavailableError, match="CUDA driver version is insufficient"):
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
