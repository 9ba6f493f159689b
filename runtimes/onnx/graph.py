"""The structure of an ONNX file, read without the onnx package and without reading weights.

``read`` serves the check before a backend opens a file: the file is complete, and its external data is known. ``graph``
returns the nodes and their types, which libraries report under other names or not at all. The format is the wire
encoding of protocol buffers for ``ModelProto`` in ``onnx.proto``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from runtimes import files
from runtimes.errors import ArtifactError, quote
from runtimes.frozen_dataclass import dataclass
from runtimes.onnx.wire import Node, _ProtobufReader

METADATA_LIMIT_BYTES = 16 << 20
"""The largest size of an entry of the metadata."""


@dataclass(frozen=True)
class OnnxFile:
    """The versions and tensors of an ONNX file.

    Attributes:
        ir_version: The IR version, 0 if the file names none.
        opset: The version of the default operator set, 0 if the file names none.
        precisions: The types of the tensors in the file, by NumPy's names, sorted.
        external: The (location, bytes needed) of each tensor in another file.
    """

    ir_version: int
    opset: int
    precisions: tuple[str, ...]
    external: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class OnnxGraph:
    """The main graph of an ONNX file.

    Attributes:
        nodes: The nodes, in the order of the file.
        types: The types of the tensors in the file, by tensor name.
    """

    nodes: tuple[Node, ...]
    types: dict[str, str]

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that produces each tensor, by tensor name."""
        return {tensor: node for node in self.nodes for tensor in node.outputs if tensor}

    @cached_property
    def _nodes_by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def find(self, name: str) -> Node | None:
        """Return the node with this name, or the node that produces the tensor with this name."""
        return self._nodes_by_name.get(name) or self.producers.get(name)

    def find_fused(self, last: Node) -> tuple[Node, ...]:
        """Return the chain of nodes from a convolution or matrix product to ``last``.

        Libraries fuse such a chain into one step with the name of the last node. If several chains lead to ``last``,
        the result is ``last`` alone.
        """
        chain = {last: None}  # from the last node backwards, each once
        node = last
        while not node.weighted:
            before = [self.producers[name] for name in node.inputs if name in self.producers]
            before = [each for each in before if each.weighted] or before
            if len(before) != 1 or before[0] in chain:
                return (last,)
            node = before[0]
            chain[node] = None
        return tuple(reversed(chain))

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor, by tensor name. Tensors that no node reads are left out."""
        consumers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for tensor in node.inputs:
                consumers.setdefault(tensor, []).append(node)
        return consumers

    @cached_property
    def weighted(self) -> dict[Node, str]:
        """The type of each convolution and matrix product, as far as the graph determines it.

        The type is that of the weights. It is ``int8`` or ``float8`` if weights and input are quantised, by Q/DQ nodes
        or by an integer operator.
        """
        types = ((node, self._arithmetic_of(node)) for node in self.nodes if node.weighted)
        return {node: kind for node, kind in types if kind}

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """The types of the convolutions and matrix products, sorted, for example ``("float32", "int8")``.

        If the graph determines none of them, these are the types of all its tensors.
        """
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
            return "float8" if self.types.get(weights.inputs[0]) == "float8" else "int8"
        return self.types.get(weights.inputs[1]) if len(weights.inputs) > 1 else None

    def _origin(self, tensor: str) -> tuple[Node | None, str]:
        """Return the node that computes the values of a tensor, or ``None``, and the name of the tensor there.

        Nodes that only move values, such as Reshape, are followed back to their inputs.
        """
        passed: dict[str, None] = {}
        while (known := self._origins.get(tensor)) is None:
            node = self.producers.get(tensor)
            if node is None or node.operator not in _MOVING or not node.inputs:
                known = node, tensor
                break
            passed[tensor] = None
            tensor = node.inputs[0]
            if tensor in passed:
                known = None, tensor  # a cycle, which no library runs
                break
        self._origins.update(dict.fromkeys(passed, known))
        return known

    @cached_property
    def _origins(self) -> dict[str, tuple[Node | None, str]]:
        """What ``_origin`` found so far for tensors that nodes moved: each is followed back once."""
        return {}


QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
"""The operators of quantisation."""

_MOVING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "MaxPool")


@contextmanager
def _reader(path: Path) -> Iterator[_ProtobufReader]:
    with files.open_regular(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield _ProtobufReader(data)
        except ArtifactError as error:
            raise ArtifactError(f"the ONNX file is broken: {error.what}", code=error.code, path=path) from error
        except ValueError as error:  # an empty file, or invalid text or numbers in it
            raise ArtifactError(f"the ONNX file is broken: {quote(error)}", code="onnx-broken", path=path) from error


def graph(path: Path) -> OnnxGraph:
    """Read the main graph of an ONNX file. Weights are skipped, so only the number of nodes and tensors costs time.

    Raises:
        ArtifactError: The file is truncated or invalid.
        ResourceError: The file cannot be read.
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
_METADATA = 14  # a field of ModelProto: a key and a value


def metadata(path: Path) -> dict[str, str]:
    """Read the metadata of an ONNX file. Its graph is skipped.

    Raises:
        ArtifactError: The file is truncated or invalid, or the metadata is larger than ``METADATA_LIMIT_BYTES``.
        ResourceError: The file cannot be read.
    """
    found: dict[str, str] = {}
    with _reader(path) as reader:
        for field, at, end in reader.messages(0, len(reader.data)):
            if field == _METADATA:
                if end - at > METADATA_LIMIT_BYTES:
                    raise ArtifactError(f"an entry of the metadata has {end - at:,} bytes", code="onnx-metadata-large")
                pair = {number: reader.data[start:stop] for number, start, stop in reader.messages(at, end)}
                found[pair.get(1, b"").decode()] = pair.get(2, b"").decode()
    return found


def read(path: Path) -> OnnxFile:
    """Read the versions and tensors of an ONNX file. Weights are skipped, so only the size of the graph costs time.

    Raises:
        ArtifactError: The file is truncated or not an ONNX file.
        ResourceError: The file cannot be read.
    """
    with _reader(path) as reader:
        reader.walk("model", 0, len(reader.data))
    if reader.ir_version == 0 and reader.opset == 0:
        raise ArtifactError(
            "the file is not an ONNX file: it has neither an IR version nor an opset",
            code="onnx-without-version",
            path=path,
        )
    return OnnxFile(reader.ir_version, reader.opset, tuple(sorted(reader.precisions)), tuple(reader.external))
