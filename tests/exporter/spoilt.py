"""Int8 graphs of small networks, whole and spoilt in one place each."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from exporter.data.noise import noise
from exporter.precision.quantise import quantise_graph
from runtimes import Artifact


@cache
def _quantised(path: Path) -> bytes:
    graph = onnx.load(path)
    shape = [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim]
    return quantise_graph(graph, noise((8, *shape[1:]), 1), signed=False).SerializeToString()  # type: ignore[no-any-return]


def int8(artifact: Artifact) -> onnx.ModelProto:
    """A fresh int8 copy of an fp32 artifact's graph."""
    return onnx.load_from_string(_quantised(artifact.path))


def named(graph: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node of that name."""
    (node,) = (node for node in graph.graph.node if node.name == name)
    return node


def interrupted(graph: onnx.ModelProto, name: str, position: int, requantised: bool = False) -> onnx.ModelProto:
    """The int8 graph with a float step before one of a node's inputs, which keeps that node out of integers; with a
    pair of Q/DQ nodes behind the step, the node stays in integers, and the step is an island."""
    node = named(graph, name)
    makers = {value: step for step in graph.graph.node for value in step.output}
    value = node.input[position]
    steps = [helper.make_node("Abs", [value], [f"{value}/Abs"], f"{name}/Abs")]
    if requantised:
        scale = makers[value].input[1:]
        steps.append(helper.make_node("QuantizeLinear", [f"{value}/Abs", *scale], [f"{value}/Q"], f"{name}/Q"))
        steps.append(helper.make_node("DequantizeLinear", [f"{value}/Q", *scale], [f"{value}/DQ"], f"{name}/DQ"))
    node.input[position] = steps[-1].output[0]
    at = list(graph.graph.node).index(node)
    for number, step in enumerate(steps):
        graph.graph.node.insert(at + number, step)
    return graph


def misscaled(graph: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """The int8 graph with a layer's weights ``factor`` times too large."""
    makers = {value: step for step in graph.graph.node for value in step.output}
    scale = makers[named(graph, name).input[1]].input[1]
    (tensor,) = (tensor for tensor in graph.graph.initializer if tensor.name == scale)
    values = numpy_helper.to_array(tensor).astype(np.float64) * factor
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), scale))
    return graph


def written(graph: onnx.ModelProto, path: Path) -> Path:
    """The graph as a foreign file."""
    path.write_bytes(graph.SerializeToString())
    return path
