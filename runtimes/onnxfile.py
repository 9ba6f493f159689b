"""What an ONNX file says of itself, read from its bytes without the onnx package and without its weights.

It serves two purposes: before a backend touches a file, to know that it is whole on the outside and that the weights it
keeps in other files lie in its own folder (``check``); and to know its nodes and their arithmetic, which libraries give
back under other names or not at all (``graph``). The format is protocol buffers' wire encoding (field number and wire
type, then a value) of ``onnx.proto``'s ModelProto.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from runtimes import files
from runtimes.errors import ArtifactError, UnsafeArtifactError, quote

# Field numbers of onnx.proto that hold messages in which tensors can lie: message -> field -> message.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
}
_MAX_DEPTH = 32
_LENGTHS = {1: 8, 2: 0, 5: 4}  # wire type -> bytes of its value; of 2 they are told before it
SPAN = -1

_PRECISIONS = {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 11: "float64", 16: "bfloat16"}
"""Of the tensors' data types, those that weights have; 64-bit integers are shapes and axes."""


@dataclass(frozen=True)
class OnnxFile:
    """``opset`` is that of the default operator set, 0 where the file names none. ``precisions`` are the types of the
    tensors that it holds, ``external`` (location, bytes needed) of the tensors that lie in other files."""

    ir_version: int
    opset: int
    precisions: tuple[str, ...]
    external: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Node:
    """One step of a graph. ``inputs`` and ``outputs`` are names of tensors; one that is left out is empty.

    A node without a name goes by its first output's.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def weighted(self) -> bool:
        """Whether it is a convolution or a matrix product."""
        return is_weighted(self.operator)


def is_weighted(operator: str) -> bool:
    """Whether an operator of ONNX, or one that ONNX Runtime fuses, is a convolution or a matrix product."""
    return any(word in operator for word in ("Conv", "Gemm", "MatMul"))


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


class _ProtobufReader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.ir_version = 0
        self.opset = 0
        self.precisions: set[str] = set()
        self.external: list[tuple[str, int]] = []
        self.entries: dict[str, str] = {}

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        data = self.data
        while at < end and shift < 70:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise ValueError("a number runs past its end")

    def fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(field number, value, start, stop) each: the value of a varint, or ``SPAN`` and where the bytes are.

        Fixed-size numbers are stepped over. A field of another wire type than its declared one means nothing to
        protocol buffers, so who asks for a value or for bytes must not take the other.
        """
        while at < end:
            key, at = self.varint(at, end)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise ValueError(f"a field has the number {number}")
            if wire == 0:
                value, at = self.varint(at, end)
                yield number, value, at, at
                continue
            if wire not in _LENGTHS:
                raise ValueError(f"a field has the wire type {wire}")
            length = _LENGTHS[wire]
            if wire == 2:
                length, at = self.varint(at, end)
            if at + length > end:
                raise ValueError("a field runs past its end")
            if wire == 2:
                yield number, SPAN, at, at + length
            at += length

    def walk(self, message: str, at: int, end: int, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("messages are nested too deeply")
        children = _CHILDREN[message]
        if message == "tensor":
            self.entries = {}
        for number, value, start, stop in self.fields(at, end):
            child = children.get(number)
            if value != SPAN:
                self.number(message, number, value)
            elif child == "opset":
                self.operator_set(start, stop)
            elif child == "entry":
                self.entry(start, stop)
            elif child is not None:
                self.walk(child, start, stop, depth + 1)
        if message == "tensor" and self.entries:
            self.external_tensor()

    def messages(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(field number, start, stop) of the fields that are bytes."""
        return ((number, start, stop) for number, value, start, stop in self.fields(at, end) if value == SPAN)

    def node(self, at: int, end: int) -> Node:
        texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}  # inputs, outputs, name, operator
        for number, start, stop in self.messages(at, end):
            if number in texts:
                texts[number].append(self.data[start:stop].decode())
        inputs, outputs, names, operators = texts.values()
        name = next(filter(None, (*names[-1:], *outputs)), "")
        return Node(name, operators[-1] if operators else "", tuple(inputs), tuple(outputs))

    def tensor(self, at: int, end: int) -> tuple[str, str]:
        """Name and type; the type is empty where weights have no such."""
        name, kind = "", ""
        for number, value, start, stop in self.fields(at, end):
            if number == 2 and value != SPAN:
                kind = _PRECISIONS.get(value, "")
            elif number == 8 and value == SPAN:
                name = self.data[start:stop].decode()
        return name, kind

    def number(self, message: str, number: int, value: int) -> None:
        if message == "model" and number == 1:
            self.ir_version = value
        elif message == "tensor" and number == 2 and value in _PRECISIONS:
            self.precisions.add(_PRECISIONS[value])

    def operator_set(self, start: int, stop: int) -> None:
        domain, version = b"", 0
        for number, value, first, last in self.fields(start, stop):
            if number == 1 and value == SPAN:
                domain = self.data[first:last]
            elif number == 2 and value != SPAN:
                version = value
        if domain in (b"", b"ai.onnx"):
            self.opset = version

    def entry(self, start: int, stop: int) -> None:
        texts = {
            number: self.data[first:last].decode()
            for number, value, first, last in self.fields(start, stop)
            if value == SPAN
        }
        key = texts.get(1, "")
        if key in self.entries:
            raise ValueError(f"external data has two of {key!r}")
        self.entries[key] = texts.get(2, "")

    def external_tensor(self) -> None:
        offset, length = (int(self.entries.get(key, "0")) for key in ("offset", "length"))
        if offset < 0 or length < 0:
            raise ValueError("external data at a negative place")
        self.external.append((self.entries.get("location", ""), offset + length))
        self.entries = {}


@contextmanager
def _reader(path: Path) -> Iterator[_ProtobufReader]:
    with files.open_regular(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield _ProtobufReader(data)
        except (ValueError, UnicodeDecodeError) as error:
            raise ArtifactError(f"not a whole ONNX file: {quote(error)}", path=path) from error


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
        raise ArtifactError("not an ONNX file: it names neither an IR version nor an opset", path=path)
    return OnnxFile(reader.ir_version, reader.opset, tuple(sorted(reader.precisions)), tuple(reader.external))


def check(path: Path) -> None:
    """Refuses what must not reach a backend.

    Raises:
        ArtifactError: as ``read``; or external data that is missing or too short.
        UnsafeArtifactError: external data outside the file's folder, behind a link, or not in a regular file.
    """
    needs: dict[str, int] = {}
    for location, size in read(path).external:
        needs[location] = max(size, needs.get(location, 0))
    for location, size in needs.items():
        _check_external(path, location, size)


def _check_external(path: Path, location: str, size: int) -> None:
    shown = quote(location)
    if not location or "\\" in location or "\0" in location or Path(location).is_absolute():
        raise UnsafeArtifactError(f"its external data {shown!r} is not a relative path", path=path)
    if ".." in Path(location).parts:
        raise UnsafeArtifactError(f"its external data {shown!r} leaves the folder of the model", path=path)
    place = path.parent
    status = place.lstat()
    for part in Path(location).parts:
        place = place / part
        try:
            status = place.lstat()
        except OSError as error:
            raise ArtifactError(f"its external data {shown!r} is missing: {error.strerror}", path=path) from error
        if stat.S_ISLNK(status.st_mode):
            raise UnsafeArtifactError(
                f"its external data {shown!r} lies behind a symbolic link", path=path, hint="copy the file itself there"
            )
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise UnsafeArtifactError(f"its external data {shown!r} is not a plain file of its own", path=path)
    if status.st_size < size:
        raise ArtifactError(f"its external data {shown!r} has {status.st_size:,} bytes, {size:,} are needed", path=path)
