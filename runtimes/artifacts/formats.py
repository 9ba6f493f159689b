"""The formats of model files, one row for each. The first bytes of a file determine its format, never its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtimes.errors import ArtifactError
from runtimes.frozen_dataclass import dataclass
from runtimes.onnx import external_data


@dataclass(frozen=True)
class Format:
    """A format of model files.

    Attributes:
        name: The name of the format.
        runs_code: Whether opening a file can run code from the file. Such a file needs a manifest.
        recognise: Returns whether a file with these first bytes has this format.
        check: Raises an error for a file that must not reach a backend. ``None`` if no check is needed.
    """

    name: str
    runs_code: bool
    recognise: Callable[[bytes], bool]
    check: Callable[[Path], None] | None = None

    def __reduce__(self) -> tuple[Callable[[str], Format], tuple[str]]:
        """Pickle the format by its name, so that artifacts can be sent to other processes."""
        return _format_named, (self.name,)


def _format_named(name: str) -> Format:
    return FORMATS[name]


def _is_onnx(head: bytes) -> bool:
    # A ModelProto starts with field 1 (ir_version, a varint of one byte) or, with some writers, another early field.
    return (
        len(head) > 2 and head[0] in (0x08, 0x12, 0x1A, 0x22, 0x3A, 0x42) and not head.startswith(b"\x12\x00\x00\x00")
    )


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format("pt2", True, lambda head: head.startswith(b"PK\x03\x04")),
        Format("engine", True, lambda head: head.startswith((b"ftrt", b"vtrt"))),  # TensorRT and TensorRT-RTX
        Format("fake", False, lambda head: head.startswith(b'{"fake":')),
        Format("onnx", False, _is_onnx, external_data.check),
    )
}
"""The formats by name, in the order in which they are tried."""

_OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer (run git lfs pull to get the file itself)"),
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
    """Return a description, for a message, of a file with these first bytes."""
    if not head:
        return "empty"
    return _describe_other(head) or f"of an unknown kind that begins with {head[:8].hex(' ')}"


def _describe_other(head: bytes) -> str | None:
    """Return a description of a file of a known kind that is not a model file."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((words for start, words in _OTHER_FILES if head.startswith(start) or text.startswith(start)), None)


def recognise(path: Path, head: bytes) -> Format:
    """Return the format of a file that begins with ``head``. ``path`` is used only for the message.

    Raises:
        ArtifactError: The file has none of these formats. The message says what the file seems to be.
    """
    if _describe_other(head) is None:
        for format in FORMATS.values():
            if format.recognise(head):
                return format
    raise ArtifactError(
        f"not a model file of a known format: the file is {kind_of(head)}",
        code="file-not-model",
        path=path,
        hint="rexport onnx, rexport torch and rexport tensorrt write model files",
    )
