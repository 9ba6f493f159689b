"""What one call of a network costs at least, from its graph alone: multiply-adds, and bytes to move.

A multiplication and its addition count once, as in He et al. 2015. Only convolutions and matrix products are counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from benchmarks.worker.inputs import concrete_shape
from exporter.explain.profile_summary import bits
from exporter.models.variants import Variant, layers
from runtimes import Artifact, Manifest, codec
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    ResourceError,
    RexportError,
    quote,
)
from runtimes.onnx.wire import is_weighted
from runtimes.protocol import TensorSpec

if TYPE_CHECKING:
    import onnx

Shape: TypeAlias = tuple[int, ...]

Tensors: TypeAlias = Mapping[str, tuple[int, Shape | None]]
"""Data type, as onnx numbers it, and shape, where it is known, by name."""


@dataclass(frozen=True)
class Cost:
    """Of one call, the whole batch.

    Attributes:
        multiply_adds: of the convolutions and matrix products, done as they are defined; an algorithm that saves
            multiplications, as Winograd's does, needs fewer.
        weights_bytes: of the numbers that the graph holds, in the types in which it holds them.
        traffic_bytes: of the weights, the input and the output, once each: what a call must move that finds nothing
            in a cache, and keeps all that comes between in one.
    """

    multiply_adds: int
    weights_bytes: int
    traffic_bytes: int


def cost_of(artifact: Artifact, batch: int) -> Cost | None:
    """The artifact's cost, or ``None`` where ``count_cost`` gives a reason that it cannot be told."""
    try:
        return count_cost(artifact, batch)
    except RexportError:
        return None


def count_cost(artifact: Artifact, batch: int) -> Cost:
    """The artifact's cost: of an ONNX file by its graph, of an engine by that of the file it was built from where it
    lies beside it, else of the variant that its manifest tells.

    Raises:
        CompatibilityError: it cannot be told; the message says why.
        RexportError: as ``cost``.
    """
    if artifact.format.name == "onnx":
        return cost(artifact.path, batch)
    if artifact.manifest is None:
        raise CompatibilityError(
            "a foreign file that is no ONNX file does not say what it computes",
            code="foreign-file-unreadable",
            path=artifact.path,
        )
    source = _source(artifact, artifact.manifest)
    return _cost_of_variant(artifact.manifest, batch, artifact.path) if source is None else cost(source, batch)


def _source(artifact: Artifact, manifest: Manifest) -> Path | None:
    """The ONNX file that an engine was built from, if it is still the one that lies beside it."""
    if manifest.engine is None:
        return None
    try:
        beside = Artifact.read(artifact.sibling(manifest.engine.onnx))
    except RexportError:
        return None
    same = beside.manifest is not None and beside.manifest.sha256 == manifest.parent and beside.format.name == "onnx"
    return beside.path if same else None


def _cost_of_variant(manifest: Manifest, batch: int, path: Path) -> Cost:
    """By the variant's layers: its weights in the artifact's precision, with the batch-norms folded into biases."""
    try:
        found = list(layers(codec.decode(Variant, manifest.variant)))
    except ArtifactError as error:
        raise CompatibilityError(
            f"its manifest names no known variant: {error.what}", code="variant-unknown-in-manifest", path=path
        ) from error
    weights = sum(layer.out_channels * (layer.in_channels * max(1, layer.kernel) ** 2 + 1) for layer in found)
    weights_bytes = weights * bits(manifest.precision) // 8
    specs = (*manifest.inputs, *manifest.outputs)
    ends = sum(math.prod(concrete_shape(spec, batch)) * np.dtype(spec.dtype).itemsize for spec in specs)
    return Cost(batch * sum(layer.multiply_adds for layer in found), weights_bytes, weights_bytes + ends)


