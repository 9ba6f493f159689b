"""What ONNX Runtime computes in, said before a run; its profiler proves it (``profiling``).

A graph's types are not always what it computes in: where its CPU provider has no kernels of half precision, it puts
casts around a convolution and computes it in float32; a quantised convolution that is not followed as it wants it, and
any on CUDA, is the float one between its Q/DQ nodes.
"""

from __future__ import annotations

import platform

from runtimes.onnx.graph import DEQUANTISE, QUANTISE, OnnxGraph
from runtimes.onnx.wire import Node


def list_arithmetic(graph: OnnxGraph, device: str, tf32: bool = False) -> tuple[str, ...]:
    """In what the graph's convolutions and matrix products are computed, sorted: ONNX Runtime does not tell it.

    ``tf32`` is whether float32 may be computed in TensorFloat-32 there, on a GPU.
    """
    if device != "cpu":
        wide = "tfloat32" if tf32 else "float32"
        return tuple(sorted({wide if kind in ("int8", "float32") else kind for kind in graph.arithmetic}))
    half = "float32" if platform.machine() in _WITHOUT_HALF else "float16"
    kinds = [
        "float32" if kind == "int8" and not _runs_in_integers(node, graph) else kind
        for node, kind in graph.weighted.items()
    ]
    return tuple(sorted({half if kind == "float16" else kind for kind in kinds or graph.arithmetic}))


_WITHOUT_HALF = ("x86_64", "AMD64")
"""Machines for which the CPU provider has no kernels of half precision, whatever the processor can."""


def _runs_in_integers(node: Node, graph: OnnxGraph) -> bool:
    """Whether what is around a quantised node is as the CPU provider wants it; else it computes it in float32.

    The output must be quantised: at once, or behind a ReLU that is dropped because the integers are unsigned and hold
    nothing below 0. A matrix product's may also go on as float, to one other node, if its bias is quantised.
    """
    if DEQUANTISE not in (source.operator for name in node.inputs if (source := graph.producers.get(name))):
        return True  # an operator of integers
    behind = graph.consumers.get(node.outputs[0], [])
    relu = len(behind) == 1 and behind[0].operator in ("Relu", "Clip")
    if relu:
        behind = graph.consumers.get(behind[0].outputs[0], [])
    if len(behind) == 1 and behind[0].operator == QUANTISE:
        return not relu or len(behind[0].inputs) < 3 or graph.types.get(behind[0].inputs[2]) == "uint8"
    bias = graph.producers.get(node.inputs[2]) if len(node.inputs) > 2 else None
    plain = len(node.inputs) < 3 or (bias is not None and bias.operator == DEQUANTISE)
    return node.operator != "Conv" and not relu and len(behind) < 2 and plain
