"""Quantisation of a float32 graph by NVIDIA ModelOpt: int8 or fp8 for TensorRT, and float16 between the Q/DQ nodes.

ModelOpt places the nodes as TensorRT fuses them, and calibrates activations with ONNX Runtime on the CPU: by the
extremes for fp8, by entropy for int8. It leaves weights in float16 before a QuantizeLinear node. This module stores
them quantised, which is the same function in a quarter of the bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.network import INPUT
from runtimes.errors import BackendUnavailableError, CompatibilityError, quote

if TYPE_CHECKING:
    import onnx

Mode: TypeAlias = Literal["int8", "fp8"]

_METHODS: dict[Mode, str] = {"int8": "entropy", "fp8": "max"}


def quantiser() -> str:
    """Return the name and version of the library.

    Raises:
        BackendUnavailableError: The library is not installed.
    """
    try:
        return f"nvidia-modelopt {metadata.version('nvidia-modelopt')}"
    except metadata.PackageNotFoundError as error:
        raise _missing("it is not installed") from error


def quantise_with_modelopt(
    graph: onnx.ModelProto, images: NDArray[np.float32], mode: Mode, float_layers: Sequence[str] = ()
) -> onnx.ModelProto:
    """Return a quantised copy of a graph. Its input and outputs stay float32.

    The call blocks for n runs of the network and some seconds more.

    Args:
        graph: The float32 graph with folded batch norms.
        images: The calibration images as the graph takes them, float32 (n, c, h, w), n at least 1.
        mode: ``int8`` or ``fp8``.
        float_layers: The names of the nodes that stay in float16.

    Raises:
        BackendUnavailableError: ModelOpt is not installed.
        CompatibilityError: ModelOpt cannot quantise the graph.
    """
    import onnx

    quantize, version = _import_modelopt(), quantiser()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder, "float32.onnx"), Path(folder, "quantised.onnx")
        source.write_bytes(graph.SerializeToString())
        try:
            quantize(
                str(source),
                quantize_mode=mode,
                calibration_data={INPUT: images},
                calibration_method=_METHODS[mode],
                calibration_eps=["cpu"],
                nodes_to_exclude=[f"^{re.escape(name)}$" for name in float_layers],
                high_precision_dtype="fp16",
                output_path=str(target),
                log_level="ERROR",
            )
            result = onnx.load(str(target))
        except Exception as error:  # errors of ModelOpt, ONNX Runtime and Python
            raise CompatibilityError(
                f"{version} cannot quantise the graph: {quote(error)}", code="modelopt-failed"
            ) from error
    _check_quantised(result, version)
    _store_weights(result)
    del result.graph.value_info[:]
    return result


def _import_modelopt() -> Any:
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            from modelopt.onnx.quantization import quantize
    except ImportError as error:
        raise _missing(f"it cannot be imported: {quote(error)}") from error
    return quantize


def _missing(why: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"the recipe modelopt needs NVIDIA ModelOpt, and {why}",
        code="modelopt-missing",
        hint="pip install 'rexport[modelopt]'",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output of ModelOpt. The result is checked afterwards."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _check_quantised(model: onnx.ModelProto, version: str) -> None:
    """Check that ModelOpt quantised something: it returns an unquantised graph without an error."""
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise CompatibilityError(f"{version} quantised no layer of the graph", code="modelopt-quantised-nothing")


def _store_weights(model: onnx.ModelProto) -> None:
    """Replace each QuantizeLinear node of a stored tensor by its result, in place."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in tensors]
    opsets = [item for item in model.opset_import if item.domain in ("", "ai.onnx")]
    for node in weights:
        graph = helper.make_graph(
            [node], "weights", [], [helper.make_empty_tensor_value_info(node.output[0])],
            [tensors[name] for name in node.input],
        )  # fmt: skip
        (values,) = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)).run(
            None, {}
        )
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    used = {name for node in model.graph.node for name in node.input}
    unused = [tensor for tensor in model.graph.initializer if tensor.name not in used]
    for tensor in unused:
        model.graph.initializer.remove(tensor)
