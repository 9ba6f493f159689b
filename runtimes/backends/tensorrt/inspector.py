"""The layers of an engine, their kernels and their precisions, as reported by the engine's inspector.

The inspector returns JSON, whose keys changed from TensorRT 10 to 11; both forms are read. Engines built by rexport
hold all details. Engines of other programs may hold only the names of layers.
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
        layer: The layer in the form common to all backends.
        title: The engine's own name of the layer, which the profiler uses.
        tactic: The library's name of the kernel, or ``None`` if the library does not report it.
    """

    layer: Layer
    title: str
    tactic: str | None


def layers(loaded: LoadedEngine, context: Any = None, graph: OnnxGraph | None = None) -> tuple[EngineLayer, ...]:
    """Return the layers of an engine, in order.

    Args:
        loaded: The engine.
        context: An execution context with a batch size. An engine with a varying batch reports types only with one.
        graph: The graph of the ONNX file that the engine was built from, for the names of nodes.

    Raises:
        ArtifactError: The text of the inspector cannot be read.
    """
    return read(information(loaded, context), graph)


def information(loaded: LoadedEngine, context: Any = None) -> str:
    """Return the JSON of the inspector.

    Args:
        loaded: The engine.
        context: As for ``layers``.
    """
    inspector = loaded.engine.create_engine_inspector()
    if context is not None:
        inspector.execution_context = context
    return str(inspector.get_engine_information(loaded.library.LayerInformationFormat.JSON))


def read(text: str, graph: OnnxGraph | None = None) -> tuple[EngineLayer, ...]:
    """Return the layers in the inspector's JSON.

    Args:
        text: The JSON.
        graph: The graph of the ONNX file that the engine was built from, for the names of nodes.

    Raises:
        ArtifactError: The text is not the inspector's JSON.
    """
    try:
        rows = json.loads(text)["Layers"]
        return tuple(_layer({"Name": row} if isinstance(row, str) else row, graph) for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"the text of the engine's inspector cannot be read: {type(error).__name__} {quote(error)}",
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
"""The prefixes and suffixes of layers that the library added."""

_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\s\x1e\x1f,;]*(?:\[|$))")


def _nodes(row: Row, graph: OnnxGraph | None) -> tuple[str, ...]:
    """Return the names of the graph's nodes fused into a layer, from its metadata or otherwise from its name."""
    names = _NODE.findall(str(row.get("Metadata", "")))
    if not names:
        names = [part for part in re.split(r" \+ | \|\| ", str(row["Name"])) if not _ADDED.search(part)]
    if graph is not None:
        names = [node.name for node in map(graph.find, names) if node is not None]
    return tuple(dict.fromkeys(names))


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
        (r"int8", "int8"),  # signed and unsigned 8-bit integers
        (r"int4", "int4"),
        (r"int64", "int64"),
        (r"int32", "int32"),
        (r"bool", "bool"),
        (r"fp32|float|tf32", "float32"),
    )
)

_TYPE_KEYS = ("Format/Datatype", "DataType", "Datatype", "Format")
"""The keys of a tensor's type. TensorRT 10 reports the type as part of a format, for example ``Thirty-two wide channel
vectorized row major Int8 format``; TensorRT 11 reports it separately."""


def _precision(row: Row) -> str:
    """Return the precision of a layer: the type of its first input, of its weights, or of its first output."""
    weights = row.get("Weights")
    of_weights = {"DataType": weights.get("Type")} if isinstance(weights, Mapping) else {}
    tensors = (*row.get("Inputs", ())[:1], of_weights, *row.get("Outputs", ()))
    return next(filter(None, map(_type, tensors)), "unknown")


def _type(tensor: Row) -> str | None:
    description = next((str(tensor[key]) for key in _TYPE_KEYS if tensor.get(key)), "")
    return next((name for pattern, name in _TYPES if pattern.search(description)), None)
