"""The convolutions and matrix products whose weights are 2:4 sparse, so that TensorRT has faster kernels for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtimes.protocol import Array

_WEIGHTED = ("Conv", "Gemm", "MatMul")


def count_sparse_layers(path: Path) -> tuple[int, int]:
    """Return the number of weighted layers of an ONNX file that are 2:4 sparse, and the number of all weighted layers.

    The weights of a layer are 2:4 sparse if of each four neighbouring input channels at least two are zero, in every
    output channel and at every position of the kernel.
    """
    import onnx

    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    origins = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    counts = [0, 0]
    for node in graph.node:
        name = node.input[1] if node.op_type in _WEIGHTED and len(node.input) > 1 else ""
        tensor = tensors.get(origins.get(name, name))
        if tensor is None:
            continue
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        axis = 1 if node.op_type == "Conv" or transposed else -2
        counts[0] += is_sparse(onnx.numpy_helper.to_array(tensor), axis)
        counts[1] += 1
    return counts[0], counts[1]


def is_sparse(weights: Array, axis: int) -> bool:
    """Return whether weights are 2:4 sparse along the axis of the input channels."""
    channels = np.moveaxis(np.asarray(weights, np.float32), axis, -1)
    if channels.shape[-1] % 4:
        return False
    zeros = (channels.reshape(-1, 4) == 0).sum(axis=1)
    return bool((zeros >= 2).all())
