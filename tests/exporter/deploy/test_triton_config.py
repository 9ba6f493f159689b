"""Configurations of all precisions, backends and shapes are what Triton's own message takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.deploy import triton_config
from exporter.deploy.triton_settings import BACKENDS, TritonBackend, TritonSettings
from exporter.precision.table import PRECISIONS
from runtimes import Artifact, Manifest
from runtimes.artifacts.manifest import Engine, Profile
from runtimes.errors import ArtifactError, CompatibilityError, UsageError
from runtimes.tensors.spec import TensorSpec
from tests.refusals import refuses

ENGINE = Engine(
    flavor="tensorrt", version="10.13.0", gpu="NVIDIA H200", compute_capability="9.0", driver="13.0", targets=(),
    profiles=(Profile(1, 8, 16),), opt_level=3, workspace_bytes=None, tf32=False, hardware_compat="none",
    version_compat=False, stripped=False, onnx="resnet20.onnx", tolerance=5e-5,
)  # fmt: skip
RAW = TensorSpec("input", "uint8", ("batch", 32, 32, 3))
FIXED = TensorSpec("input", "float32", (4, 3, 32, 32))


@pytest.fixture(scope="module")
def manifest(onnx_artifact: Artifact) -> Manifest:
    """The manifest of an untrained ResNet-20, with labels."""
    assert onnx_artifact.manifest is not None
    return replace(onnx_artifact.manifest, labels=tuple(f"class {number}" for number in range(10)))


def written(manifest: Manifest, settings: TritonSettings | None = None) -> Any:
    """The configuration as Triton reads it: printed and parsed again, with nothing lost."""
    config = triton_config.build_config("net", manifest, settings or TritonSettings(), {1: manifest.sha256})
    parsed = triton_config.parse_config(triton_config.as_text(config), Path("config.pbtxt"))
    assert parsed == config
    return parsed


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_precisions_and_backends_parse(manifest: Manifest, precision: str, backend: TritonBackend) -> None:
    format = BACKENDS[backend].formats[0]
    made = replace(manifest, precision=precision, format=format, engine=ENGINE if format == "engine" else None)
    config = written(made, TritonSettings(backend))
    assert (config.backend, config.name, config.output[0].label_filename) == (backend, "net", "labels.txt")
    assert [list(entry.dims) for entry in (config.input[0], config.output[0])] == [[3, 32, 32], [10]]
    assert config.max_batch_size == (16 if format == "engine" else 32)
    assert {entry.inputs[name].input_data_file for entry in config.model_warmup for name in entry.inputs} == {
        f"{entry.name}.bin" for entry in config.input
    }


def test_the_python_backend_also_takes_image_files(manifest: Manifest) -> None:
    config = written(manifest, TritonSettings("python"))
    assert [(entry.name, entry.optional) for entry in config.input] == [("input", True), ("image", True)]
    without = written(replace(manifest, preprocessing=None), TritonSettings("python"))
    assert [(entry.name, entry.optional) for entry in without.input] == [("input", False)]


def test_the_settings_stand_in_the_configuration(manifest: Manifest) -> None:
    settings = TritonSettings("onnxruntime", 8, instances=2, threads=3, queue=5, delay_s=0.0015, device="cuda")
    config = written(manifest, settings)
    (group,) = config.instance_group
    batching = config.dynamic_batching
    assert (config.max_batch_size, group.count, group.kind) == (8, 2, group.KIND_GPU)
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    assert (batching.max_queue_delay_microseconds, batching.default_queue_policy.max_queue_size) == (1500, 5)
    python = written(manifest, TritonSettings("python", threads=3, opened_with="openvino"))
    assert {key: value.string_value for key, value in python.parameters.items()} == {
        "rexport.file": "model.onnx",
        "rexport.sha256.1": manifest.sha256,
        "rexport.device": "cpu",
        "rexport.threads": "3",
        "rexport.backend": "openvino",
    }
    openvino = written(manifest, TritonSettings("openvino", threads=3))
    assert openvino.parameters["INFERENCE_NUM_THREADS"].string_value == "3"


def test_a_fixed_batch_stands_in_the_dimensions(manifest: Manifest) -> None:
    fixed = replace(manifest, inputs=(FIXED,), outputs=(TensorSpec("logits", "float32", (4, 10)),))
    config = written(fixed, TritonSettings("python"))
    assert config.max_batch_size == 0
    assert [list(entry.dims) for entry in config.input] == [[4, 3, 32, 32], [4]]
    assert not config.HasField("dynamic_batching")
    with refuses(UsageError, "triton-batch-mismatch", 4, 8):
        written(fixed, TritonSettings(largest_batch=8))


def test_one_output_of_two_classes_has_no_label(manifest: Manifest) -> None:
    """Triton would give the score of the second class the first label."""
    single = (TensorSpec("logits", "float32", ("batch", 1)),)
    for labels, name in ((("cat", "dog"), ""), (("defect",), "labels.txt"), (None, "")):
        config = written(replace(manifest, outputs=single, labels=labels))
        assert config.output[0].label_filename == name


def test_raw_pixels_and_several_outputs(manifest: Manifest) -> None:
    outputs = (*manifest.outputs, TensorSpec("cam", "float32", ("batch", 10, 8, 8)))
    config = written(replace(manifest, inputs=(RAW,), outputs=outputs))
    assert (config.input[0].data_type, list(config.input[0].dims)) == (2, [32, 32, 3])  # TYPE_UINT8
    assert [(entry.name, entry.label_filename) for entry in config.output] == [("logits", "labels.txt"), ("cam", "")]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("max_batch: 8", "1:1"),
        ('max_batch_size: "8"', "1:17"),
        ("\ninput{data_type:TYPE_FLOAT}", "2:17"),
        ('name: "net', "1:7"),
    ],
)
def test_a_wrong_field_is_refused_by_its_place(text: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text(text)
    with refuses(ArtifactError, "triton-config-invalid", tmp_path, place):
        triton_config.read_config(tmp_path)


def test_a_model_of_others_is_refused(tmp_path: Path) -> None:
    with refuses(ArtifactError, "triton-folder-foreign", tmp_path):
        triton_config.read_config(tmp_path)
    (tmp_path / "config.pbtxt").write_text('name: "net"\nbackend: "onnxruntime"\n')
    with refuses(ArtifactError, "triton-folder-foreign", tmp_path):
        triton_config.read_config(tmp_path)


ENGINE_16 = {"format": "engine", "engine": ENGINE}


@pytest.mark.parametrize(
    ("fields", "settings", "kind", "code"),
    [
        ({}, TritonSettings("tensorrt"), CompatibilityError, "triton-backend-mismatch"),
        ({"format": "fake"}, TritonSettings(), CompatibilityError, "triton-backend-mismatch"),
        ({"format": "pt2"}, TritonSettings("onnxruntime"), CompatibilityError, "triton-backend-mismatch"),
        ({}, TritonSettings("openvino", device="cuda"), UsageError, "triton-device-mismatch"),
        (ENGINE_16, TritonSettings(device="cpu"), UsageError, "triton-device-mismatch"),
        (ENGINE_16, TritonSettings(threads=1), UsageError, "triton-no-threads"),
        (ENGINE_16, TritonSettings(largest_batch=17), UsageError, "triton-batch-mismatch"),
        ({}, TritonSettings(opened_with="openvino"), UsageError, "triton-opens-itself"),
        ({}, TritonSettings("python", opened_with="nothing"), UsageError, "backend-unknown"),
        ({}, TritonSettings("python", opened_with="pytorch"), UsageError, "triton-opener-mismatch"),
        ({"outputs": (TensorSpec("y", "complex64", ("n", 2)),)}, TritonSettings(), CompatibilityError,
         "triton-dtype-unknown"),
        (ENGINE_16 | {"engine": replace(ENGINE, stripped=True)}, TritonSettings("python"), CompatibilityError,
         "triton-stripped-engine"),
        (ENGINE_16 | {"engine": replace(ENGINE, flavor="rtx")}, TritonSettings(), CompatibilityError,
         "triton-rtx-engine"),
        (ENGINE_16 | {"engine": replace(ENGINE, profiles=(Profile(2, 4, 8),))}, TritonSettings(), CompatibilityError,
         "triton-batches-too-large"),
    ],
)  # fmt: skip
def test_what_triton_cannot_do_is_refused(
    manifest: Manifest, fields: dict[str, Any], settings: TritonSettings, kind: Any, code: str
) -> None:
    with refuses(kind, code):
        triton_config.build_config("net", replace(manifest, **fields), settings, {})