def cost(path: Path, batch: int) -> Cost:
    """The cost of an ONNX file's graph, whose shapes onnx infers from the input's. Weights beside it are not read.

    Raises:
        BackendUnavailableError: onnx is not installed.
        ResourceError, ArtifactError: the file cannot be read.
        CompatibilityError: it takes another batch, or holds what is not counted here: branches, functions, recurrent
            layers, a shape that onnx cannot infer.
    """
    model = _load_model(path)
    graph, functions = model.graph, {function.name for function in model.functions}
    for node in graph.node:
        unknown = node.op_type not in _WEIGHTS_AT and is_weighted(node.op_type)
        if unknown or node.op_type in functions or node.op_type in _UNCOUNTED:
            raise CompatibilityError(
                f"the multiply-adds of {quote(node.op_type)} are not counted", code="operator-not-counted", path=path
            )
    held = {tensor.name for tensor in graph.initializer}
    ends = [value for value in graph.input if value.name not in held]
    for value in ends:
        dims = value.type.tensor_type.shape.dim
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)
        for dim, size in zip(dims, concrete_shape(TensorSpec(value.name, "tensor", shape), batch), strict=True):
            dim.dim_value = size
    tensors = _infer_tensors(model, path)
    # 64-bit integers are sizes and axes.
    weights = [tensor.name for tensor in graph.initializer if tensor.data_type != tensor.INT64]
    weights_bytes = sum(_bytes_of(name, tensors, path) for name in weights)
    ends_bytes = sum(_bytes_of(value.name, tensors, path) for value in (*ends, *graph.output))
    return Cost(
        multiply_adds=sum(_multiply_adds(node, tensors, path) for node in graph.node),
        weights_bytes=weights_bytes,
        traffic_bytes=weights_bytes + ends_bytes,
    )


_UNKNOWN = (0, None)

_CONSTANT = 1024
"""Numbers of a tensor that inference may need to look into, as the sizes of a Reshape. Without the others' it does not
copy the network to and fro."""

_UNCOUNTED = ("If", "Loop", "Scan", "RNN", "LSTM", "GRU", "Einsum", "Attention")
"""Operators whose multiply-adds their inputs' shapes do not tell, or not here."""

_WEIGHTS_AT = {
    "Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1,
    "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3, "Gemm": 1,
}  # fmt: skip
"""Operators whose multiply-adds are counted, and which of their inputs are the weights."""


def _load_model(path: Path) -> onnx.ModelProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise BackendUnavailableError(
            f"a graph's cost needs onnx: {quote(error)}", code="onnx-missing", hint="pip install 'rexport[export]'"
        ) from error
    try:
        return onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ResourceError.from_os(error, path, "read") from error
    except DecodeError as error:
        raise ArtifactError(f"not a whole ONNX file: {quote(error)}", code="onnx-truncated", path=path) from error


def _infer_tensors(model: onnx.ModelProto, path: Path) -> Tensors:
    """Type and shape of each tensor, by its name. Forgets the model's large numbers, or where they are."""
    import onnx

    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _CONSTANT:
            for field, _ in tensor.ListFields():
                if field.name not in ("dims", "data_type", "name"):
                    tensor.ClearField(field.name)
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise CompatibilityError(
            f"onnx cannot infer its shapes: {quote(error)}", code="shapes-not-inferred", path=path
        ) from error
    tensors: dict[str, tuple[int, Shape | None]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        known = kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
        tensors[value.name] = kind.elem_type, tuple(dim.dim_value for dim in kind.shape.dim) if known else None
    return tensors | {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}


def _bytes_of(name: str, tensors: Tensors, path: Path) -> int:
    """Of the tensor's numbers; those below 8 bits are taken to lie packed."""
    from onnx import TensorProto, helper

    kind, shape = tensors.get(name, _UNKNOWN)
    if shape is None:
        raise CompatibilityError(
            f"onnx cannot infer the shape of {quote(name)!r}", code="tensor-shape-unknown", path=path
        )
    try:
        width = bits(TensorProto.DataType.Name(kind))
        wide = 8 * np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize
    except (KeyError, ValueError, TypeError) as error:
        raise CompatibilityError(
            f"it holds numbers of the unknown type {kind}", code="element-type-unknown", path=path
        ) from error
    return math.ceil(math.prod(shape) * (width if width < 8 else wide) / 8)


def _multiply_adds(node: onnx.NodeProto, tensors: Tensors, path: Path) -> int:
    weights_at = _WEIGHTS_AT.get(node.op_type)
    if weights_at is None:
        return 0
    names = [node.input[place] for place in (0, weights_at) if place < len(node.input)] + [node.output[0]]
    known = [shape for name in names if (shape := tensors.get(name, _UNKNOWN)[1]) is not None]
    if len(known) < 3:
        raise CompatibilityError(
            f"onnx cannot infer the shapes of {quote(node.name or node.op_type)!r}",
            code="node-shapes-unknown",
            path=path,
        )
    data, weights, output = known
    if node.op_type == "ConvTranspose":
        return math.prod(data) * math.prod(weights[1:])  # weights (in, out / groups, height, width)
    if "Conv" in node.op_type:
        return math.prod(output) * math.prod(weights[1:])  # weights (out, in / groups, height, width)
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)  # of Gemm
    return math.prod(output) * data[0 if turned else -1]
