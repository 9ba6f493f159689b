"""A float32 graph in a narrower float: weights cast, its input cast on entry and its output back on leaving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporter.network import INPUT, OUTPUT
from runtimes.errors import CheckFailedError

if TYPE_CHECKING:
    import onnx


def cast(graph: onnx.ModelProto, element: str) -> onnx.ModelProto:
    """A copy of the graph that computes in ``element``, ``float16`` or ``bfloat16``; what goes in and out stays
    float32.

    Its batch-norms are folded already, in float32: folding afterwards would round twice, and torch's exporter leaves
    float32 weights beside bfloat16 activations, which is no valid graph.

    Raises:
        CheckFailedError: a weight overflows the narrower type.
    """
    import onnx
    from onnx import helper

    kind = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}[element]
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    for tensor in result.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            _cast_tensor(tensor, kind)
    entry, leaving = f"{INPUT}/Cast", f"{OUTPUT}/Cast"
    for node in result.graph.node:
        node.input[:] = [entry if name == INPUT else name for name in node.input]
        node.output[:] = [leaving if name == OUTPUT else name for name in node.output]
    result.graph.node.insert(0, helper.make_node("Cast", [INPUT], [entry], entry, to=kind))
    result.graph.node.append(helper.make_node("Cast", [leaving], [OUTPUT], leaving, to=onnx.TensorProto.FLOAT))
    return result


def _cast_tensor(tensor: onnx.TensorProto, kind: int) -> None:
    """Rounds the tensor's values to the nearest of ``kind``, in place."""
    from onnx import helper, numpy_helper

    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        narrow = values.astype(helper.tensor_dtype_to_np_dtype(kind))
    if np.isfinite(values).all() and not np.isfinite(narrow.astype(np.float32)).all():
        raise CheckFailedError(
            f"{tensor.name} holds {float(np.abs(values).max()):.3g}, which {narrow.dtype} cannot",
            code="weight-overflows",
            hint="--precision bf16 has float32's range",
        )
    tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
