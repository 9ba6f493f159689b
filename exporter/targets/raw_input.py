"""A graph that takes camera bytes: uint8 pixels, channels last, with the normalisation inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporter.network import INPUT
from runtimes.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    import onnx


def with_raw_input(graph: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """The graph, changed in place: its input is uint8 (batch, height, width, channels) and not float32 NCHW.

    ``x / 255, - mean, / std`` becomes one multiplication and one addition, computed in float64 and rounded once.
    """
    import onnx
    from onnx import helper, numpy_helper

    given = graph.graph.input[0]
    batch, channels, height, width = (dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim)
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
    for place, step in enumerate(steps):
        graph.graph.node.insert(place, step)
    given.CopyFrom(helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, [batch, height, width, channels]))
    return graph
