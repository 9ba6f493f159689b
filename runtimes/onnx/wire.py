"""A reader of the protocol-buffer wire format of ONNX files.

Source of the encoding: https://protobuf.dev/programming-guides/encoding. Source of the field numbers: ``onnx.proto``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from runtimes.errors import ArtifactError
from runtimes.frozen_dataclass import dataclass

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
"""The fields of each message that hold messages with tensors: message, field number, message in the field."""

_MAX_DEPTH = 32
"""The largest depth of nested messages."""

_LENGTHS = {1: 8, 2: 0, 5: 4}
"""The size of a value in bytes, by wire type. For wire type 2, the size precedes the value."""

SPAN = -1
"""The value of a field that holds bytes."""


_PRECISIONS = {
    1: "float32", 2: "uint8", 3: "int8", 10: "float16", 11: "float64", 16: "bfloat16", 17: "float8",
}  # fmt: skip
"""The data types of weights by ONNX's numbers. ``float8`` is E4M3. 64-bit integers are left out: they hold shapes and
axes."""


@dataclass(frozen=True)
class Node:
    """A node of a graph.

    Attributes:
        name: The name of the node, or of its first output if the node has no name.
        operator: The operator, for example ``Conv``.
        inputs: The names of the input tensors; an omitted optional input is empty.
        outputs: The names of the output tensors; an omitted optional output is empty.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def weighted(self) -> bool:
        """Whether the node is a convolution or a matrix product."""
        return is_weighted(self.operator)


def is_weighted(operator: str) -> bool:
    """Return whether an operator of ONNX or ONNX Runtime is a convolution or a matrix product."""
    return any(word in operator for word in ("Conv", "Gemm", "MatMul"))


class _ProtobufReader:
    """A reader of protocol buffers. ``at`` and ``end`` are positions of the bytes of a message in ``data``."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.ir_version = 0
        self.opset = 0
        self.precisions: set[str] = set()
        self.external: list[tuple[str, int]] = []
        self.entries: dict[str, str] = {}

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Read a variable-length number and return its value and the position after it."""
        value = shift = 0
        data = self.data
        while at < end and shift < 70:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise ArtifactError("a number is cut off", code="onnx-number-cut")

    def fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (field number, value, start, stop) of each field: the value of a varint, or ``SPAN`` for bytes.

        ``start`` and ``stop`` are the positions of the bytes. Numbers of fixed size are skipped. A caller must check
        the kind of a field: protocol buffers ignore a field whose wire type is not the declared one.
        """
        data, varint = self.data, self.varint
        while at < end:
            key = data[at]
            key, at = (key, at + 1) if key < 0x80 else varint(at, end)  # one byte, mostly, and a call costs more
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise ArtifactError(f"a field has the invalid number {number}", code="onnx-field-number")
            if wire == 0:
                value, at = varint(at, end)
                yield number, value, at, at
                continue
            if wire not in _LENGTHS:
                raise ArtifactError(f"a field has the unknown wire type {wire}", code="onnx-wire-type")
            length = _LENGTHS[wire]
            if wire == 2:
                length, at = varint(at, end)
            if at + length > end:
                raise ArtifactError("a field is cut off", code="onnx-field-cut")
            if wire == 2:
                yield number, SPAN, at, at + length
            at += length

    def walk(self, message: str, at: int, end: int, depth: int = 0) -> None:
        """Collect versions, types and external data from a message and the messages in it."""
        if depth > _MAX_DEPTH:
            raise ArtifactError(f"messages are nested more than {_MAX_DEPTH} deep", code="onnx-nested-too-deeply")
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
        """Yield (field number, start, stop) of the fields that hold bytes."""
        return ((number, start, stop) for number, value, start, stop in self.fields(at, end) if value == SPAN)

    def node(self, at: int, end: int) -> Node:
        """Read a node."""
        texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}  # inputs, outputs, name, operator
        for number, start, stop in self.messages(at, end):
            if number in texts:
                texts[number].append(self.data[start:stop].decode())
        inputs, outputs, names, operators = texts.values()
        name = next(filter(None, (*names[-1:], *outputs)), "")
        return Node(name, operators[-1] if operators else "", tuple(inputs), tuple(outputs))

    def tensor(self, at: int, end: int) -> tuple[str, str]:
        """Return the name and type of a tensor. The type is empty if it is not a type of weights."""
        name, kind = "", ""
        for number, value, start, stop in self.fields(at, end):
            if number == 2 and value != SPAN:
                kind = _PRECISIONS.get(value, "")
            elif number == 8 and value == SPAN:
                name = self.data[start:stop].decode()
        return name, kind

    def number(self, message: str, number: int, value: int) -> None:
        """Take the IR version or the type of a tensor from a number field."""
        if message == "model" and number == 1:
            self.ir_version = value
        elif message == "tensor" and number == 2 and value in _PRECISIONS:
            self.precisions.add(_PRECISIONS[value])

    def operator_set(self, start: int, stop: int) -> None:
        """Take the version of the default operator set."""
        domain, version = b"", 0
        for number, value, first, last in self.fields(start, stop):
            if number == 1 and value == SPAN:
                domain = self.data[first:last]
            elif number == 2 and value != SPAN:
                version = value
        if domain in (b"", b"ai.onnx"):
            self.opset = version

    def entry(self, start: int, stop: int) -> None:
        """Take an entry of a tensor's external data: location, offset or length."""
        texts = {
            number: self.data[first:last].decode()
            for number, value, first, last in self.fields(start, stop)
            if value == SPAN
        }
        key = texts.get(1, "")
        if key in self.entries:
            raise ArtifactError(f"the external data of a tensor has two entries {key!r}", code="onnx-entry-twice")
        self.entries[key] = texts.get(2, "")

    def external_tensor(self) -> None:
        """Take the location and the needed size of a tensor in another file."""
        offset, length = (int(self.entries.get(key, "0")) for key in ("offset", "length"))
        if offset < 0 or length < 0:
            raise ArtifactError(
                "the external data of a tensor has a negative offset or length", code="onnx-place-negative"
            )
        self.external.append((self.entries.get("location", ""), offset + length))
        self.entries = {}
