"""Parsing of ONNX files by the libraries, and the translation of the parser's errors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes import files
from runtimes.artifacts.rebuild_command import EXPORT_AGAIN
from runtimes.backends.tensorrt.flavors import Flavor, Log, logger, needing_driver, sentence
from runtimes.errors import (
    ArtifactError,
    CompatibilityError,
    Reason,
    ResourceError,
    RexportError,
    UsageError,
    quote,
)
from runtimes.tensors.spec import TensorSpec


@dataclass(frozen=True)
class ParsedNetwork:
    """A network in the library's memory.

    Attributes:
        network: The library's network.
        parser: The library's parser, which owns part of the network's memory and is kept alive.
        inputs: The specifications of the inputs. The first dimension is the batch, with a name if it varies.
        outputs: The specifications of the outputs. The first dimension is the batch, with a name if it varies.
    """

    network: Any
    parser: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def parse(builder: Any, onnx: Path, flavor: Flavor, log: Log) -> ParsedNetwork:
    """Parse an ONNX file to a strongly typed network.

    Args:
        builder: The library's builder.
        onnx: The ONNX file.
        flavor: The library.
        log: Receives the library's messages.

    Raises:
        UsageError: The path is not valid Unicode.
        ArtifactError: The graph is invalid.
        CompatibilityError: The library does not support a node, an input or an output.
        BackendUnavailableError: The library finds no usable driver.
        ResourceError: Memory is lacking.
    """
    library: Any = flavor.library()
    try:
        os.fspath(onnx).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{flavor.title} cannot read a file whose path is not valid Unicode",
            code="path-not-unicode",
            path=onnx,
            hint="rename the file",
        ) from error
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    with needing_driver(flavor, log):
        parser = library.OnnxParser(network, logger(flavor, log))
    if not parser.parse_from_file(os.fspath(onnx)):
        if (failure := files.find_read_failure(onnx)) is not None:
            raise failure
        raise _parser_error([parser.get_error(index) for index in range(parser.num_errors)], flavor, onnx)
    try:
        return ParsedNetwork(network, parser, *_specs(network))
    except CompatibilityError as error:
        raise CompatibilityError(error.what, code=error.code, path=onnx, hint=error.hint) from error


SHOWN_ERRORS = 3
"""The largest number of parser errors in a message."""


def _parser_error(errors: Sequence[Any], flavor: Flavor, onnx: Path) -> RexportError:
    """Return one error for all errors of the parser."""
    texts = [_format_error(error) for error in errors] or ["the parser gave no reason"]
    more = f"; and {len(texts) - SHOWN_ERRORS} more" if len(texts) > SHOWN_ERRORS else ""
    reason = Reason(
        "graph-refused-by-parser",
        f"the parser of {flavor.title} cannot parse the graph: {'; '.join(texts[:SHOWN_ERRORS])}{more}",
    )
    codes = [error.code().name for error in errors]
    if "MEM_ALLOC_FAILED" in codes:
        return ResourceError(reason.sentence, code=reason.code, path=onnx)
    if _BROKEN.isdisjoint(codes) or any(_UNKNOWN in error.desc() for error in errors):
        return CompatibilityError(reason.sentence, code=reason.code, path=onnx, hint="try another backend")
    return ArtifactError(reason.sentence, code=reason.code, path=onnx, hint=EXPORT_AGAIN)


_BROKEN = {"MODEL_DESERIALIZE_FAILED", "INVALID_GRAPH"}
"""The parser's codes for an invalid file. Other codes stand for unsupported nodes: for example, ``INVALID_NODE`` is
also the code for valid ONNX with an int8 zero point other than 0."""

_UNKNOWN = "Plugin not found"


def _format_error(error: Any) -> str:
    """Return an error of the parser as ``node NAME (OPERATOR): reason``.

    If the check of the network failed, its reason is in a line after the first.
    """
    first, *others = error.desc().split("\n")
    reason = sentence(next((line for line in others if "Error Code" in line), first)).removeprefix("Assertion failed: ")
    if reason == "false":
        reason = "the operator is not supported"
    if _UNKNOWN in reason:
        reason = "the operator is unknown, and there is no plugin with its name"
    if error.node() < 0:
        return quote(reason)
    return f"node {quote(error.node_name())} ({quote(error.node_operator())}): {quote(reason)}"


DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""NumPy's names for the types of inputs and outputs."""


def _specs(network: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the specifications of the inputs and outputs of a network."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    batch = next((name for tensor in tensors if len(tensor.shape) and (name := tensor.get_dimension_name(0))), "batch")
    inputs = tuple(_spec(tensor, str(batch)) for tensor in tensors)
    if len({spec.shape[0] for spec in inputs}) != 1:
        raise CompatibilityError(
            f"the inputs must have the same first dimension, the batch: {', '.join(map(str, inputs)) or 'no inputs'}",
            code="engine-batches-differ",
            hint="export the model with one batch dimension for all inputs",
        )
    return inputs, tuple(_spec(network.get_output(index), str(batch)) for index in range(network.num_outputs))


def _spec(tensor: Any, batch: str) -> TensorSpec:
    dtype = tensor.dtype.name
    if dtype not in DTYPES:
        raise CompatibilityError(
            f"the type {dtype.lower()} of {quote(tensor.name)} does not exist in NumPy",
            code="engine-type-unsupported",
            hint="export the model with inputs and outputs of float32",
        )
    shape = tuple(int(size) for size in tensor.shape)
    if not shape or min(shape[1:], default=1) < 0:
        raise CompatibilityError(
            f"{quote(tensor.name)} has the shape {shape}, but only the first dimension may vary (-1)",
            code="engine-shape-varies",
            hint="export the model for images of one size",
        )
    return TensorSpec(str(tensor.name), DTYPES[dtype], (batch if shape[0] < 0 else shape[0], *shape[1:]))
