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

    The pixels are RGB. For a network of BGR the graph swaps the channels first. The steps ``x / scale``, ``- mean`` and
    ``/ std`` become one multiplication and one addition. Their constants are computed in float64 and rounded once.

    Args:
        graph: A graph whose input is float32 (batch, channels, height, width).
        preprocessing: The channel order, scale, means and standard deviations.
    """
    import onnx
    from onnx import helper, numpy_helper

    graph_input = graph.graph.input[0]
    batch, channels, height, width = (dim.dim_param or dim.dim_value for dim in graph_input.type.tensor_type.shape.dim)
    mean, std = (np.asarray(values, np.float64) for values in (preprocessing.mean, preprocessing.std))
    order, scale, shift = "pixels.order", "pixels.scale", "pixels.shift"
    graph.graph.initializer.extend(
        (
            numpy_helper.from_array((1 / (preprocessing.scale * std)).astype(np.float32), scale),
            numpy_helper.from_array((-mean / std).astype(np.float32), shift),
        )
    )
    steps: list[tuple[str, list[str], dict[str, object]]] = [("Cast", [], {"to": onnx.TensorProto.FLOAT})]
    if preprocessing.channel_order == "BGR":
        graph.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), order))
        steps.append(("Gather", [order], {"axis": 3}))
    steps += [("Mul", [scale], {}), ("Add", [shift], {}), ("Transpose", [], {"perm": [0, 3, 1, 2]})]
    for node in graph.graph.node:
        node.input[:] = [f"pixels/{steps[-1][0]}" if name == INPUT else name for name in node.input]
    value = INPUT
    for index, (operator, constants, attributes) in enumerate(steps):
        name = f"pixels/{operator}"
        graph.graph.node.insert(index, helper.make_node(operator, [value, *constants], [name], name, **attributes))
        value = name
    graph_input.CopyFrom(helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, [batch, height, width, channels]))
    return graph
