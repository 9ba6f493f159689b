"""Small graphs, written as they are."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def written(path: Path) -> Path:
    """``y`` (n, 4) is twice ``x`` (n, 4), and not below 0."""
    double = helper.make_node("Add", ["x", "x"], ["twice"])
    cut = helper.make_node("Relu", ["twice"], ["y"])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 4))
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4))
    graph = helper.make_graph([double, cut], "twice", [given], [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path
