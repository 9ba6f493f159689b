"""The precision in which ONNX Runtime executes a graph, predicted before a run. ``profiling`` verifies it.

The executed precision can differ from the types of the graph:

- Without kernels for half precision, the CPU provider inserts casts and computes in float32.
- On CUDA, quantised convolutions are computed in float32 between their Q/DQ nodes. On the CPU, so are those whose
  following nodes do not fit an integer kernel.
- Convolutions in 8-bit floats are computed in the float type between their Q/DQ nodes, as rexport writes it: float16.
"""

from __future__ import annotations

import platform

from runtimes.onnx.graph import DEQUANTISE, QUANTISE, OnnxGraph
from runtimes.onnx.wire import Node


def list_arithmetic(graph: OnnxGraph, device: str, tf32: bool = False) -> tuple[str, ...]:
    """Return the executed precisions of the convolutions and matrix products, sorted.

    ONNX Runtime itself reports them only in its profile.

    Args:
        graph: The graph.
        device: ``cpu`` or ``cuda``.
        tf32: Whether a GPU may compute float32 in TensorFloat-32.
    """
    if device != "cpu":
        wide = "tfloat32" if tf32 else "float32"
        between = {"float8": "float16", "int8": wide, "float32": wide}
        return tuple(sorted({between.get(kind, kind) for kind in graph.arithmetic}))
    half = "float32" if platform.machine() in _WITHOUT_HALF else "float16"
    kinds = [
        "float32" if kind == "int8" and not _runs_in_integers(node, graph) else kind
        for node, kind in graph.weighted.items()
    ]
    return tuple(sorted({half if kind in ("float16", "float8") else kind for kind in kinds or graph.arithmetic}))


_WITHOUT_HALF = ("x86_64", "AMD64")
"""The architectures for which the CPU provider has no kernels for half precision."""


def _runs_in_integers(node: Node, graph: OnnxGraph) -> bool:
    """Return whether the CPU provider has an integer kernel for a quantised node with its neighbours.

    The output must be quantised directly, or after a ReLU that unsigned integers make redundant. The output of a matrix
    product may also continue as float to at most one node, if its bias is quantised.
    """
    if DEQUANTISE not in (source.operator for name in node.inputs if (source := graph.producers.get(name))):
        return True  # an integer operator
    consumers = graph.consumers.get(node.outputs[0], [])
    relu = len(consumers) == 1 and consumers[0].operator in ("Relu", "Clip")
    if relu:
        consumers = graph.consumers.get(consumers[0].outputs[0], [])
    if len(consumers) == 1 and consumers[0].operator == QUANTISE:
        return not relu or len(consumers[0].inputs) < 3 or graph.types.get(consumers[0].inputs[2]) == "uint8"
    bias = graph.producers.get(node.inputs[2]) if len(node.inputs) > 2 else None
    bias_fits = len(node.inputs) < 3 or (bias is not None and bias.operator == DEQUANTISE)
    return node.operator != "Conv" and not relu and len(consumers) < 2 and bias_fits
