"""The integers of a quantised graph: each form answers with the same numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporter.precision.integer_forms import convert_to_signed, convert_to_unsigned, separate_dequantisers


def residual(point: np.generic) -> onnx.ModelProto:
    """A graph ``y = q(x) + relu(q(x))``, where q rounds to eighths with this zero point."""
    tensors = [numpy_helper.from_array(np.float32(0.125), "scale"), numpy_helper.from_array(np.asarray(point), "zero")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "restore"),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("Add", ["d", "r"], ["y"]),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    return helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:], tensors))


def run(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    x = np.linspace(-30, 30, 1001, dtype=np.float32)
    return np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0])


def zero_point(model: onnx.ModelProto) -> np.ndarray:
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "zero")


def test_unsigned_integers_stand_for_the_same_floats() -> None:
    model = residual(np.int8(-3))
    expected = run(model)
    convert_to_unsigned(model)
    assert (zero_point(model).dtype.name, int(zero_point(model))) == ("uint8", 125)
    np.testing.assert_array_equal(run(model), expected)


def test_unsigned_integers_stay() -> None:
    model = residual(np.uint8(7))
    convert_to_unsigned(model)
    assert (zero_point(model).dtype.name, int(zero_point(model))) == ("uint8", 7)


def test_signed_integers_reach_as_far() -> None:
    model = residual(np.uint8(0))
    convert_to_signed(model)
    assert (zero_point(model).dtype.name, int(zero_point(model))) == ("int8", 0)
    assert np.abs(run(model)).max() >= 2 * 29.9


def test_each_reader_has_a_dequantiser_of_its_own() -> None:
    model = residual(np.uint8(0))
    expected = run(model)
    separate_dequantisers(model)
    readers = Counter(name for node in model.graph.node for name in node.input)
    restorers = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert [readers[node.output[0]] for node in restorers] == [1, 1]
    assert len({node.name for node in restorers}) == 2
    np.testing.assert_array_equal(run(model), expected)
