"""An ONNX file as a library's network, and what its parser says of one that it does not take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.backends.tensorrt.flavors import Flavor, Log, logger, needing_driver, sentence
from runtimes.errors import ArtifactError, CompatibilityError, Reason, ResourceError, RexportError, UsageError, quote
from runtimes.protocol import TensorSpec


@dataclass(frozen=True)
class ParsedNetwork:
    """A network in the library's memory. Some of that memory is the parser's, which lives as long as this.

    ``inputs`` and ``outputs`` have the batch as their first dimension, a name where it varies.
    """

    network: Any
    parser: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def parse(builder: Any, onnx: Path, flavor: Flavor, heard: Log) -> ParsedNetwork:
    """The file as a strongly typed network of the library's ``builder``.

    Raises:
        UsageError: the path is not Unicode.
        ArtifactError: the file is no graph.
        CompatibilityError: nodes that the library does not take, or inputs and outputs of which no engine is made.
        BackendUnavailableError: the library finds no driver.
        ResourceError: no memory for it.
    """
    library: Any = flavor.library()
    try:
        os.fspath(onnx).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{flavor.title} reads no file whose path is not Unicode",
            code="path-not-unicode",
            path=onnx,
            hint="rename it",
        ) from error
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    with needing_driver(flavor, heard):
        parser = library.OnnxParser(network, logger(flavor, heard))
    if not parser.parse_from_file(os.fspath(onnx)):
        raise _refusal_error([parser.get_error(index) for index in range(parser.num_errors)], flavor, onnx)
    try:
        return ParsedNetwork(network, parser, *_specs(network))
    except CompatibilityError as error:
        raise CompatibilityError(error.what, code=error.code, path=onnx, hint=error.hint) from error


SHOWN_ERRORS = 3


def _refusal_error(errors: Sequence[Any], flavor: Flavor, onnx: Path) -> RexportError:
    """The parser's errors in one."""
    words = [_format_error(error) for error in errors] or ["it gave no reason"]
    more = f"; and {len(words) - SHOWN_ERRORS} more" if len(words) > SHOWN_ERRORS else ""
    refusal = Reason(
        "graph-refused-by-parser", f"{flavor.title}'s parser refused it: {'; '.join(words[:SHOWN_ERRORS])}{more}"
    )
    codes = [error.code().name for error in errors]
    if "MEM_ALLOC_FAILED" in codes:
        return ResourceError(refusal.sentence, code=refusal.code, path=onnx)
    if _BROKEN.isdisjoint(codes) or any(_UNKNOWN in error.desc() for error in errors):
        return CompatibilityError(refusal.sentence, code=refusal.code, path=onnx, hint="another backend may run it")
    return ArtifactError(refusal.sentence, code=refusal.code, path=onnx, hint="export it again")


_BROKEN = {"MODEL_DESERIALIZE_FAILED", "INVALID_GRAPH"}
"""What the parser says of a file that is none. With the other codes it tells what the library does not take: a node
that is valid ONNX is ``INVALID_NODE`` to it where it knows no such kind, as an int8 zero point other than 0."""

_UNKNOWN = "Plugin not found"


def _format_error(error: Any) -> str:
    """``node NAME (OPERATOR): reason``. What the network's own check said stands in the lines after the first."""
    first, *others = error.desc().split("\n")
    reason = sentence(next((line for line in others if "Error Code" in line), first)).removeprefix("Assertion failed: ")
    if reason == "false":
        reason = "the operator is not supported"
    if _UNKNOWN in reason:
        reason = "there is no such operator, and no plugin of that name"
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
"""NumPy's names of what an engine may take and give."""


def _specs(network: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Of inputs and outputs."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    batch = next((name for tensor in tensors if len(tensor.shape) and (name := tensor.get_dimension_name(0))), "batch")
    inputs = tuple(_spec(tensor, str(batch)) for tensor in tensors)
    if len({spec.shape[0] for spec in inputs}) != 1:
        raise CompatibilityError(
            f"its inputs have no batch in common: {', '.join(map(str, inputs)) or 'it has none'}",
            code="engine-batches-differ",
            hint="their first dimension must be the same",
        )
    return inputs, tuple(_spec(network.get_output(index), str(batch)) for index in range(network.num_outputs))


def _spec(tensor: Any, batch: str) -> TensorSpec:
    dtype = tensor.dtype.name
    if dtype not in DTYPES:
        raise CompatibilityError(
            f"{quote(tensor.name)} has the type {dtype.lower()}, which NumPy has not",
            code="engine-type-unsupported",
            hint="export it with inputs and outputs of float32",
        )
    shape = tuple(int(size) for size in tensor.shape)
    if not shape or min(shape[1:], default=1) < 0:
        raise CompatibilityError(
            f"{quote(tensor.name)} has the shape {shape}",
            code="engine-shape-varies",
            hint="an engine takes batches of images of one size: only the first dimension may vary, which is -1",
        )
    return TensorSpec(str(tensor.name), DTYPES[dtype], (batch if shape[0] < 0 else shape[0], *shape[1:]))
