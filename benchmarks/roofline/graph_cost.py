"""The minimum cost of one call of a network from its graph alone: multiply-adds, and bytes to move.

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
from exporter.models.layers import foldable_norms, layers
from exporter.models.variants import Variant
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
"""The shape of a tensor."""

Tensors: TypeAlias = Mapping[str, tuple[int, Shape | None]]
"""The data type, as onnx numbers it, and the shape if known, by the name of the tensor."""


@dataclass(frozen=True)
class Cost:
    """The cost of one call of the whole batch.

    Attributes:
        multiply_adds: The multiply-adds of convolutions and matrix products by their definition. An algorithm such as
            Winograd's needs fewer.
        weights_bytes: The size of the numbers in the graph, in their types.
        traffic_bytes: The size of weights, input and output, once each. A call moves at least these bytes if nothing is
            in a cache at its beginning, even if all intermediate tensors stay in a cache.
    """

    multiply_adds: int
    weights_bytes: int
    traffic_bytes: int


def cost_of(artifact: Artifact, batch: int) -> Cost | None:
    """Return the cost of the ``artifact`` for one call of ``batch`` images, or ``None`` if it cannot be determined."""
    try:
        return count_cost(artifact, batch)
    except RexportError:
        return None


def count_cost(artifact: Artifact, batch: int) -> Cost:
    """Return the cost of an artifact.

    An ONNX file is counted by its graph. An engine is counted by the graph of its ONNX file if that file is beside it,
    otherwise by the variant in its manifest, as are other formats.

    Args:
        artifact: The artifact.
        batch: The batch size.

    Raises:
        CompatibilityError: The cost cannot be determined.
        RexportError: As for ``cost``.
    """
    if artifact.format.name == "onnx":
        return cost(artifact.path, batch)
    if artifact.manifest is None:
        raise CompatibilityError(
            "a model without a manifest that is not an ONNX file does not say what it computes",
            code="foreign-file-unreadable",
            path=artifact.path,
        )
    source = _source(artifact, artifact.manifest)
    return _cost_of_variant(artifact.manifest, batch, artifact.path) if source is None else cost(source, batch)


def _source(artifact: Artifact, manifest: Manifest) -> Path | None:
    """Return the ONNX file that an engine was built from, if it is beside the engine and unchanged."""
    if manifest.engine is None:
        return None
    try:
        source = Artifact.read(artifact.sibling(manifest.engine.onnx, manifest.parent))
    except RexportError:
        return None
    same = source.manifest is not None and source.manifest.sha256 == manifest.parent and source.format.name == "onnx"
    return source.path if same else None


def _cost_of_variant(manifest: Manifest, batch: int, path: Path) -> Cost:
    """Return the cost by the variant's layers, with weights in the artifact's precision and folded batch norms."""
    try:
        variant = codec.decode(Variant, manifest.variant)
    except ArtifactError as error:
        raise CompatibilityError(
            f"the manifest names no known variant: {error.what}", code="variant-unknown-in-manifest", path=path
        ) from error
    counted, folded = list(layers(variant)), foldable_norms(variant)
    weights = sum(math.prod(layer.shape) + layer.out_channels * layer.bias for layer in counted)
    for layer in counted:  # a folded norm is a bias for each channel, another one has all its numbers
        numbers = 4 if variant.norm == "batch" else 2
        weights += layer.norm_channels * (1 if layer.norm in folded else numbers)
    weights_bytes = weights * bits(manifest.precision) // 8
    specs = (*manifest.inputs, *manifest.outputs)
    ends = sum(math.prod(concrete_shape(spec, batch)) * np.dtype(spec.dtype).itemsize for spec in specs)
    return Cost(batch * sum(layer.multiply_adds for layer in counted), weights_bytes, weights_bytes + ends)


def cost(path: Path, batch: int) -> Cost:
    """Return the cost of an ONNX file by its graph. The onnx library infers the shapes; external weights are not read.

    Args:
        path: The ONNX file.
        batch: The batch size.

    Raises:
        BackendUnavailableError: The onnx library is not installed.
        ResourceError: The file cannot be read.
        ArtifactError: The file is not a complete ONNX file.
        CompatibilityError: The model has another fixed batch size, or the graph has parts that are not counted:
            branches, functions, recurrent layers, or a shape that onnx cannot infer.
    """
    model = _load_model(path)
    graph, functions = model.graph, {function.name for function in model.functions}
    for node in graph.node:
        unknown = node.op_type not in _WEIGHTS_AT and is_weighted(node.op_type)
        if unknown or node.op_type in functions or node.op_type in _UNCOUNTED:
            raise CompatibilityError(
                f"the multiply-adds of operator {quote(node.op_type)} cannot be counted",
                code="operator-not-counted",
                path=path,
            )
    held = {tensor.name for tensor in graph.initializer}
    ends = [value for value in graph.input if value.name not in held]
    for value in ends:
        dims = value.type.tensor_type.shape.dim
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)
        for dim, size in zip(dims, concrete_shape(TensorSpec(value.name, "tensor", shape), batch), strict=True):
            dim.dim_value = size
    tensors = _infer_tensors(model, path)
    # 64-bit integers are sizes and axes, not weights.
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
"""The largest number of elements that a tensor keeps for shape inference, which may need the sizes of a Reshape.

Without the other values, inference does not copy the whole network.
"""

_UNCOUNTED = ("If", "Loop", "Scan", "RNN", "LSTM", "GRU", "Einsum", "Attention")
"""The operators whose multiply-adds cannot be counted from the shapes of their inputs."""

_WEIGHTS_AT = {
    "Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1,
    "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3, "Gemm": 1,
}  # fmt: skip
"""The counted operators, and the index of the input with their weights."""


def _load_model(path: Path) -> onnx.ModelProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise BackendUnavailableError(
            f"counting the cost of a graph needs onnx: {quote(error)}",
            code="onnx-missing",
            hint="pip install 'rexport[export]'",
        ) from error
    try:
        return onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ResourceError.from_os(error, path, "read") from error
    except DecodeError as error:
        raise ArtifactError(f"not a complete ONNX file: {quote(error)}", code="onnx-truncated", path=path) from error


def _infer_tensors(model: onnx.ModelProto, path: Path) -> Tensors:
    """Return type and shape of each tensor by name. The values of large tensors in ``model`` are removed."""
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
            f"onnx cannot infer the shapes: {quote(error)}", code="shapes-not-inferred", path=path
        ) from error
    tensors: dict[str, tuple[int, Shape | None]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        known = kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
        tensors[value.name] = kind.elem_type, tuple(dim.dim_value for dim in kind.shape.dim) if known else None
    return tensors | {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}


def _bytes_of(name: str, tensors: Tensors, path: Path) -> int:
    """Return the size of a tensor. Numbers below 8 bits are assumed to be packed."""
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
            f"the tensor has elements of the unknown type {kind}", code="element-type-unknown", path=path
        ) from error
    return math.ceil(math.prod(shape) * (width if width < 8 else wide) / 8)


def _multiply_adds(node: onnx.NodeProto, tensors: Tensors, path: Path) -> int:
    weights_at = _WEIGHTS_AT.get(node.op_type)
    if weights_at is None:
        return 0
    names = [node.input[index] for index in (0, weights_at) if index < len(node.input)] + [node.output[0]]
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
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)  # of Gemm
    return math.prod(output) * data[0 if transposed else -1]
