"""The integers of a quantised graph: their signs, and the places of the nodes that restore floats.

TensorRT reads signed integers alone. OpenCV reads only graphs whose activations all have the same sign and whose
restored values have one reader each. ONNX Runtime and OpenVINO answer with the same bits for each of the forms.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx


def convert_to_signed(model: onnx.ModelProto) -> None:
    """Convert each uint8 value to int8 with zero point 0, over a range that includes the old one, for TensorRT."""
    from onnx import numpy_helper

    for scale, zero in _activations(model):
        point = numpy_helper.to_array(zero)
        if point.dtype == np.uint8:
            reach = np.maximum(point, 255 - point).astype(np.float64)
            wider = numpy_helper.to_array(scale) * reach / 127
            scale.CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale.name))
            zero.CopyFrom(numpy_helper.from_array(np.zeros_like(point, np.int8), zero.name))


def convert_to_unsigned(model: onnx.ModelProto) -> None:
    """Convert each int8 activation to uint8 with a zero point that is 128 higher, so that it stands for the same float.

    Weights stay int8.
    """
    from onnx import numpy_helper

    for _, zero in _activations(model):
        point = numpy_helper.to_array(zero)
        if point.dtype == np.int8:
            zero.CopyFrom(numpy_helper.from_array((point.astype(np.int16) + 128).astype(np.uint8), zero.name))


def separate_dequantisers(model: onnx.ModelProto) -> None:
    """Give each reader of a restored value a ``DequantizeLinear`` of its own."""
    restorers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    copies: dict[str, int] = {}
    result: list[onnx.NodeProto] = []
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name not in restorers:
                continue
            copies[name] = copies.get(name, 0) + 1
            if copies[name] > 1:
                node.input[place] = f"{name}_copy{copies[name]}"
                result.append(_copy(restorers[name], node.input[place], copies[name]))
        result.append(node)
    del model.graph.node[:]
    model.graph.node.extend(result)


def _copy(node: onnx.NodeProto, output: str, number: int) -> onnx.NodeProto:
    result = copy.deepcopy(node)
    result.name, result.output[0] = f"{node.name}_copy{number}", output
    return result


def _activations(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, onnx.TensorProto]]:
    """Yield the scale and the zero point of each quantised activation, each zero point once."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    zeros = {node.input[2]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for zero, scale in zeros.items():
        yield tensors[scale], tensors[zero]
