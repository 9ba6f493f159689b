"""What an ONNX file says of itself, read from its bytes without the onnx package and without its weights.

It serves one purpose: before a backend touches a file, to know that it is whole on the outside and that the weights it
keeps in other files lie in its own folder. The format is protocol buffers' wire encoding (field number and wire type,
then a value) of ``onnx.proto``'s ModelProto.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtimes import files
from runtimes.errors import ArtifactError, UnsafeArtifactError, quoted

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


class _Reader:
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


def read(path: Path) -> OnnxFile:
    """The file's own statements. Its weights are not read: time and memory depend on the graph alone.

    Raises:
        ArtifactError: truncated, or not an ONNX file at all.
        ResourceError: unreadable.
    """
    with files.open_regular(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                reader = _Reader(data)
                reader.walk("model", 0, len(data))
        except (ValueError, UnicodeDecodeError) as error:
            raise ArtifactError(f"not a whole ONNX file: {quoted(error)}", path=path) from error
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
    shown = quoted(location)
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
