from __future__ import annotations

import functools
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx as onnx_library
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from exporter.data.noise import noise
from exporter.export_request import ExportRequest
from exporter.models.variants import Variant
from exporter.network import prepare
from exporter.precision import quantise
from exporter.precision.quantise import quantise_graph
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import PRECISIONS, Material, Target
from exporter.targets import onnx_file
from runtimes import Artifact
from runtimes.errors import BackendUnavailableError, CompatibilityError, UsageError
from tests.exporter.small import BASIC, BOTTLENECK, SILENT, export
from tests.refusals import refuses

ROWS = {"A": BASIC, "B": BOTTLENECK}


@functools.cache
def trace_once(row: Variant) -> bytes:
    """torch's part takes seconds."""
    graph = onnx_file._trace(prepare(ExportRequest(row, "unused"), SILENT), None, onnx_file.DEFAULT_OPSET)
    return bytes(graph.SerializeToString())


def float_graph(row: Variant) -> onnx_library.ModelProto:
    return onnx_library.load_from_string(trace_once(row))


def images(row: Variant, count: int = 4) -> np.ndarray:
    return noise((count, row.in_channels, *row.size), 1)


@pytest.fixture(scope="module")
def graphs() -> dict[tuple[str, Target], onnx_library.ModelProto]:
    """Each network quantised for each target; not to be changed."""
    found: dict[tuple[str, Target], onnx_library.ModelProto] = {}
    for name, row in ROWS.items():
        graph = float_graph(row)
        found[name, "cpu"] = quantise_graph(graph, images(row), signed=False)
        found[name, "tensorrt"] = quantise_graph(graph, images(row), signed=True)
    return found


Graphs = dict[tuple[str, Target], onnx_library.ModelProto]

each = pytest.mark.parametrize(("name", "target"), [(name, target) for name in ROWS for target in ("cpu", "tensorrt")])


