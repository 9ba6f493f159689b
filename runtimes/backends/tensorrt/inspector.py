"""What an engine's own inspector tells: its layers, their kernels, and in what they really compute.

The text is JSON whose keys changed from TensorRT 10 to 11; both are read. An engine holds these details because it was
built with the verbosity for them; one that others built may hold names alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from runtimes.backends.tensorrt.engine import LoadedEngine
from runtimes.errors import ArtifactError, quote
from runtimes.onnx.graph import OnnxGraph
from runtimes.protocol import Layer

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        layer: as every backend tells it.
        title: the engine's own name for it, by which its profiler goes.
        tactic: the kernel that was chosen, in the library's words, or ``None`` where it does not tell.
    """

    layer: Layer
    title: str
    tactic: str | None


def layers(loaded: LoadedEngine, context: Any = None, graph: OnnxGraph | None = None) -> tuple[EngineLayer, ...]:
    """The engine's layers in their order.

    Where its batch varies it tells its tensors' types of a ``context`` alone that was given one. ``graph`` is of the
    ONNX file that it was built from, to know its nodes by.

    Raises:
        ArtifactError: the inspector's text cannot be read.
    """
    inspector = loaded.engine.create_engine_inspector()
    if context is not None:
        inspector.execution_context = context
    return read(inspector.get_engine_information(loaded.library.LayerInformationFormat.JSON), graph)


def read(text: str, graph: OnnxGraph | None = None) -> tuple[EngineLayer, ...]:
    """The layers that the inspector's JSON tells of.

    Raises:
        ArtifactError: it is not that.
    """
    try:
        rows = json.loads(text)["Layers"]
        return tuple(_layer({"Name": row} if isinstance(row, str) else row, graph) for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"its inspector's text cannot be read: {type(error).__name__} {quote(error)}",
            code="inspector-text-unreadable",
        ) from error


def _layer(row: Row, graph: OnnxGraph | None) -> EngineLayer:
    title = str(row["Name"])
    operator = str(row.get("LayerType", "unknown"))
    tactic = str(row.get("TacticName") or row.get("TacticValue") or "") or None
    nodes = _nodes(row, graph)
    weighted = _is_weighted(operator, tactic or "", nodes, graph)
    precision = _precision(row)
    if weighted and precision == "float32" and tactic is not None and "tf32" in tactic.lower():
        precision = "tfloat32"
    main = next((name for name in nodes if _weighted_node(name, graph)), nodes[0] if nodes else title)
    return EngineLayer(Layer(main, nodes, operator, precision, weighted, None), title, tactic)


_ADDED = re.compile(r"^(?:Reformatting |__my|\{|\()|_myl\d+_\d+$")
"""How layers begin or end whose names the library made up."""

_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\s\x1e\x1f,;]*(?:\[|$))")


def _nodes(row: Row, graph: OnnxGraph | None) -> tuple[str, ...]:
    """The graph's nodes that were fused into a layer: of its metadata, else of its name, where they are joined."""
    found = _NODE.findall(str(row.get("Metadata", "")))
    if not found:
        found = [part for part in re.split(r" \+ | \|\| ", str(row["Name"])) if not _ADDED.search(part)]
    if graph is not None:
        found = [node.name for node in map(graph.find, found) if node is not None]
    return tuple(dict.fromkeys(found))


_WEIGHTED = re.compile(r"conv|gemm|matmul|matrixmultiply|fprop", re.IGNORECASE)
_UNWEIGHTED = re.compile(r"reformat|noop|constant|shuffle|shape|scale|pool|quantize|reduce|softmax", re.IGNORECASE)


def _is_weighted(operator: str, tactic: str, nodes: tuple[str, ...], graph: OnnxGraph | None) -> bool:
    if _WEIGHTED.search(operator):
        return True
    if _UNWEIGHTED.search(operator):
        return False
    return bool(_WEIGHTED.search(tactic)) or any(_weighted_node(name, graph) for name in nodes)


def _weighted_node(name: str, graph: OnnxGraph | None) -> bool:
    node = None if graph is None else graph.find(name)
    return node.weighted if node is not None else bool(re.search(r"Conv|Gemm|MatMul", name.rpartition("/")[2]))


_TYPES = tuple(
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"bf16|bfloat16", "bfloat16"),
        (r"fp16|float16|half", "float16"),
        (r"fp8|float8|e4m3", "float8"),
        (r"fp4|float4|e2m1", "float4"),
        (r"int8", "int8"),  # signed or not, a quantised layer is one of 8-bit integers
        (r"int4", "int4"),
        (r"int64", "int64"),
        (r"int32", "int32"),
        (r"bool", "bool"),
        (r"fp32|float|tf32", "float32"),
    )
)

_TYPE_KEYS = ("Format/Datatype", "DataType", "Datatype", "Format")
"""Of a tensor, TensorRT 10's first, as ``Thirty-two wide channel vectorized row major Int8 format``; 11 has the type
for itself. A format that dynamic shapes hide is no type."""


def _precision(row: Row) -> str:
    """In what a layer computes: the type of its first input, else of its weights, else of its first output."""
    weights = row.get("Weights")
    of_weights = {"DataType": weights.get("Type")} if isinstance(weights, Mapping) else {}
    tensors = (*row.get("Inputs", ())[:1], of_weights, *row.get("Outputs", ()))
    return next(filter(None, map(_type, tensors)), "unknown")


def _type(tensor: Row) -> str | None:
    words = next((str(tensor[key]) for key in _TYPE_KEYS if tensor.get(key)), "")
    return next((name for pattern, name in _TYPES if pattern.search(words)), None)
