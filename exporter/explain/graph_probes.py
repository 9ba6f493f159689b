"""Copies of an ONNX graph whose insides can be watched, and given other values than their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def name_of(node: onnx.NodeProto) -> str:
    """A node's name, or that of its value where it has none."""
    return str(node.name or node.output[0])


def emulate_in_float32(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes what the graph says with float32 arithmetic alone: a 16-bit value is a float32 one that
    was rounded to its type. Sums inside a layer are of float32, as in the hardware that such graphs are for."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    narrow = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
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
        kind = kinds.get(node.output[0])
        if kind in narrow:
            name = node.output[0]
            node.output[0] = f"{name}/sum"
            nodes.append(helper.make_node("Cast", [node.output[0]], [f"{name}/narrow"], f"{name}/narrow", to=kind))
            nodes.append(helper.make_node("Cast", [f"{name}/narrow"], [name], f"{name}/rounded", to=TensorProto.FLOAT))
    del result.graph.value_info[:]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def expose_values(graph: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """A copy whose outputs are these values, which must be float32."""
    import onnx
    from onnx import helper

    result = onnx.ModelProto()
    result.CopyFrom(graph)
    del result.graph.output[:]
    result.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in values)
    return result


def value_types(graph: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """Types and shapes of the graph's values, as far as they follow from its input's."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(graph).graph
    return {value.name: value.type for value in (*inferred.value_info, *inferred.output)}


def input_name(value: str) -> str:
    """The input of a ``add_inputs`` graph that stands for the value."""
    return f"{value}/given"


def add_inputs(
    graph: onnx.ModelProto, types: Mapping[str, onnx.TypeProto], own: Mapping[str, frozenset[str]]
) -> onnx.ModelProto:
    """A copy in which values come in from outside, by inputs called ``input_name(value)``, and are still computed.

    ``own`` has for each such value the names of the nodes that take the computed one all the same, ``types`` its type.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(graph)
    result.graph.input.extend(onnx.ValueInfoProto(name=input_name(value), type=types[value]) for value in own)
    for node in result.graph.node:
        for number, value in enumerate(node.input):
            if value in own and name_of(node) not in own[value]:
                node.input[number] = input_name(value)
    return result
