"""The kinds of model file, one row each, told apart by their first bytes and never by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import ArtifactError
from runtimes.onnx import external_data


@dataclass(frozen=True)
class Format:
    """A kind of model file.

    ``runs_code``: opening one can execute what its author put in, so origin matters. ``check`` refuses a file that
    must not reach a backend.
    """

    name: str
    runs_code: bool
    recognise: Callable[[bytes], bool]
    check: Callable[[Path], None] | None = None


def _is_onnx(head: bytes) -> bool:
    # A ModelProto opens with field 1 (ir_version, a varint of one byte) or, in some writers, with another early field.
    return (
        len(head) > 2 and head[0] in (0x08, 0x12, 0x1A, 0x22, 0x3A, 0x42) and not head.startswith(b"\x12\x00\x00\x00")
    )


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format("pt2", True, lambda head: head.startswith(b"PK\x03\x04")),
        Format("engine", True, lambda head: head.startswith((b"ftrt", b"vtrt"))),  # TensorRT's and TensorRT-RTX's
        Format("fake", False, lambda head: head.startswith(b'{"fake":')),
        Format("onnx", False, _is_onnx, external_data.check),
    )
}

_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git-LFS pointer, not the file itself: run git lfs pull"),
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document"),
    *((bytes((0x80, protocol)), "a pickle") for protocol in range(2, 6)),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)


def kind_of(head: bytes) -> str:
    """In words for a message, what a file with these first bytes seems to be."""
    if not head:
        return "empty"
    return _stranger(head) or f"a file that begins with {head[:8].hex(' ')}"


def _stranger(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((words for start, words in _STRANGERS if head.startswith(start) or text.startswith(start)), None)


def recognise(path: Path, head: bytes) -> Format:
    """The format of a file that begins with ``head``; ``path`` is for the message.

    Raises:
        ArtifactError: none of these; the message says what it seems to be.
    """
    if _stranger(head) is None:
        for format in FORMATS.values():
            if format.recognise(head):
                return format
    raise ArtifactError(
        f"not a model file that rexport knows: it is {kind_of(head)}",
        code="file-not-model",
        path=path,
        hint="rexport onnx, torch and tensorrt make such files",
    )
