"""Conversion of a float32 graph to int8: Q/DQ nodes with scales from calibration images (static quantisation).

NNCF places the nodes and calibrates them. Weights have one symmetric scale for each channel, activations one scale for
each tensor. Activations after a ReLU are unsigned. Both inputs of each residual addition are quantised. NNCF's bias
correction compensates for the rounding of weights. With these nodes, ONNX Runtime and OpenVINO execute all convolutions
in integers. This module adds the nodes of the zero-padding
shortcut (option A), and ``integer_forms`` chooses the integers for the target.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporter.network import INPUT
from exporter.precision import integer_forms
from exporter.precision.recipes import RECIPES, CalibrationRecipe
from runtimes.artifacts.manifest import DEFAULT_RECIPE
from runtimes.errors import BackendUnavailableError, CompatibilityError, quote

if TYPE_CHECKING:
    import onnx

_MOVING = ("Slice", "Pad", "MaxPool")
"""Operators of a shortcut that only select values and add zeros. The scale of their input is valid for their output."""


def quantiser() -> str:
    """Return the name and version of the quantisation library.

    Raises:
        BackendUnavailableError: The library is not installed.
    """
    return f"nncf {_import_nncf().__version__}"


def quantise_graph(
    graph: onnx.ModelProto,
    images: NDArray[np.float32],
    signed: bool,
    recipe: CalibrationRecipe = RECIPES[DEFAULT_RECIPE],
    float_layers: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return a quantised copy of a graph.

    The call blocks for n runs of the network and some seconds more.

    Args:
        graph: The float32 graph with folded batch norms.
        images: The calibration images as the graph takes them, float32 (n, c, h, w), n at least 1.
        signed: Whether all integers are signed, as TensorRT requires.
        recipe: How ranges are estimated and biases are corrected.
        float_layers: The names of the nodes that stay in float32.

    Raises:
        BackendUnavailableError: NNCF is not installed.
        CompatibilityError: NNCF cannot quantise the graph.
    """
    nncf = _import_nncf()
    batches = _batches(graph, images)
    with _quiet():
        try:
            result: onnx.ModelProto = nncf.quantize(
                graph,
                nncf.Dataset(batches, lambda batch: {INPUT: batch}),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(batches),
                fast_bias_correction=recipe.bias_correction != "full",
                ignored_scope=nncf.IgnoredScope(names=list(float_layers)),
                advanced_parameters=_advanced_parameters(nncf, recipe),
            )
        except Exception as error:  # NNCF raises errors of its own, of ONNX Runtime and of Python
            raise CompatibilityError(
                f"NNCF {nncf.__version__} cannot quantise the graph: {quote(error)}", code="quantisation-failed"
            ) from error
    del result.graph.value_info[:]
    _quantise_shortcuts(result)
    if signed:
        integer_forms.convert_to_signed(result)
    else:
        _quantise_bias(result)
        integer_forms.convert_to_unsigned(result)
        integer_forms.separate_dequantisers(result)
    return result


def _advanced_parameters(nncf: ModuleType, recipe: CalibrationRecipe) -> object:
    ranges = nncf.quantization.range_estimator
    return nncf.AdvancedQuantizationParameters(
        # The filter of a blur is a depthwise convolution, whose input would get a scale for each channel.
        activations_quantization_params=nncf.quantization.advanced_parameters.QuantizationParameters(per_channel=False),
        activations_range_estimator_params=ranges.RangeEstimatorParameters()
        if recipe.ranges is None
        else getattr(ranges.RangeEstimatorParametersSet, recipe.ranges),
        disable_bias_correction=recipe.bias_correction == "none",
    )


def _batches(graph: onnx.ModelProto, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the images one by one, or in batches of the graph's fixed size. The last batch is filled by repetition."""
    size = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    return [images[np.arange(start, start + size) % len(images)] for start in range(0, len(images), size)]


def _import_nncf() -> ModuleType:
    # NNCF sends telemetry to its maker unless this variable is set. ONNX Runtime, which NNCF imports, has its own.
    os.environ.setdefault("NNCF_CI", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nncf
    except ImportError as error:
        raise BackendUnavailableError(
            f"int8 and fp8 need NNCF, which cannot be imported: {quote(error)}",
            code="nncf-missing",
            hint="pip install 'rexport[int8]'",
        ) from error
    return nncf  # type: ignore[no-any-return]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output of NNCF: progress bars and messages. The result is checked afterwards."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _quantise_shortcuts(model: onnx.ModelProto) -> None:
    """Insert a Q/DQ pair after each operator of ``_MOVING`` that reads a quantised value, with the same scale.

    Moved values and zeros stay exact. The addition that follows then has two quantised inputs.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    scales: dict[str, tuple[str, str]] = {
        node.output[0]: (node.input[1], node.input[2])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in producers
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
    """Store the bias of the classifier as int32, scaled by the product of the scales of its input and its weights.

    ONNX Runtime does this itself for convolutions. Without an int32 bias, it computes the classifier in floats.
    """
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in [node for node in model.graph.node if node.op_type == "Gemm" and len(node.input) == 3]:
        before = producers.get(node.input[0])
        while before is not None and before.op_type == "Reshape":
            before = producers.get(before.input[0])
        weights, bias = producers.get(node.input[1]), tensors.get(node.input[2])
        if before is None or before.op_type != "DequantizeLinear" or weights is None or bias is None:
            continue
        scales = [numpy_helper.to_array(tensors[producer.input[1]]) for producer in (before, weights)]
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
