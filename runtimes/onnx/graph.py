"""What an ONNX file says of itself, read from its bytes without the onnx package and without its weights.

It serves two purposes: before a backend touches a file, to know that it is whole on the outside and that the weights it
keeps in other files lie in its own folder (``check``); and to know its nodes and their arithmetic, which libraries give
back under other names or not at all (``graph``). The format is protocol buffers' wire encoding (field number and wire
type, then a value) of ``onnx.proto``'s ModelProto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from runtimes import files
from runtimes.errors import ArtifactError, quote
from runtimes.onnx.wire import Node, _ProtobufReader


@dataclass(frozen=True)
class OnnxFile:
    """``opset`` is that of the default operator set, 0 where the file names none. ``precisions`` are the types of the
    tensors that it holds, ``external`` (location, bytes needed) of the tensors that lie in other files."""

    ir_version: int
    opset: int
    precisions: tuple[str, ...]
    external: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class OnnxGraph:
    """The nodes of a file's main graph in their order, and the types of the tensors that it holds, by name."""

    nodes: tuple[Node, ...]
    types: dict[str, str]

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that makes each tensor, by the tensor's name."""
        return {tensor: node for node in self.nodes for tensor in node.outputs if tensor}

    @cached_property
    def _nodes_by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def find(self, name: str) -> Node | None:
        """The node of that name, else the one that makes the tensor of that name."""
        return self._nodes_by_name.get(name) or self.producers.get(name)

    def find_fused(self, last: Node) -> tuple[Node, ...]:
        """From a convolution or matrix product to ``last``, as a library fuses them into one step that goes by the
        last one's name; ``last`` alone where several chains lead to it."""
        chain = [last]
        while not chain[0].weighted:
            before = [self.producers[name] for name in chain[0].inputs if name in self.producers]
            before = [node for node in before if node.weighted] or before
            if len(before) != 1 or before[0] in chain:
                return (last,)
            chain.insert(0, before[0])
        return tuple(chain)

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that take each tensor, by the tensor's name; a tensor that none takes is missing."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for tensor in node.inputs:
                found.setdefault(tensor, []).append(node)
        return found

    @cached_property
    def weighted(self) -> dict[Node, str]:
        """In what each convolution and matrix product is typed, where that can be told.

        It is of the type of its weights; ``int8`` if they and its input are quantised, whether by Q/DQ nodes or by an
        operator of integers.
        """
        found = ((node, self._arithmetic_of(node)) for node in self.nodes if node.weighted)
        return {node: kind for node, kind in found if kind}

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """The types of ``weighted``, sorted: ``("float32",)`` or ``("float32", "int8")``; where it is empty, those of
        all that the graph holds."""
        return tuple(sorted(set(self.weighted.values()) or set(filter(None, self.types.values()))))

    def _arithmetic_of(self, node: Node) -> str | None:
        if node.operator.startswith("QLinear") or node.operator.endswith("Integer"):
            return "int8"
        if len(node.inputs) < 2:
            return None
        (data, _), (weights, tensor) = (self._origin(name) for name in node.inputs[:2])
        if weights is None or weights.operator != DEQUANTISE:
            return self.types.get(tensor)
        if data is not None and data.operator == DEQUANTISE:
            return "int8"
        return self.types.get(weights.inputs[1]) if len(weights.inputs) > 1 else None

    def _origin(self, tensor: str) -> tuple[Node | None, str]:
        """The node that the tensor's values come from, or ``None``, and its name there: where they only moved, from
        further back."""
        for _ in self.nodes:
            node = self.producers.get(tensor)
            if node is None or node.operator not in _MOVING or not node.inputs:
                return node, tensor
            tensor = node.inputs[0]
        return None, tensor  # a circle, which no library will run


QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"


_MOVING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "MaxPool")


@contextmanager
def _reader(path: Path) -> Iterator[_ProtobufReader]:
    with files.open_regular(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield _ProtobufReader(data)
        except ArtifactError as error:
            raise ArtifactError(f"not a whole ONNX file: {error.what}", code=error.code, path=path) from error
        except ValueError as error:  # of an empty file, or of texts and numbers that are none
            raise ArtifactError(f"not a whole ONNX file: {quote(error)}", code="onnx-broken", path=path) from error


def graph(path: Path) -> OnnxGraph:
    """The file's main graph. Its weights are not read: time and memory depend on the number of nodes alone.

    Raises:
        ArtifactError, ResourceError: as ``read``.
    """
    nodes: list[Node] = []
    types: dict[str, str] = {}
    with _reader(path) as reader:
        for field, at, end in reader.messages(0, len(reader.data)):
            if field != _GRAPH:
                continue
            for child, start, stop in reader.messages(at, end):
                if child == _NODE:
                    nodes.append(reader.node(start, stop))
                elif child == _INITIALIZER:
                    name, kind = reader.tensor(start, stop)
                    types[name] = kind
    return OnnxGraph(tuple(nodes), types)


_GRAPH, _NODE, _INITIALIZER = 7, 1, 5  # fields of ModelProto and of GraphProto


def read(path: Path) -> OnnxFile:
    """The file's own statements. Its weights are not read: time and memory depend on the graph alone.

    Raises:
        ArtifactError: truncated, or not an ONNX file at all.
        ResourceError: unreadable.
    """
    with _reader(path) as reader:
        reader.walk("model", 0, len(reader.data))
    if reader.ir_version == 0 and reader.opset == 0:
        raise ArtifactError(
            "not an ONNX file: it names neither an IR version nor an opset", code="onnx-without-version", path=path
        )
    return OnnxFile(reader.ir_version, reader.opset, tuple(sorted(reader.precisions)), tuple(reader.external))
