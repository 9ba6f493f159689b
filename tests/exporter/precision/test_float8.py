"""fp8 of a network of two stages: its graph, its values in two evaluators, its gate, and engines of TensorRT-RTX."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx as onnx_library
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import runtimes
from exporter.data.noise import noise
from exporter.export_request import ExportRequest
from exporter.models.variants import Variant
from exporter.network import prepare
from exporter.precision import float8
from exporter.precision.float8 import LARGEST, SMALLEST_NORMAL, layers_without_gain, quantise_to_float8
from exporter.precision.recipes import RECIPES
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file, tensorrt_engine
from exporter.targets.tensorrt_engine import EngineRequest
from runtimes import Artifact, files
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.errors import CompatibilityError, UsageError
from runtimes.onnx import graph as onnxfile
from tests.exporter.small import BASIC, SILENT, export, reason_codes, recording
from tests.refusals import refuses

WIDE = Variant("small-wide8", "basic", (1, 1), (32, 64), "cifar", "A", classes=10, size=(16, 16))
"""A network whose stages are wide enough for fp8."""

CPU = ["CPUExecutionProvider"]


@functools.cache
def _trace(row: Variant) -> bytes:
    graph = onnx_file._trace(prepare(ExportRequest(row, "unused"), SILENT), None, onnx_file.DEFAULT_OPSET)
    return bytes(graph.SerializeToString())


def float_graph(row: Variant = WIDE) -> onnx_library.ModelProto:
    return onnx_library.load_from_string(_trace(row))


def images(count: int = 4) -> np.ndarray:
    return noise((count, 3, *WIDE.size), 1)


@functools.cache
def _quantise() -> bytes:
    return bytes(quantise_to_float8(float_graph(), images(), RECIPES["default"]).SerializeToString())


@pytest.fixture
def graph() -> onnx_library.ModelProto:
    return onnx_library.load_from_string(_quantise())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    spec = PrecisionSpec("fp8", calibration_images=4, gate_images=4)
    return export(WIDE, tmp_path_factory.mktemp("fp8"), precision_spec=spec)


def tensors_of(model: onnx_library.ModelProto) -> dict[str, onnx_library.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def producers_of(model: onnx_library.ModelProto) -> dict[str, onnx_library.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def test_weights_are_stored_as_e4m3_by_channel(graph: onnx_library.ModelProto) -> None:
    onnx_library.checker.check_model(graph, full_check=True)
    tensors, producers = tensors_of(graph), producers_of(graph)
    restorers = [producers.get(node.input[1]) for node in graph.graph.node if node.op_type in ("Conv", "Gemm")]
    quantised = [node for node in restorers if node is not None]
    assert (len(restorers), len(quantised)) == (6, 5)  # the first convolution reads three channels
    for node in quantised:
        weights, scale, zero = (tensors[name] for name in node.input)
        assert (weights.data_type, zero.data_type) == (TensorProto.FLOAT8E4M3FN,) * 2
        assert list(scale.dims) == [weights.dims[0]]
        assert scale.data_type == TensorProto.FLOAT16
        assert len(weights.raw_data) == np.prod(weights.dims)


def test_weights_are_rounded_once_to_the_nearest(graph: onnx_library.ModelProto) -> None:
    """Restored weights differ by at most half a step of three bits, or half of the smallest step."""
    exact = {name: numpy_helper.to_array(tensor) for name, tensor in tensors_of(float_graph()).items()}
    tensors, producers = tensors_of(graph), producers_of(graph)
    checked = 0
    for node in graph.graph.node:
        if node.op_type != "Conv" or node.input[1] not in producers:
            continue
        stored, scale, _ = (numpy_helper.to_array(tensors[name]) for name in producers[node.input[1]].input)
        step = scale.astype(np.float64).reshape(-1, 1, 1, 1)
        weights = exact[f"{node.name.removesuffix('/Conv')}.weight"].astype(np.float64)
        error = np.abs(stored.astype(np.float64) * step - weights)
        assert (error <= np.maximum(np.abs(weights) / 16, step * 2.0**-10) * (1 + 1e-6)).all()
        assert (np.abs(weights) <= LARGEST * step * (1 + 1e-6)).all()
        checked += 1
    assert checked == 4


def test_each_sum_reads_its_convolution_directly(graph: onnx_library.ModelProto) -> None:
    producers = producers_of(graph)
    sums = [{producers[name].op_type for name in node.input} for node in graph.graph.node if node.op_type == "Add"]
    assert sums == [{"Conv", "DequantizeLinear"}] * 2


def test_what_is_not_quantised_is_float16(graph: onnx_library.ModelProto) -> None:
    kinds = Counter(tensor.data_type for tensor in graph.graph.initializer)
    assert TensorProto.FLOAT not in kinds
    values = [*graph.graph.input, *graph.graph.output]
    assert {value.type.tensor_type.elem_type for value in values} == {TensorProto.FLOAT}


def test_onnx_runtime_computes_the_graph_as_written(graph: onnx_library.ModelProto) -> None:
    """With and without its rewriting of Q/DQ nodes, and as onnx's own evaluator does, but for rounding."""
    data, feeds = graph.SerializeToString(), {"input": images(2)}
    exact = onnxruntime.InferenceSession(_trace(WIDE), providers=CPU).run(None, feeds)[0]
    size = np.sqrt(np.square(exact).mean())
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    results = [ReferenceEvaluator(graph).run(None, feeds)[0]]
    for level in (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ):
        settings.graph_optimization_level = level
        results.append(onnxruntime.InferenceSession(data, settings, providers=CPU).run(None, feeds)[0])
    for result in results:
        assert np.sqrt(np.square(result - exact).mean()) < 0.1 * size
        assert np.sqrt(np.square(result - results[0]).mean()) < 0.05 * size


