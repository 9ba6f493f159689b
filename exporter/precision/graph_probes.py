"""Copies of an ONNX graph whose inner values can be read and replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def name_of(node: onnx.NodeProto) -> str:
    """Return the name of a node, or the name of its output if the node has none."""
    return str(node.name or node.output[0])


def emulate_in_float32(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph that computes with float32 arithmetic alone.

    Each 16-bit value becomes a float32 value that is rounded to the 16-bit type. Sums inside a layer are float32, as in
    the hardware for such graphs.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    narrow = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    for tensor in result.graph.initializer:
        if tensor.data_type in narrow:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for value in (*result.graph.input, *result.graph.output):
        if value.type.tensor_type.elem_type in narrow:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in result.graph.node:
        nodes.append(node)
        type_of_output = types.get(node.output[0])
        if type_of_output in narrow:
            name = node.output[0]
            node.output[0] = f"{name}/sum"
            nodes.append(
                helper.make_node("Cast", [node.output[0]], [f"{name}/narrow"], f"{name}/narrow", to=type_of_output)
            )
            nodes.append(helper.make_node("Cast", [f"{name}/narrow"], [name], f"{name}/rounded", to=TensorProto.FLOAT))
    del result.graph.value_info[:]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def expose_values(graph: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of a graph whose outputs are the given values.

    Args:
        graph: The graph.
        values: The names of float32 values.
    """
    import onnx
    from onnx import helper

    result = onnx.ModelProto()
    result.CopyFrom(graph)
    del result.graph.output[:]
    result.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in values)
    return result


def mark_values(graph: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of a graph with more outputs, which are the given values as float32. Its own outputs stay.

    Args:
        graph: The graph.
        values: The names of values of a float type.
    """
    import onnx
    from onnx import helper

    result = onnx.ModelProto()
    result.CopyFrom(graph)
    for value in values:
        marked = output_name(value)
        result.graph.node.append(helper.make_node("Cast", [value], [marked], marked, to=onnx.TensorProto.FLOAT))
        result.graph.output.append(helper.make_tensor_value_info(marked, onnx.TensorProto.FLOAT, None))
    return result


def output_name(value: str) -> str:
    """Return the name of the output that shows a value in a graph of ``mark_values``."""
    return f"{value}/marked"


def value_types(graph: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """Return the types and shapes of the values in a graph, as far as they follow from its input."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(graph).graph
    return {value.name: value.type for value in (*inferred.value_info, *inferred.output)}


def input_name(value: str) -> str:
    """Return the name of the input that replaces a value in a graph of ``add_inputs``."""
    return f"{value}/given"


def add_inputs(
    graph: onnx.ModelProto, types: Mapping[str, onnx.TypeProto], own: Mapping[str, frozenset[str]]
) -> onnx.ModelProto:
    """Return a copy of a graph in which inputs replace values. The values are still computed.

    Args:
        graph: The graph.
        types: The types of the values.
        own: For each value, the names of the nodes that still take the computed value. All other nodes take the input
            ``input_name(value)``.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(graph)
    result.graph.input.extend(onnx.ValueInfoProto(name=input_name(value), type=types[value]) for value in own)
    for node in result.graph.node:
        for index, value in enumerate(node.input):
            if value in own and name_of(node) not in own[value]:
                node.input[index] = input_name(value)
    return result
