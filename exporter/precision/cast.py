"""Conversion of a float32 graph to a 16-bit float type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporter.network import INPUT
from runtimes.errors import CheckFailedError

if TYPE_CHECKING:
    import onnx


def cast(graph: onnx.ModelProto, element: str) -> onnx.ModelProto:
    """Return a copy of a graph that computes in a 16-bit float type. Its input and outputs stay float32.

    The batch norms of the graph must be folded in float32 before. Folding afterwards would round twice. In addition,
    torch's exporter leaves float32 weights beside bfloat16 activations, which is not a valid graph.

    Args:
        graph: The float32 graph.
        element: ``float16`` or ``bfloat16``.

    Raises:
        CheckFailedError: A weight overflows the 16-bit type.
    """
    import onnx
    from onnx import helper

    kind = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}[element]
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    scales = {name for node in result.graph.node if node.op_type == "Resize" for name in node.input[1:]}
    for tensor in result.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name not in scales:
            _cast_tensor(tensor, kind)
    narrow = {value.name: f"{value.name}/Cast" for value in (result.graph.input[0], *result.graph.output)}
    for node in result.graph.node:  # an output may be read inside the graph, too
        _cast_node(node, kind)
        node.input[:] = [narrow.get(name, name) for name in node.input]
        node.output[:] = [narrow.get(name, name) for name in node.output]
    entry = narrow.pop(INPUT)
    result.graph.node.insert(0, helper.make_node("Cast", [INPUT], [entry], entry, to=kind))
    for name, value in narrow.items():
        result.graph.node.append(helper.make_node("Cast", [value], [name], value, to=onnx.TensorProto.FLOAT))
    return result


def _cast_node(node: onnx.NodeProto, kind: int) -> None:
    """Let a node of a fixed type compute in ``kind``: a constant, or a conversion to float32 in the network."""
    import onnx

    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
            attribute.i = kind
        elif attribute.name == "value" and attribute.t.data_type == onnx.TensorProto.FLOAT:
            _cast_tensor(attribute.t, kind)


def _cast_tensor(tensor: onnx.TensorProto, kind: int) -> None:
    """Round the values of a tensor to the nearest values of ``kind``, in place."""
    from onnx import helper, numpy_helper

    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        narrow = values.astype(helper.tensor_dtype_to_np_dtype(kind))
    if np.isfinite(values).all() and not np.isfinite(narrow.astype(np.float32)).all():
        raise CheckFailedError(
            f"{tensor.name} contains {float(np.abs(values).max()):.3g}, which {narrow.dtype} cannot represent",
            code="weight-overflows",
            hint="use --precision bf16, which has the range of float32",
        )
    tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