def makers(model: onnx_library.ModelProto) -> dict[str, onnx_library.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


@each
def test_the_graph_is_valid_and_keeps_its_names(graphs: Graphs, name: str, target: Target) -> None:
    model = graphs[name, target]
    onnx_library.checker.check_model(model, full_check=True)
    before = {node.name for node in float_graph(ROWS[name]).graph.node}
    after = [node.name for node in model.graph.node]
    assert before <= set(after)
    assert len(set(after)) == len(after)


@each
def test_every_weight_is_int8_by_channel(graphs: Graphs, name: str, target: Target) -> None:
    model = graphs[name, target]
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made = makers(model)
    weighted = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert weighted
    for node in weighted:
        restore = made[node.input[1]]
        values, scale, zero = (tensors[item] for item in restore.input)
        assert restore.op_type == "DequantizeLinear"
        assert values.dtype == np.int8
        assert scale.shape == (len(values),)
        assert (scale > 0).all()
        assert not zero.any()
        assert np.abs(values.astype(int)).max() <= 127


@each
def test_both_branches_of_every_addition_are_quantised(graphs: Graphs, name: str, target: Target) -> None:
    model = graphs[name, target]
    made = makers(model)
    branches = [[made[item].op_type for item in node.input] for node in model.graph.node if node.op_type == "Add"]
    assert branches
    assert all(pair == ["DequantizeLinear"] * 2 for pair in branches)


@each
def test_what_goes_into_every_convolution_is_quantised(graphs: Graphs, name: str, target: Target) -> None:
    model = graphs[name, target]
    made = makers(model)
    for node in model.graph.node:
        if node.op_type == "Conv":
            before = made[node.input[0]]
            while before.op_type == "MaxPool":
                before = made[before.input[0]]
            assert before.op_type == "DequantizeLinear", node.name


def zero_points(model: onnx_library.ModelProto) -> set[tuple[str, int]]:
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    points = [tensors[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return {(point.dtype.name, int(point)) for point in points}


@pytest.mark.parametrize("name", ROWS)
def test_the_target_determines_the_signs_of_activations(graphs: Graphs, name: str) -> None:
    assert zero_points(graphs[name, "cpu"]) == {("uint8", 0), ("uint8", 128)}
    assert zero_points(graphs[name, "tensorrt"]) == {("int8", 0)}


@pytest.mark.parametrize("name", ROWS)
def test_each_quantised_value_has_one_reader(graphs: Graphs, name: str) -> None:
    model = graphs[name, "cpu"]
    readers = Counter(item for node in model.graph.node for item in node.input)
    restored = [node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert {readers[item] for item in restored} == {1}


@pytest.mark.parametrize("name", ROWS)
def test_onnx_runtime_convolves_and_adds_in_integers(graphs: Graphs, name: str, tmp_path: Path) -> None:
    """What it makes of the graph: no float convolution or addition is left, nor a Q/DQ pair between two of them."""
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(graphs[name, "cpu"].SerializeToString(), settings, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx_library.load(tmp_path / "optimised.onnx").graph.node)
    expected = Counter(node.op_type for node in float_graph(ROWS[name]).graph.node)
    assert (kinds["QLinearConv"], kinds["Conv"], kinds["FusedConv"]) == (expected["Conv"], 0, 0)
    assert (kinds["QLinearAdd"], kinds["Add"]) == (expected["Add"], 0)
    # At the entry, before the mean and behind it; and around a Pad, which ONNX Runtime computes in float alone.
    assert kinds["QuantizeLinear"] + kinds["DequantizeLinear"] <= 3 + 2 * kinds["Pad"]


def with_bias(row: Variant) -> onnx_library.ModelProto:
    """The float graph with a bias in its classifier, which the exporter leaves out where it is zero."""
    graph = float_graph(row)
    (head,) = (node for node in graph.graph.node if node.op_type == "Gemm")
    graph.graph.initializer.append(numpy_helper.from_array(np.linspace(-3, 3, 10, dtype=np.float32), "a.bias"))
    head.input[2:] = ["a.bias"]
    return graph


def test_the_classifiers_bias_is_no_hindrance(tmp_path: Path) -> None:
    """For CPUs it becomes int32, so that ONNX Runtime computes all in integers; TensorRT takes it as it is."""
    graph = with_bias(BASIC)
    model = quantise_graph(graph, images(BASIC), signed=False)
    onnx_library.checker.check_model(model, full_check=True)
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx_library.load(tmp_path / "optimised.onnx").graph.node)
    assert (kinds["QGemm"], kinds["Gemm"]) == (1, 0)
    exact = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"input": images(BASIC)}
    (given,), (expected,) = session.run(None, feeds), exact.run(None, feeds)
    assert np.abs(given - expected).max() < 0.05 * np.abs(expected).max()
    signed = {tensor.name for tensor in quantise_graph(graph, images(BASIC), signed=True).graph.initializer}
    assert "a.bias" in signed


def test_a_fixed_batch_is_calibrated_in_batches(tmp_path: Path) -> None:
    artifact = export(BASIC, tmp_path, batch=3, precision_spec=PrecisionSpec("int8"))
    assert artifact.manifest is not None
    assert artifact.manifest.calibration is not None
    assert artifact.manifest.calibration.images == 16


def test_signed_scales_cover_the_same_range(graphs: Graphs) -> None:
    scales = [
        {t.name: numpy_helper.to_array(t) for t in graphs["B", target].graph.initializer if t.name.startswith("scale_")}
        for target in ("cpu", "tensorrt")
    ]
    unsigned = [
        node.input[1]
        for node in graphs["B", "cpu"].graph.node
        if node.op_type == "QuantizeLinear" and "Relu" in node.input[0]
    ]
    assert unsigned
    for name in unsigned:
        np.testing.assert_allclose(scales[1][name], scales[0][name] * 255 / 127, rtol=1e-6)


def test_the_same_images_give_the_same_graph(graphs: Graphs) -> None:
    again = quantise_graph(float_graph(BASIC), images(BASIC), signed=False)
    assert again.SerializeToString() == graphs["A", "cpu"].SerializeToString()


def test_other_images_give_other_scales(graphs: Graphs) -> None:
    again = quantise_graph(float_graph(BASIC), 3 * images(BASIC), signed=False)
    assert again.SerializeToString() != graphs["A", "cpu"].SerializeToString()


def test_the_float_graph_stays_as_it_is() -> None:
    graph = float_graph(BASIC)
    before = graph.SerializeToString()
    quantise_graph(graph, images(BASIC), signed=False)
    assert graph.SerializeToString() == before


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    quantise_graph(float_graph(BASIC), images(BASIC), signed=False)
    assert capfd.readouterr().out == ""


def test_a_graph_that_cannot_be_quantised_is_refused() -> None:
    graph = float_graph(BASIC)
    graph.graph.node.append(helper.make_node("Relu", ["nowhere"], ["anywhere"], "lost"))
    with refuses(CompatibilityError, "quantisation-failed", "NNCF"):
        quantise_graph(graph, images(BASIC), signed=False)


def test_no_images_no_scales() -> None:
    with refuses(UsageError, "int8-needs-images", "int8", "--calibration"):
        PRECISIONS["int8"].apply(float_graph(BASIC), Material(None, "cpu"))


def test_a_missing_quantiser_is_told_with_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with refuses(BackendUnavailableError, "nncf-missing", "int8", "NNCF"):
        quantise.quantiser()


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
@pytest.mark.parametrize("raw", [False, True])
def test_an_int8_artifact_says_how_it_was_made(tmp_path: Path, target: Target, raw: bool) -> None:
    artifact = export(BASIC, tmp_path, precision_spec=PrecisionSpec("int8", target=target), raw=raw)
    manifest = Artifact.read(artifact.path).manifest
    assert manifest is not None
    assert manifest.precision == "int8"
    record = manifest.calibration
    assert record is not None
    assert (record.quantiser, record.target, record.images) == (quantise.quantiser(), target, 16)
    assert record.data.startswith("seeded noise, seed ")
    assert manifest.producers["nncf"] == record.quantiser.split()[1]
    assert manifest.gate is not None
    assert manifest.gate.data.startswith("seeded noise, seed ")
    assert manifest.gate.data != record.data
    assert (manifest.gate.top1, manifest.inputs[0].dtype) == (None, "uint8" if raw else "float32")
