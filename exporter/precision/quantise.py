"""A float32 graph in int8: Q/DQ nodes whose scales were found on images (static calibration).

NNCF places and calibrates them: one scale a channel for weights, symmetric; one a tensor for activations, unsigned
behind a ReLU; both branches of every residual addition. Its bias correction makes up for the weights' rounding. With
these places ONNX Runtime and OpenVINO run every convolution in integers. What NNCF leaves out is added here: the
zero-padding shortcut (option A), and the signed integers that TensorRT asks for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporter.network import INPUT
from runtimes.errors import BackendUnavailableError, CompatibilityError, quote

if TYPE_CHECKING:
    import onnx

_MOVING = ("Slice", "Pad")
"""Operators of a shortcut that move values and add zeros: the scale before them holds behind them."""


def quantiser() -> str:
    """The quantiser's name and version.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    return f"nncf {_nncf().__version__}"


def quantise_graph(graph: onnx.ModelProto, images: NDArray[np.float32], signed: bool) -> onnx.ModelProto:
    """A quantised copy of the graph, its scales from ``images`` (n, c, h, w) as they go into it, n at least 1.

    With ``signed`` all integers are signed ones, which are all that TensorRT takes.

    Blocks for n runs of the network and some seconds more.

    Raises:
        BackendUnavailableError: NNCF is not installed.
        CompatibilityError: NNCF cannot take the graph.
    """
    nncf = _nncf()
    batches = _batches(graph, images)
    with _quiet():
        try:
            result: onnx.ModelProto = nncf.quantize(
                graph,
                nncf.Dataset(batches, lambda batch: {INPUT: batch}),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(batches),
            )
        except Exception as error:  # NNCF raises its own errors, ONNX Runtime's and plain ones
            raise CompatibilityError(
                f"NNCF {nncf.__version__} cannot quantise this: {quote(error)}", code="quantisation-failed"
            ) from error
    del result.graph.value_info[:]
    _quantise_shortcuts(result)
    if signed:
        _convert_to_signed(result)
    else:
        _quantise_bias(result)
    return result


def _batches(graph: onnx.ModelProto, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The images one by one, or as many at once as the graph's batch is fixed at; the last are filled by repeating."""
    size = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    return [images[np.arange(start, start + size) % len(images)] for start in range(0, len(images), size)]


def _nncf() -> ModuleType:
    # It reports to its maker over the network unless it believes to be in its makers' own continuous integration;
    # ONNX Runtime, which it imports, has a switch of its own.
    os.environ.setdefault("NNCF_CI", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nncf
    except ImportError as error:
        raise BackendUnavailableError(
            f"int8 needs NNCF: {quote(error)}", code="nncf-missing", hint="pip install 'rexport[int8]'"
        ) from error
    return nncf  # type: ignore[no-any-return]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF talks on standard output, of progress and of things that are checked here afterwards anyway."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _quantise_shortcuts(model: onnx.ModelProto) -> None:
    """Puts a Q/DQ pair behind every slicing and padding of a quantised value, with the scale from before it.

    Zeros and moved values lose nothing by it, and the addition behind finds both branches quantised.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    scales: dict[str, tuple[str, str]] = {
        node.output[0]: (node.input[1], node.input[2])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in makers
    }
    nodes = list(model.graph.node)
    renamed: dict[str, str] = {}
    result = []
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        result.append(node)
        if node.op_type in _MOVING and node.input[0] in scales:
            pair = _pair(node.output[0], scales[node.input[0]])
            renamed[node.output[0]] = pair[1].output[0]
            scales[pair[1].output[0]] = scales[node.input[0]]
            result.extend(pair)
    del model.graph.node[:]
    model.graph.node.extend(result)


def _pair(name: str, scale: tuple[str, str]) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    from onnx import helper

    quantise, restore = f"QuantizeLinear_{name}", f"DequantizeLinear_{name}"
    return (
        helper.make_node("QuantizeLinear", [name, *scale], [f"q_output_{name}"], quantise),
        helper.make_node("DequantizeLinear", [f"q_output_{name}", *scale], [f"dq_output_{name}"], restore),
    )


def _quantise_bias(model: onnx.ModelProto) -> None:
    """Gives the classifier's bias as int32, in the product of the scales of its input and its weights.

    ONNX Runtime does so by itself for convolutions; without it, it computes the classifier in floats.
    """
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in [node for node in model.graph.node if node.op_type == "Gemm" and len(node.input) == 3]:
        before = makers.get(node.input[0])
        while before is not None and before.op_type == "Reshape":
            before = makers.get(before.input[0])
        weights, bias = makers.get(node.input[1]), tensors.get(node.input[2])
        if before is None or before.op_type != "DequantizeLinear" or weights is None or bias is None:
            continue
        scales = [numpy_helper.to_array(tensors[maker.input[1]]) for maker in (before, weights)]
        scale = (scales[0].astype(np.float64) * scales[1]).astype(np.float32)
        steps = np.clip(np.rint(numpy_helper.to_array(bias) / scale.astype(np.float64)), -(2**31), 2**31 - 1)
        names = [f"q_{bias.name}", f"scale_{bias.name}", f"zero_point_{bias.name}"]
        values = steps.astype(np.int32), scale, np.zeros(scale.shape, np.int32)
        model.graph.initializer.extend(map(numpy_helper.from_array, values, names))
        restore = helper.make_node(
            "DequantizeLinear", names, [f"dq_{bias.name}"], f"DequantizeLinear_{bias.name}", axis=0
        )
        model.graph.node.insert(list(model.graph.node).index(node), restore)
        node.input[2] = restore.output[0]
        model.graph.initializer.remove(bias)


def _convert_to_signed(model: onnx.ModelProto) -> None:
    """Gives every quantised value int8 with zero point 0, over the same range: TensorRT knows nothing else."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    done: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[2] in done:
            continue
        scale, zero = tensors[node.input[1]], tensors[node.input[2]]
        done.add(zero.name)
        point = numpy_helper.to_array(zero)
        if point.dtype == np.uint8:
            reach = np.maximum(point, 255 - point).astype(np.float64)
            wider = numpy_helper.to_array(scale) * reach / 127
            scale.CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale.name))
            zero.CopyFrom(numpy_helper.from_array(np.zeros_like(point, np.int8), zero.name))
