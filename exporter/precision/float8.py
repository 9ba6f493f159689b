"""Conversion of a float32 graph to fp8: Q/DQ nodes of 8-bit floats (E4M3), and float16 between them.

The nodes and their ranges are those of int8 for TensorRT: one scale for each channel of the weights, one for each
activation. Three things differ, because the numbers are floats and only GPUs compute with them:

- A value beyond the range saturates, and range costs no precision. So ranges reach to the extremes by default.
- The sum of a block reads its convolution directly. The library then adds inside the convolution, before any rounding.
- Layers that GPUs compute no faster in fp8 stay in float16 (``layers_without_gain``).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.precision.cast import cast
from exporter.precision.graph_probes import name_of
from exporter.precision.quantise import quantise_graph
from runtimes.errors import CompatibilityError

if TYPE_CHECKING:
    import onnx

    from exporter.precision.recipes import CalibrationRecipe

LARGEST = 448.0
"""The largest number of E4M3."""

INT8_LARGEST = 127
"""The largest integer of the symmetric ranges that ``quantise_graph`` returns."""

FEW_CHANNELS = 16
"""The number of input or output channels of a convolution up to which fp8 is slower than fp16 on GPUs."""

WEIGHTED_OPERATORS = ("Conv", "Gemm", "MatMul")
"""The operators of layers with weights."""

LARGEST_KERNEL = 32
"""The largest number of elements in a kernel for which TensorRT has convolutions in fp8."""

SMALLEST_NORMAL = float(np.finfo(np.float16).tiny)
"""The smallest number of float16 with full precision."""

MOST_STEPS = 30_000
"""The largest number of steps of a bias. float16 ends at 65,504."""

Tensors: TypeAlias = "dict[str, onnx.TensorProto]"
Producers: TypeAlias = "dict[str, onnx.NodeProto]"


def quantise_to_float8(
    graph: onnx.ModelProto,
    images: NDArray[np.float32],
    recipe: CalibrationRecipe,
    float_layers: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """Return a copy of a graph in fp8. Its input and outputs stay float32.

    The call blocks for n runs of the network and some seconds more.

    Args:
        graph: The float32 graph with folded batch norms.
        images: The calibration images as the graph takes them, float32 (n, c, h, w), n at least 1.
        recipe: How ranges are estimated.
        float_layers: The names of the nodes that stay in float16, besides those of ``layers_without_gain``.

    Raises:
        BackendUnavailableError: NNCF is not installed.
        CompatibilityError: NNCF cannot quantise the graph, or no layer of the graph gains from fp8.
        CheckFailedError: A weight or a range overflows float16.
    """
    # The corrections of biases compensate for the rounding to integers, and would be wrong here.
    adapted = replace(recipe, ranges=recipe.ranges or "MINMAX", bias_correction="none")
    kept = tuple(dict.fromkeys((*float_layers, *layers_without_gain(graph))))
    if all(name_of(node) in kept for node in graph.graph.node if node.op_type in WEIGHTED_OPERATORS):
        raise CompatibilityError(
            "no layer of the network would be faster in fp8: all have few channels, groups, or a large kernel",
            code="float8-without-gain",
            hint="--precision fp16",
        )
    result = quantise_graph(graph, images, True, adapted, kept)
    _connect_sums(result)
    _convert_activations(result)
    _convert_weights(result, graph)
    return cast(result, "float16")


def layers_without_gain(graph: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the layers that GPUs compute no faster in fp8 than in fp16, in the order of the graph.

    These are convolutions with few channels, in groups, or with a large kernel, such as the first layer of each
    network; and the sums that follow them.

    Args:
        graph: The float32 graph.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.graph.initializer}
    producers = {name: node for node in graph.graph.node for name in node.output}
    names: dict[str, None] = {}
    for node in graph.graph.node:
        if node.op_type == "Conv":
            out_channels, in_channels, *kernel = shapes[node.input[1]]  # in_channels is that of a group
            if min(out_channels, in_channels) <= FEW_CHANNELS or math.prod(kernel) > LARGEST_KERNEL:
                names[name_of(node)] = None
        elif node.op_type == "Add":
            sources = [producers.get(name) for name in node.input]
            if any(source is not None and name_of(source) in names for source in sources):
                names[name_of(node)] = None
    return tuple(names)


def _connect_sums(model: onnx.ModelProto) -> None:
    """Let each sum of a block read its last convolution without a Q/DQ pair between. The shortcut stays quantised."""
    producers = {name: node for node in model.graph.node for name in node.output}
    order = {name_of(node): index for index, node in enumerate(model.graph.node)}
    readers = Counter(name for node in model.graph.node for name in node.input)
    unused: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        branches = []
        for place, name in enumerate(node.input):
            pair = _pair_behind_convolution(producers, name)
            if pair is not None and readers[name] == readers[pair[1].input[0]] == 1:
                branches.append((order[name_of(producers[pair[1].input[0]])], place, pair))
        if branches and all(producers[name].op_type == "DequantizeLinear" for name in node.input if name in producers):
            _, place, pair = max(branches, key=lambda branch: branch[0])
            node.input[place] = pair[1].input[0]
            unused.extend(pair)
    for node in unused:
        model.graph.node.remove(node)


def _pair_behind_convolution(producers: Producers, name: str) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """Return the DQ and the Q node through which a value comes from a convolution, or ``None``."""
    restore = producers.get(name)
    if restore is None or restore.op_type != "DequantizeLinear":
        return None
    quantise = producers.get(restore.input[0])
    if quantise is None or quantise.op_type != "QuantizeLinear":
        return None
    source = producers.get(quantise.input[0])
    return (restore, quantise) if source is not None and source.op_type == "Conv" else None


def _convert_activations(model: onnx.ModelProto) -> None:
    """Convert the scale and the zero point of each activation, in place."""
    from onnx import TensorProto, helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    zeros = {node.input[2]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for zero, scale in zeros.items():
        reach = numpy_helper.to_array(tensors[scale]).astype(np.float64) * INT8_LARGEST
        tensors[scale].CopyFrom(numpy_helper.from_array(_as_half(reach / LARGEST), scale))
        tensors[zero].CopyFrom(helper.make_tensor(zero, TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True))


def _convert_weights(model: onnx.ModelProto, graph: onnx.ModelProto) -> None:
    """Store the weights of quantised layers as E4M3, in place. They are rounded once, from the float32 weights."""
    from onnx import TensorProto, helper, numpy_helper

    exact = {tensor.name: tensor for tensor in graph.graph.initializer}
    weights = {name_of(node): node.input[1] for node in graph.graph.node if len(node.input) > 1}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        restore = producers.get(node.input[1]) if len(node.input) > 1 else None
        if restore is None or restore.op_type != "DequantizeLinear" or restore.input[0] not in tensors:
            continue
        values = numpy_helper.to_array(exact[weights[name_of(node)]]).astype(np.float64)
        stored, scale, zero = (tensors[name] for name in restore.input)
        axes = tuple(axis for axis in range(values.ndim) if not scale.dims or axis != _axis(restore, values.ndim))
        reach = np.abs(values).max(axis=axes, keepdims=True)
        least = _least_scale(node, producers, tensors)
        steps = _as_half(
            np.maximum(reach / LARGEST, least.reshape(reach.shape) if least.size == reach.size else least.max())
        )
        rounded = (values / steps).clip(-LARGEST, LARGEST).astype(np.float32)
        narrow = rounded.astype(helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN))
        for tensor, array in ((stored, narrow), (zero, np.zeros(list(scale.dims), narrow.dtype))):
            tensor.CopyFrom(
                helper.make_tensor(tensor.name, TensorProto.FLOAT8E4M3FN, array.shape, array.tobytes(), raw=True)
            )
        scale.CopyFrom(numpy_helper.from_array(steps.reshape(list(scale.dims)), scale.name))


def _least_scale(node: onnx.NodeProto, producers: Producers, tensors: Tensors) -> NDArray[np.float64]:
    """Return the least scale of each channel's weights, float64 (channels,).

    ONNX Runtime stores biases in steps of the product of both scales, which it computes in float16. The product must
    therefore be a normal number, and a bias must not have more steps than float16 has numbers. A larger scale costs no
    precision, because E4M3 has its full precision down to 2**-6.
    """
    from onnx import numpy_helper

    source, bias = producers.get(node.input[0]), tensors.get(node.input[2] if len(node.input) > 2 else "")
    if source is None or source.op_type != "DequantizeLinear" or bias is None:
        return np.zeros(1)
    step = float(numpy_helper.to_array(tensors[source.input[1]]))
    biases = np.abs(numpy_helper.to_array(bias).astype(np.float64))
    least: NDArray[np.float64] = np.maximum(biases / MOST_STEPS, SMALLEST_NORMAL) / step
    return least


def _axis(node: onnx.NodeProto, dimensions: int) -> int:
    """Return the axis of the channels of a ``DequantizeLinear`` node, whose default is 1."""
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    return int(axis) % dimensions


def _as_half(scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return scales as float32 values that are normal numbers of float16, none smaller, so that a cast keeps them."""
    exact = np.maximum(scale, SMALLEST_NORMAL)
    with np.errstate(over="ignore"):
        near = exact.astype(np.float16)
        up = np.where(near < exact, np.nextafter(near, np.float16(np.inf)), near).astype(np.float32)
    return np.where(np.isfinite(up), up, exact).astype(np.float32)
