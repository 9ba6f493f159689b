"""Conversion of a graph to raw input: uint8 pixels, channels last, with the normalisation inside the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporter.network import INPUT
from runtimes.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    import onnx


def with_raw_input(graph: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Change a graph in index so that its input is uint8 (batch, height, width, channels), and return the graph.

    The steps ``x / 255``, ``- mean`` and ``/ std`` become one multiplication and one addition. Their constants are
    computed in float64 and rounded once.

    Args:
        graph: A graph whose input is float32 (batch, channels, height, width).
        preprocessing: The means and standard deviations.
    """
    import onnx
    from onnx import helper, numpy_helper

    graph_input = graph.graph.input[0]
    batch, channels, height, width = (dim.dim_param or dim.dim_value for dim in graph_input.type.tensor_type.shape.dim)
    names = [f"pixels/{step}" for step in ("Cast", "Mul", "Add", "Transpose")]
    mean, std = (np.asarray(values, np.float64) for values in (preprocessing.mean, preprocessing.std))
    scale, shift = "pixels.scale", "pixels.shift"
    graph.graph.initializer.extend(
        (
            numpy_helper.from_array((1 / (255 * std)).astype(np.float32), scale),
            numpy_helper.from_array((-mean / std).astype(np.float32), shift),
        )
    )
    for node in graph.graph.node:
        node.input[:] = [names[-1] if name == INPUT else name for name in node.input]
    steps = (
        helper.make_node("Cast", [INPUT], [names[0]], names[0], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [names[0], scale], [names[1]], names[1]),
        helper.make_node("Add", [names[1], shift], [names[2]], names[2]),
        helper.make_node("Transpose", [names[2]], [names[3]], names[3], perm=[0, 3, 1, 2]),
    )
    for index, step in enumerate(steps):
        graph.graph.node.insert(index, step)
    graph_input.CopyFrom(helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, [batch, height, width, channels]))
    return graph
