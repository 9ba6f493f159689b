from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx as onnx_library
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtimes
from exporter.export_request import ExportRequest
from exporter.models.variants import Variant, customise
from exporter.network import prepare
from exporter.precision.cast import cast
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import PRECISIONS
from exporter.targets import onnx_file
from runtimes import Artifact, TensorSpec, parity
from runtimes.errors import CheckFailedError, UsageError
from tests.exporter.small import BASIC, BOTTLENECK, SILENT, export
from tests.refusals import refuses

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def graph_of(artifact: Artifact) -> onnx_library.GraphProto:
    return onnx_library.load(artifact.path).graph


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("row", [BASIC, BOTTLENECK, customise(BASIC, shortcut="C")], ids=["A", "B", "C"])
def test_all_weights_are_in_the_narrower_type(tmp_path: Path, name: str, row: Variant) -> None:
    artifact = export(row, tmp_path, precision_spec=PrecisionSpec(name))
    manifest = artifact.manifest
    assert manifest is not None
    assert (manifest.precision, manifest.opset) == (name, 22 if name == "bf16" else 20)
    assert manifest.inputs[0].dtype == manifest.outputs[0].dtype == "float32"
    graph = graph_of(artifact)
    kinds = {tensor.data_type for tensor in graph.initializer} - {TensorProto.INT64}
    assert kinds == {KINDS[name]}
    assert Counter(node.op_type for node in graph.node)["Cast"] == 2
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


@pytest.mark.parametrize("name", KINDS)
def test_batch_norms_are_folded_before_the_cast(tmp_path: Path, name: str) -> None:
    """Every weight is that of the fp32 file, rounded once."""
    exact = {t.name: numpy_helper.to_array(t) for t in graph_of(export(BASIC, tmp_path)).initializer}
    narrow = {
        t.name: numpy_helper.to_array(t)
        for t in graph_of(export(BASIC, tmp_path, precision_spec=PrecisionSpec(name))).initializer
    }
    assert exact.keys() == narrow.keys()
    for key, values in exact.items():
        np.testing.assert_array_equal(narrow[key], values.astype(narrow[key].dtype), err_msg=key)


def test_fp16_halves_the_file(tmp_path: Path) -> None:
    wide = export(BASIC, tmp_path).path.stat().st_size
    assert export(BASIC, tmp_path, precision_spec=PrecisionSpec("fp16")).path.stat().st_size < 0.8 * wide


def test_bf16_runs_where_a_runtime_has_it(tmp_path: Path) -> None:
    artifact = export(BOTTLENECK, tmp_path, precision_spec=PrecisionSpec("bf16"))
    assert artifact.manifest is not None
    assert artifact.manifest.parity is not None
    assert artifact.manifest.parity.runtime.startswith("openvino")
    with runtimes.open(artifact.path) as runtime:
        assert runtime.description.backend == "openvino"
        parity.check(runtime, artifact.vectors(), PRECISIONS["bf16"].tolerance, "PyTorch", "noise")


def test_bf16_needs_opset_22(tmp_path: Path) -> None:
    with refuses(UsageError, "opset-too-old", "bf16", "22", "20"):
        export(BASIC, tmp_path, opset=20, precision_spec=PrecisionSpec("bf16"))


def test_a_weight_beyond_the_type_is_refused() -> None:
    network = prepare(ExportRequest(BASIC, "unused"), SILENT)
    graph = onnx_file._trace(network, None, 20)
    for tensor in graph.graph.initializer:
        if tensor.name == "fc.weight":
            tensor.CopyFrom(numpy_helper.from_array(np.full((10, 16), 1e5, np.float32), tensor.name))
    with refuses(CheckFailedError, "weight-overflows", "fc.weight", "1e+05", "float16", "--precision", "bf16"):
        cast(graph, "float16")
    assert cast(graph, "bfloat16").graph.input[0].name == "input"


def test_the_graph_that_is_cast_stays_as_it_is() -> None:
    graph = onnx_file._trace(prepare(ExportRequest(BASIC, "unused"), SILENT), None, 20)
    before = graph.SerializeToString()
    cast(graph, "float16")
    assert graph.SerializeToString() == before


@pytest.mark.parametrize("name", KINDS)
def test_raw_input_goes_before_the_cast(tmp_path: Path, name: str) -> None:
    artifact = export(BASIC, tmp_path, precision_spec=PrecisionSpec(name), raw=True)
    assert artifact.manifest is not None
    assert artifact.manifest.inputs == (TensorSpec("input", "uint8", ("batch", 16, 16, 3)),)
    order = [node.op_type for node in graph_of(artifact).node[:5]]
    assert order == ["Cast", "Mul", "Add", "Transpose", "Cast"]


def test_an_output_that_is_read_inside_the_graph_stays_float32() -> None:
    """The first output feeds the second node, which has to read the 16-bit value."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["stage1"]), helper.make_node("Neg", ["stage1"], ["logits"])],
        "two outputs",
        [value("input", TensorProto.FLOAT, ["batch", 3])],
        [value("logits", TensorProto.FLOAT, ["batch", 3]), value("stage1", TensorProto.FLOAT, ["batch", 3])],
    )
    result = cast(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), "float16")
    inferred = onnx_library.shape_inference.infer_shapes(result, strict_mode=True)
    types = {
        each.name: each.type.tensor_type.elem_type for each in (*inferred.graph.value_info, *inferred.graph.output)
    }
    assert [types[name] for name in ("logits", "stage1")] == [TensorProto.FLOAT] * 2
    assert [types[f"{name}/Cast"] for name in ("input", "logits", "stage1")] == [TensorProto.FLOAT16] * 3
    assert next(node.input[0] for node in result.graph.node if node.op_type == "Neg") == "stage1/Cast"