def test_biases_survive_onnx_runtimes_steps(graph: onnx_library.ModelProto) -> None:
    """ONNX Runtime stores biases in steps of both scales' product, in float16: normal, and not too many steps."""
    tensors, producers = tensors_of(graph), producers_of(graph)
    checked = 0
    for node in graph.graph.node:
        before = producers.get(node.input[0]) if node.op_type == "Conv" else None
        if before is None or before.op_type != "DequantizeLinear" or len(node.input) < 3:
            continue
        scale = numpy_helper.to_array(tensors[before.input[1]]).astype(np.float64)
        steps = scale * numpy_helper.to_array(tensors[producers[node.input[1]].input[1]]).astype(np.float64)
        bias = numpy_helper.to_array(tensors[node.input[2]]).astype(np.float64)
        assert (steps >= SMALLEST_NORMAL * (1 - 1e-3)).all()
        assert (np.abs(bias) / steps < 65_504).all()
        checked += 1
    assert checked == 4


def test_our_runtime_keeps_biases_of_small_scales(
    exported: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs of others have such scales. Plain ONNX Runtime computes something else from them."""
    monkeypatch.setattr(float8, "_least_scale", lambda *_: np.zeros(1))
    model = quantise_to_float8(float_graph(), images(), RECIPES["default"])
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) > 2:
            bias = tensors_of(model)[node.input[2]]
            bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, 2, np.float16), bias.name))
    settings, feeds = onnxruntime.SessionOptions(), {"input": images(2)}
    settings.log_severity_level = 4
    plain = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=CPU).run(None, feeds)[0]
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    right = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=CPU).run(None, feeds)[0]
    path = tmp_path / "small.onnx"
    onnx_library.save(model, path)
    assert exported.manifest is not None
    manifest = replace(exported.manifest, sha256=files.sha256_of(path))
    with runtimes.open_artifact(replace(exported, path=path, manifest=manifest), "onnxruntime") as runtime:
        ours = runtime.infer(feeds)["logits"]
    size = np.sqrt(np.square(right).mean())
    assert np.sqrt(np.square(ours - right).mean()) < 0.05 * size
    assert not np.sqrt(np.square(plain - right).mean()) < 0.25 * size


def test_layers_that_gain_nothing_stay_in_floats() -> None:
    assert layers_without_gain(float_graph()) == ("conv1/Conv",)
    kept = layers_without_gain(float_graph(BASIC))
    assert {name for name in kept if name.endswith("Conv")} == {
        node.name for node in float_graph(BASIC).graph.node if node.op_type == "Conv"
    }
    assert any(name.endswith("Add") for name in kept)


def test_a_network_without_a_wide_layer_is_refused() -> None:
    graph = float_graph(BASIC)
    gemm = next(node for node in graph.graph.node if node.op_type == "Gemm")
    with refuses(CompatibilityError, "float8-without-gain"):
        quantise_to_float8(graph, images(), RECIPES["default"], (gemm.name,))


def test_an_exported_file_passes_the_gate_and_opens(exported: Artifact) -> None:
    manifest = exported.manifest
    assert manifest is not None
    assert manifest.calibration is not None
    assert manifest.gate is not None
    assert (manifest.precision, manifest.calibration.target) == ("fp8", "tensorrt")
    assert manifest.calibration.kept_layers == ("conv1/Conv",)
    assert onnxfile.graph(exported.path).arithmetic == ("float16", "float8")
    for backend in ("onnxruntime", "openvino"):
        with runtimes.open(exported.path, backend) as runtime:
            assert runtime.description.precision == "float32"


def test_the_export_says_what_fp8_leaves_out(tmp_path: Path) -> None:
    notices, listener = recording()
    spec = PrecisionSpec("fp8", calibration_images=2, gate_images=2, float_layers=("layer1.0.conv1/Conv",))
    request = ExportRequest(WIDE, f"{tmp_path}/fp8.onnx")
    artifact = onnx_file.export(request, listener, precision_spec=spec)
    assert "precision-needs-device" in reason_codes(notices)
    assert any("conv1/Conv" in str(notice) for notice in notices)
    assert artifact.manifest is not None
    assert artifact.manifest.calibration is not None
    assert artifact.manifest.calibration.float_layers == ("layer1.0.conv1/Conv",)
    assert artifact.manifest.calibration.slowdown is None
    nodes = {node.name: node for node in onnx_library.load(artifact.path).graph.node}
    assert nodes["layer1.0.conv1/Conv"].input[1] == "layer1.0.conv1.weight"


def test_tensorrt_rtx_builds_an_engine(exported: Artifact) -> None:
    engine = tensorrt_engine.build_artifact(exported.path, EngineRequest("rtx", force=True), SILENT)
    assert engine.manifest is not None
    assert engine.manifest.engine is not None
    assert engine.manifest.precision == "fp8"
    assert engine.manifest.engine.targets[0] == "8.9"


def test_an_engine_for_a_gpu_without_fp8_is_refused(exported: Artifact) -> None:
    settings = Settings(targets=("8.6", "8.9"))
    with refuses(CompatibilityError, "gpu-without-float8"):
        tensorrt_engine.build_artifact(exported.path, EngineRequest("rtx", settings, force=True), SILENT)


def test_fp8_needs_the_opset_of_its_nodes(tmp_path: Path) -> None:
    request = ExportRequest(replace(WIDE, name="old"), f"{tmp_path}/")
    with refuses(UsageError, "opset-too-old"):
        onnx_file.export(request, SILENT, 18, PrecisionSpec("fp8"))


@pytest.mark.parametrize(
    ("precision", "recipe", "target", "code"),
    [
        ("fp8", "full-bias-correction", "cpu", "recipe-of-other-precision"),
        ("fp8", "minmax", "tensorrt", "recipe-of-other-precision"),
        ("int8", "modelopt", "cpu", "recipe-needs-target"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(precision: str, recipe: str, target: str, code: str) -> None:
    with refuses(UsageError, code):
        PrecisionSpec(precision, recipe=recipe, target=target)  # type: ignore[arg-type]


def test_fp8_has_one_target_and_the_modelopt_recipe() -> None:
    assert PrecisionSpec("fp8", recipe="modelopt").deployment == "tensorrt"
    assert PrecisionSpec("int8", recipe="modelopt", target="tensorrt").deployment == "tensorrt"
