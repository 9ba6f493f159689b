from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import runtimes
from exporter.precision import graph_probes
from exporter.precision.cast import cast
from runtimes.protocol import Array, Arrays
from tests.exporter import spoilt

DATA = np.array([[1.0, -2.0, 3.0]], np.float32)


def chain() -> onnx.ModelProto:
    """``input + 1/3`` and its ReLU, which is taken by two nodes: ``doubled``, and ``logits`` with that."""
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Add", ["input", "third"], ["sum"], "sum"),
                helper.make_node("Relu", ["sum"], ["positive"]),
                helper.make_node("Add", ["positive", "positive"], ["doubled"], "doubled"),
                helper.make_node("Sub", ["doubled", "positive"], ["logits"], "logits"),
            ],
            "chain",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
            [numpy_helper.from_array(np.array([1 / 3], np.float32), "third")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def run_graph(graph: onnx.ModelProto, folder: Path, **feeds: Array) -> Arrays:
    with runtimes.open(spoilt.written(graph, folder / "graph.onnx"), threads=1) as runtime:
        return runtime.infer({"input": DATA} | feeds)


def test_values_inside_come_out(tmp_path: Path) -> None:
    found = run_graph(graph_probes.expose_values(chain(), ["sum", "doubled"]), tmp_path)
    assert list(found) == ["sum", "doubled"]
    np.testing.assert_allclose(found["sum"], DATA + 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(found["doubled"], 2 * np.maximum(DATA + 1 / 3, 0), rtol=1e-6)


def test_a_value_comes_in_for_all_but_its_own_nodes(tmp_path: Path) -> None:
    types, given = graph_probes.value_types(chain()), np.array([[10.0, 20.0, 30.0]], np.float32)
    for own, doubled in ((frozenset[str](), 2 * given), (frozenset({"doubled"}), 2 * np.maximum(DATA + 1 / 3, 0))):
        graph = graph_probes.expose_values(
            graph_probes.add_inputs(chain(), types, {"positive": own}), ["positive", "doubled", "logits"]
        )
        found = run_graph(graph, tmp_path, **{graph_probes.input_name("positive"): given})
        np.testing.assert_allclose(found["positive"], np.maximum(DATA + 1 / 3, 0), rtol=1e-6)
        np.testing.assert_allclose(found["doubled"], doubled, rtol=1e-6)
        np.testing.assert_allclose(found["logits"], doubled - given, rtol=1e-6)


def test_a_node_without_a_name_is_called_after_its_value() -> None:
    assert [graph_probes.name_of(node) for node in chain().graph.node] == ["sum", "positive", "doubled", "logits"]


def test_half_precision_is_float32_that_was_rounded(tmp_path: Path) -> None:
    graph = graph_probes.emulate_in_float32(cast(chain(), "float16"))
    assert {tensor.data_type for tensor in graph.graph.initializer} == {TensorProto.FLOAT}
    found = run_graph(graph_probes.expose_values(graph, ["sum", "doubled"]), tmp_path)
    expected = (DATA + np.float32(np.float16(1 / 3))).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found["sum"], expected)
    np.testing.assert_array_equal(found["doubled"], 2 * np.maximum(expected, 0))


def test_rounding_leaves_a_graph_of_float32_as_it_is() -> None:
    graph = chain()
    assert graph_probes.emulate_in_float32(graph) == graph


def test_half_precision_inputs_and_outputs_become_float32() -> None:
    graph = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "half",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [2])],
        )
    )
    found = graph_probes.emulate_in_float32(graph).graph
    assert {value.type.tensor_type.elem_type for value in (*found.input, *found.output)} == {TensorProto.FLOAT}
