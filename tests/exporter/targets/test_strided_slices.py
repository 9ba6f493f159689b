"""Strided slices as pooling: the same numbers, and slices of another kind stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporter.targets.strided_slices import pool_strided_slices

LAST = 2**63 - 1
HALF = (0, LAST, 2, 2), (0, LAST, 3, 2)


def sliced(*slices: tuple[int, int, int, int], extra: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    """A graph of slices (start, end, axis, step), one after the other, from ``x`` (2, 3, 7, 6) to ``y``."""
    nodes, tensors = [helper.make_node("Relu", ["x"], ["v0"])], []
    for number, values in enumerate(slices):
        names = [f"{part}{number}" for part in ("start", "end", "axis", "step")]
        tensors += [numpy_helper.from_array(np.array([value]), name) for value, name in zip(values, names, strict=True)]
        nodes.append(helper.make_node("Slice", [f"v{number}", *names], [f"v{number + 1}"], f"slice{number}"))
    nodes += [helper.make_node("Relu", [f"v{len(slices)}"], ["y"]), *extra]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", *(n.output[0] for n in extra))
    ]
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3, 7, 6))
    model = helper.make_model(helper.make_graph(nodes, "g", [shape], outputs, tensors))
    return onnx.shape_inference.infer_shapes(model)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 6)).astype(np.float32)
    return list(ReferenceEvaluator(model).run(None, {"x": x}))


def test_two_slices_become_a_pool_of_the_same_numbers() -> None:
    expected = run(sliced(*HALF))
    pooled = pool_strided_slices(sliced(*HALF))
    assert operators(pooled) == ["Relu", "MaxPool", "Relu"]
    assert not pooled.graph.initializer
    np.testing.assert_array_equal(run(pooled)[0], expected[0])


@pytest.mark.parametrize(
    "slices",
    [
        ((1, LAST, 2, 2), (0, LAST, 3, 2)),
        ((0, 5, 2, 2), (0, LAST, 3, 2)),
        ((0, LAST, 1, 2), (0, LAST, 3, 2)),
        ((0, LAST, 3, 2), (0, LAST, 2, 2)),
        ((0, LAST, 2, 2),),
    ],
    ids=["offset", "end", "channels", "turned", "single"],
)
def test_other_slices_stay(slices: tuple[tuple[int, int, int, int], ...]) -> None:
    assert operators(pool_strided_slices(sliced(*slices))).count("Slice") == len(slices)


def test_a_slice_with_a_second_reader_stays() -> None:
    reader = helper.make_node("Relu", ["v1"], ["z"])
    assert operators(pool_strided_slices(sliced(*HALF, extra=(reader,)))).count("Slice") == 2


def test_a_value_of_unknown_rank_stays() -> None:
    model = sliced(*HALF)
    del model.graph.value_info[:]
    assert operators(pool_strided_slices(model)).count("Slice") == 2
