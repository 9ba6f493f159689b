from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import openvino
import pytest

from exporter.explain import explanation
from exporter.explain.explanation import Explanation, ExplanationRequest, as_json, explain
from exporter.export_request import ExportRequest
from exporter.models.variants import Variant
from exporter.precision.layer_errors import size_of
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file, torch_program
from runtimes import Artifact, available_backends, codec
from runtimes.artifacts.artifact import manifest_path
from runtimes.errors import (
    ArtifactError,
    CompatibilityError,
    IntegrityError,
    ModelMismatchError,
    ResourceError,
    UsageError,
)
from tests.exporter import small, spoilt
from tests.exporter.small import SILENT
from tests.refusals import refuses

Make = Callable[..., Artifact]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Artifacts of the small bottleneck network, by precision; each is made once, and not to be changed."""

    @cache
    def made(precision: str = "fp32", variant: Variant = small.BOTTLENECK, **request: Any) -> Artifact:
        out = f"{tmp_path_factory.mktemp(precision)}/{precision}.onnx"
        precision_spec = (
            PrecisionSpec(precision, calibration_images=8, gate_images=8)
            if precision == "int8"
            else PrecisionSpec(precision)
        )
        return onnx_file.export(ExportRequest(variant, out, **request), SILENT, None, precision_spec)

    return made


def copy_artifact(artifact: Artifact, folder: Path) -> Path:
    """The artifact with all that belongs to it, where a test may spoil it."""
    for place in artifact.path.parent.iterdir():
        shutil.copyfile(place, folder / place.name)
    return folder / artifact.path.name


def copy_model_alone(artifact: Artifact, folder: Path) -> Path:
    """The model file alone."""
    return Path(shutil.copyfile(artifact.path, folder / "foreign.onnx"))


def explain_file(path: Path, **options: Any) -> Explanation:
    return explain(ExplanationRequest(path, threads=1, **options), SILENT)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_int8_artifact_is_explained_in_both_halves(make: Make, backend: str) -> None:
    artifact = make("int8")
    found = explain_file(artifact.path, backend=backend)
    assert (found.artifact, found.precision) == (str(artifact.path), "int8")
    assert found.no_execution is found.no_errors is None
    assert found.execution is not None
    assert found.execution.description.backend == backend
    assert found.execution.description.threads == 1
    assert (found.execution.precisions, found.execution.kept) == ({"int8": 13}, 13)
    errors = found.errors
    assert errors is not None
    assert errors.reference.endswith("fp32")
    assert errors.images.endswith("seed 0")
    assert errors.runtime.startswith("onnxruntime ")
    assert 1e-3 < size_of(errors.written) < 0.5
    assert size_of(errors.ran) == pytest.approx(size_of(errors.written), rel=0.3)
    ran = {block.name for stage in found.execution.stages for block in stage.blocks or (stage,)}
    assert ran == {block.name for stage in errors.stages for block in stage.blocks}


def test_another_file_can_be_what_it_is_compared_with(make: Make) -> None:
    made, named = (explain_file(make("int8").path, against=against) for against in (None, make().path))
    assert made.errors is not None
    assert named.errors is not None
    assert named.errors.reference == "fp32.onnx"
    assert size_of(named.errors.written) == pytest.approx(size_of(made.errors.written), rel=1e-3)


def test_half_precision_that_runs_in_float32_is_shown(make: Make) -> None:
    found = explain_file(make("fp16").path, backend="openvino", against=make().path)
    assert found.execution is not None
    assert found.errors is not None
    if "FP16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert (found.execution.precisions, found.execution.kept) == ({"float32": 13}, 0)
        assert size_of(found.errors.ran) < size_of(found.errors.written)
    assert 1e-4 < size_of(found.errors.written) < 1e-2


def test_a_runtime_that_cannot_run_it_leaves_the_errors(make: Make) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("no runtime here runs bfloat16, so there is no artifact of it")
    artifact = make("bf16")
    found = explain_file(artifact.path, backend="onnxruntime", against=make().path)
    assert found.execution is None
    assert found.no_execution is not None
    assert [value for value in ("Conv", "bfloat16", "conv1") if value not in found.no_execution.sentence] == []
    assert found.errors is not None
    assert found.errors.ran is None
    assert 1e-3 < size_of(found.errors.written) < 1e-1
    unasked = explain_file(artifact.path, against=make().path)
    assert unasked.execution is not None
    assert unasked.execution.precisions == {"bfloat16": 13}


def test_an_fp32_artifact_has_nothing_to_be_off_from(make: Make) -> None:
    found = explain_file(make().path)
    assert found.execution is not None
    assert found.errors is None
    assert found.no_errors is not None
    assert found.no_errors.code == "already-fp32"
    assert "--against" in found.no_errors.sentence


def test_a_foreign_file_is_what_its_layers_are(make: Make, tmp_path: Path) -> None:
    path = copy_model_alone(make("int8"), tmp_path)
    found = explain_file(path)
    assert found.precision == "int8"
    assert found.execution is not None
    assert found.execution.kept == 13
    assert found.no_errors is not None
    assert found.no_errors.code == "reference-unknown"
    assert "--against" in found.no_errors.sentence
    against = explain_file(path, against=make().path)
    assert against.errors is not None
    assert against.errors.images.endswith("seed 0")


def test_two_foreign_files_have_nothing_to_compare_on(make: Make, tmp_path: Path) -> None:
    other = Path(shutil.copyfile(make().path, tmp_path / "fp32.onnx"))
    path = copy_model_alone(make("int8"), tmp_path)
    with refuses(CompatibilityError, "vectors-missing", "foreign.onnx"):
        explain_file(path, against=other)
    with refuses(UsageError, "data-needs-preprocessing", "--data"):
        explain_file(path, against=other, data="fashion-mnist")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return torch_program.export(ExportRequest(small.BASIC, f"{tmp_path_factory.mktemp('program')}/"), SILENT)


def test_a_program_is_explained_by_what_ran(program: Artifact) -> None:
    found = explain_file(program.path)
    assert found.execution is not None
    assert (found.execution.precisions, found.execution.kept) == ({"float32": 8}, 8)
    assert [stage.name for stage in found.execution.stages] == ["stem", "layer1", "layer2", "layer3", "head"]
    assert found.no_errors is not None
    assert found.no_errors.code == "layers-hidden"
    assert ".pt2" in found.no_errors.sentence


def test_both_reasons_are_given_where_both_halves_are_missing(program: Artifact) -> None:
    (inductor,) = (backend for backend in available_backends() if backend.name == "inductor")
    if inductor.missing() is not None:
        pytest.skip(f"inductor cannot run here: {inductor.missing()}")
    with refuses(CompatibilityError, "nothing-to-explain", program.path, "inductor", ".pt2"):
        explain_file(program.path, backend="inductor")


def test_a_foreign_file_that_nothing_runs_cannot_be_explained(make: Make, tmp_path: Path) -> None:
    graph = onnx.load(make().path)
    spoilt.named(graph, "layer1.0/Add").op_type = "Invented"
    with refuses(CompatibilityError, "nothing-to-explain", "odd.onnx", "fp32"):
        explain_file(spoilt.written(graph, tmp_path / "odd.onnx"))


def test_the_reference_must_be_fp32_of_the_same_weights(make: Make, program: Artifact, tmp_path: Path) -> None:
    artifact = make("int8")
    with refuses(UsageError, "against-not-fp32", "int8.onnx", "--against", "fp32", "int8"):
        explain_file(artifact.path, against=artifact.path)
    with refuses(ModelMismatchError, "against-other-weights", "int8.onnx", "--against"):
        explain_file(artifact.path, against=make(seed=1).path)
    with refuses(ModelMismatchError, "networks-differ", "layer1.0.conv3/Conv"):
        explain_file(copy_model_alone(artifact, tmp_path), against=make(variant=small.BASIC).path)
    with refuses(ResourceError, "file-access-failed", "nothing.onnx"):
        explain_file(artifact.path, against=tmp_path / "nothing.onnx")
    with refuses(UsageError, "against-not-onnx", "--against", "ONNX", "pt2"):
        explain_file(artifact.path, against=program.path)


def test_what_onnx_cannot_read_is_named(make: Make, tmp_path: Path) -> None:
    graph = onnx.load(make().path)
    tensor = b"\x0a\x01\xff"  # dims, packed: a number that does not end
    odd = b"\x3a" + bytes([len(tensor) + 2]) + b"\x2a" + bytes([len(tensor)]) + tensor
    (tmp_path / "odd.onnx").write_bytes(graph.SerializeToString() + odd)
    with refuses(ArtifactError, "onnx-unreadable", "odd.onnx"):
        explain_file(make("int8").path, against=tmp_path / "odd.onnx")


def test_weights_that_are_gone_leave_what_ran(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from exporter.models.resnet import build

    weights = tmp_path / "weights.safetensors"
    save_file(build(small.BOTTLENECK).state_dict(), weights)
    artifact = onnx_file.export(
        ExportRequest(small.BOTTLENECK, f"{tmp_path}/fp16.onnx", weights=str(weights)),
        SILENT,
        None,
        PrecisionSpec("fp16"),
    )
    weights.unlink()
    found = explain_file(artifact.path)
    assert found.execution is not None
    assert found.no_errors is not None
    assert found.no_errors.code == "fp32-weights-lost"
    assert "--against" in found.no_errors.sentence


def test_a_damaged_artifact_is_not_explained(make: Make, tmp_path: Path) -> None:
    path = copy_artifact(make("int8"), tmp_path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with refuses(IntegrityError, "file-digest-mismatch", path):
        explain_file(path)
    with refuses(IntegrityError, "file-digest-mismatch", path):
        explain_file(make("int8").path, against=path)


def test_changed_vectors_are_no_reason_but_an_error(make: Make, tmp_path: Path) -> None:
    path = copy_artifact(make("int8"), tmp_path)
    (vectors,) = tmp_path.glob("*.npz")
    vectors.write_bytes(vectors.read_bytes() + b"\0")
    with refuses(IntegrityError, "vectors-digest-mismatch", vectors):
        explain_file(path)


def test_a_runtime_that_does_not_exist_is_the_askers_error(make: Make) -> None:
    with refuses(UsageError, "backend-unknown", "tensorflow"):
        explain_file(make("int8").path, backend="tensorflow")


def test_data_takes_the_place_of_the_test_vectors(make: Make) -> None:
    found = explain_file(make("int8").path, against=make().path, data="fashion-mnist", images=5)
    assert found.errors is not None
    assert (found.errors.images.split()[0], found.errors.images.split()[-1]) == ("5", "fashion-mnist")
    with refuses(UsageError, "dataset-unknown", "nowhere"):
        explain_file(make("int8").path, against=make().path, data="nowhere")


def test_raw_input_is_explained_against_raw_and_against_float(make: Make) -> None:
    artifact = make("int8", raw=True)
    own, other = explain_file(artifact.path), explain_file(artifact.path, against=make().path)
    assert own.execution is not None
    assert own.execution.kept == 13
    assert own.errors is not None
    assert other.errors is not None
    assert size_of(own.errors.written) == pytest.approx(size_of(other.errors.written), rel=1e-2)


def test_normalised_vectors_do_not_go_into_raw_input(make: Make, tmp_path: Path) -> None:
    raw = make(raw=True)
    with refuses(CompatibilityError, "vectors-not-raw", "--data"):
        explain_file(make("fp16").path, against=raw.path)
    found = explain_file(make("fp16").path, against=raw.path, data="fashion-mnist", images=2)
    assert found.errors is not None
    path = copy_artifact(raw, tmp_path)
    manifest = Artifact.read(path).manifest
    assert manifest is not None
    manifest_path(path).write_text(codec.dumps(replace(manifest, preprocessing=None)))
    with refuses(CompatibilityError, "normalisation-unknown"):
        explain_file(copy_model_alone(make("int8"), tmp_path), against=path)


def test_a_fixed_batch_is_filled_and_the_filling_does_not_count(make: Make) -> None:
    fixed = explain_file(make("fp16", batch=4).path)
    free = explain_file(make("fp16").path)
    assert fixed.errors is not None
    assert free.errors is not None
    assert size_of(fixed.errors.written) == pytest.approx(size_of(free.errors.written), rel=1e-2)
    with refuses(CompatibilityError, "fixed-batches-differ", "2", "4", "--batch"):
        explain_file(make("fp16", batch=4).path, against=make(batch=2).path)


def test_a_graph_too_large_to_be_looked_into_is_still_profiled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "LIMIT_BYTES", 1000)
    found = explain_file(make("fp16").path)
    assert found.execution is not None
    assert found.no_errors is not None
    assert found.no_errors.code == "graph-too-large"
    assert "1,000" in found.no_errors.sentence


def test_answers_that_are_not_finite_are_no_number(make: Make, tmp_path: Path) -> None:
    graph = spoilt.misscaled(onnx.load(make("int8").path), "fc/Gemm", 1e40)
    found = explain_file(spoilt.written(graph, tmp_path / "broken.onnx"), against=make().path)
    assert found.errors is not None
    assert math.isinf(size_of(found.errors.written))
    assert found.errors.stages[0].name == "head"
    assert json.loads(as_json(found))["errors"]["written"] is None


def test_the_json_holds_all_of_it(make: Make) -> None:
    found = explain_file(make("int8").path, against=make().path)
    data = json.loads(as_json(found))
    assert data["execution"]["stages"][0]["name"] == "stem"
    assert data["execution"]["precisions"] == {"int8": 13}
    codes = dict.fromkeys(("no_execution_code", "no_errors_code", "no_deviation_code"))
    assert data == codec.encode(found) | codes


def test_a_reason_is_a_sentence_and_a_code_in_json(program: Artifact) -> None:
    found = explain_file(program.path)
    assert found.no_errors is not None
    data = json.loads(as_json(found))
    assert (data["no_errors"], data["no_errors_code"]) == (found.no_errors.sentence, found.no_errors.code)
    assert (data["no_execution"], data["no_execution_code"]) == (None, None)
