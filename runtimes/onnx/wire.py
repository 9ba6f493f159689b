"""Read the protobuf wire format of an ONNX file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

from runtimes.errors import ArtifactError

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
        raise ArtifactError("a number runs past its end", code="onnx-number-cut")

    def fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(field number, value, start, stop) each: the value of a varint, or ``SPAN`` and where the bytes are.

        Fixed-size numbers are stepped over. A field of another wire type than its declared one means nothing to
        protocol buffers, so who asks for a value or for bytes must not take the other.
        """
        while at < end:
            key, at = self.varint(at, end)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise ArtifactError(f"a field has the number {number}", code="onnx-field-number")
            if wire == 0:
                value, at = self.varint(at, end)
                yield number, value, at, at
                continue
            if wire not in _LENGTHS:
                raise ArtifactError(f"a field has the wire type {wire}", code="onnx-wire-type")
            length = _LENGTHS[wire]
            if wire == 2:
                length, at = self.varint(at, end)
            if at + length > end:
                raise ArtifactError("a field runs past its end", code="onnx-field-cut")
            if wire == 2:
                yield number, SPAN, at, at + length
            at += length

    def walk(self, message: str, at: int, end: int, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise ArtifactError("messages are nested too deeply", code="onnx-nested-too-deeply")
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
            raise ArtifactError(f"external data has two of {key!r}", code="onnx-entry-twice")
        self.entries[key] = texts.get(2, "")

    def external_tensor(self) -> None:
        offset, length = (int(self.entries.get(key, "0")) for key in ("offset", "length"))
        if offset < 0 or length < 0:
            raise ArtifactError("external data at a negative place", code="onnx-place-negative")
        self.external.append((self.entries.get("location", ""), offset + length))
        self.entries = {}
