"""Subsampling of maps as pooling: the form of a strided slice that more runtimes read.

The shortcut of option A keeps every second pixel, which torch writes as two strided slices. A max pool with a 1x1
window and the same strides returns the same numbers. ncnn has no strided slice, IREE cannot compile a quantised one,
and ONNX Runtime and OpenVINO keep their blocked layouts through a pool.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

_ROWS, _COLUMNS = 2, 3


def pool_strided_slices(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Replace each pair of slices that keeps every n-th row and every m-th column by a max pool, in place.

    Args:
        graph: A graph with the shapes of its values. Slices of values without a known rank of 4 stay.

    Returns:
        The graph.
    """
    from onnx import helper

    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.graph.value_info}
    readers = Counter(name for node in graph.graph.node for name in node.input)
    readers.update(value.name for value in graph.graph.output)
    producers = {node.output[0]: node for node in graph.graph.node}
    for columns in list(graph.graph.node):
        rows = producers.get(columns.input[0]) if columns.op_type == "Slice" else None
        if rows is None or rows.op_type != "Slice" or readers[rows.output[0]] != 1 or ranks.get(rows.input[0]) != 4:
            continue
        strides = _stride(rows, _ROWS, tensors), _stride(columns, _COLUMNS, tensors)
        if None in strides:
            continue
        pool = helper.make_node(
            "MaxPool", rows.input[:1], columns.output, columns.name, kernel_shape=[1, 1], strides=strides
        )
        pool.metadata_props.extend(columns.metadata_props)
        columns.CopyFrom(pool)
        graph.graph.node.remove(rows)
    _remove_unread(graph)
    return graph


def _stride(node: onnx.NodeProto, axis: int, tensors: dict[str, onnx.TensorProto]) -> int | None:
    """Return the step of a slice over the whole of one axis, or ``None`` for any other slice."""
    from onnx import numpy_helper

    given = [numpy_helper.to_array(tensors[name]) for name in node.input[1:] if name in tensors]
    if len(given) != 4 or any(values.size != 1 for values in given):
        return None
    start, end, axes, step = (int(values.item()) for values in given)
    return step if (start, axes) == (0, axis) and end >= np.iinfo(np.int32).max and step > 0 else None


def _remove_unread(graph: onnx.ModelProto) -> None:
    read = {name for node in graph.graph.node for name in node.input} | {value.name for value in graph.graph.output}
    kept = [tensor for tensor in graph.graph.initializer if tensor.name in read]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
