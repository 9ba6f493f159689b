"""Descriptions of files that are named as weights and are none: what a file is, and the command that helps."""

from __future__ import annotations

import json
import pickletools
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runtimes.artifacts.formats import kind_of
from runtimes.errors import quote
from runtimes.escaping import shell_word
from runtimes.tar_errors import TAR_ERRORS

MIN_FILE_BYTES = 16
"""A file with fewer bytes cannot hold a tensor in any format."""

USE = "use a .safetensors file or a file of torch.save"
"""The hint for a file of an unknown kind."""

LOAD_AGAIN = "download the file again: the server sent a message in its place"
"""The hint for a page or a message of a server."""

FROM_NUMPY = "save tensors: torch.save({name: torch.from_numpy(array) for name, array in state.items()}, 'weights.pth')"
"""The hint for NumPy arrays."""

OTHER_FRAMEWORK = (
    "convert the weights to PyTorch first, for example by timm or transformers, or get them as .safetensors"
)
"""The hint for weights of another framework."""

MAX_MEMBERS = 64
"""The number of members of a tar archive that are listed."""

MAX_INDEX_BYTES = 1 << 20
"""The largest size of a JSON file that is read for its kind."""

WEIGHTS_NAME = re.compile(r".+\.(pt|pth|th|ckpt|safetensors|bin|pth\.tar)", re.IGNORECASE)
"""The names of weights files in archives."""

_ENGINE = "a TensorRT engine, which holds weights only as machine code"
_TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_TABLE_NAME = re.compile(r".+\.(index|meta|data-\d+-of-\d+)")
_TEXT_PICKLE = (b"(", b"c", b"}", b"]")
_LEAST_OPCODES = 3


@dataclass(frozen=True)
class ForeignKind:
    """A kind of file that is no weights file.

    Attributes:
        start: The first bytes of the file.
        what: The kind, which completes "the file is".
        hint: The command or change that helps; ``{path}`` stands for the file, and ``{unpacked}`` for a new
            one in the same folder.
        offset: The position of ``start``.
    """

    start: bytes
    what: str
    hint: str
    offset: int = 0


_UNPACK = "{} < {{path}} > {{unpacked}}"

KINDS: tuple[ForeignKind, ...] = (
    ForeignKind(b"\x1f\x8b", "compressed with gzip", _UNPACK.format("gunzip")),
    ForeignKind(b"\xfd7zXZ\0", "compressed with xz", _UNPACK.format("unxz")),
    ForeignKind(b"BZh", "compressed with bzip2", _UNPACK.format("bunzip2")),
    ForeignKind(b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK.format("unzstd")),
    ForeignKind(b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first: 7z x {path}"),
    ForeignKind(b"Rar!\x1a\x07", "a RAR archive", "unpack it first: unrar x {path}"),
    ForeignKind(b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it", OTHER_FRAMEWORK),
    ForeignKind(b"TFL3", "a TensorFlow Lite model", OTHER_FRAMEWORK, 4),
    ForeignKind(b"GGUF", "a GGUF file of llama.cpp", "rexport exports residual networks: rexport list"),
    ForeignKind(b"\x93NUMPY", "a NumPy array (.npy), without the names of tensors", FROM_NUMPY),
    ForeignKind(b"ftrt", _ENGINE, "use the checkpoint that it was made from; rexport inspect {path} names it"),
    ForeignKind(b"vtrt", _ENGINE, "use the checkpoint that it was made from; rexport inspect {path} names it"),
    ForeignKind(b"version https://git-lfs", "a Git LFS pointer, not the file itself", "git lfs pull"),
)
"""The kinds that the first bytes show."""


def describe(file: BinaryIO, path: Path, head: bytes, size: int) -> tuple[str, str]:
    """Return what a file is, which completes "the file is", and a hint.

    Args:
        file: The file, whose position changes.
        path: The path of the file.
        head: The first 512 bytes of the file.
        size: The size of the file.
    """
    shown = shell_word(path)
    unpacked = path.with_name(f"unpacked-{path.name.partition('.')[0]}.pth")  # never the file itself
    words = {"path": shown, "unpacked": shell_word(unpacked)}
    for kind in KINDS:
        if head.startswith(kind.start, kind.offset):
            return kind.what, re.sub(r"\{(path|unpacked)\}", lambda match: words[match[1]], kind.hint)
    if head[257:262] == b"ustar":
        return _describe_tar(file, shown)
    if head.startswith(b"\x08") and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return "an ONNX model", f"rexport inspect {shown} shows it; weights come from the checkpoint it was made from"
    if _is_text_pickle(head):
        return "a pickle of protocol 0 or 1, which torch.save did not write", FROM_NUMPY
    if head.startswith(b"PK"):
        return "a damaged or empty zip archive", "copy or download the file again"
    if path.suffix == ".py":
        return "Python code", f"name what builds the network in it: {_module_of(path)}:FACTORY"
    if size >= MIN_FILE_BYTES and (text := _describe_text(file, head, size)) is not None:
        return text
    if _is_tensorflow(file, path, size):
        return "a part of a TensorFlow checkpoint", OTHER_FRAMEWORK
    if size and not any(head):
        return f"a file of {size:,} bytes that begins with zeros", "copy or download the file again"
    other = kind_of(head)
    return (f"truncated to {size} bytes" if 0 < size < MIN_FILE_BYTES and "begins with" in other else other), USE


def _module_of(path: Path) -> str:
    """Return the name by which Python imports a file from the current folder, or from that of the file."""
    parts = path.with_suffix("").parts
    return shell_word(".".join(parts) if all(part.isidentifier() for part in parts) else path.stem)


def describe_zip(names: Iterable[str]) -> tuple[str, str]:
    """Return what a zip archive is that torch.save did not write, and a hint.

    Args:
        names: The names of its entries.
    """
    listed = list(names)
    if listed and all(name.endswith(".npy") for name in listed):
        return f"NumPy arrays (.npz), the first {quote(listed[0])!r}", FROM_NUMPY
    if {"config.json", "metadata.json"} <= set(listed):
        return "a model of Keras", OTHER_FRAMEWORK
    inside = next((name for name in listed if WEIGHTS_NAME.fullmatch(name)), None)
    if inside is not None:
        return f"a zip archive that holds {quote(inside)!r}", "unzip it, and use that file"
    first = quote(listed[0] if listed else "")
    return f"a zip archive that torch.save did not write; its first entry is {first!r}", USE


def _describe_tar(file: BinaryIO, shown: str) -> tuple[str, str]:
    names: list[str] = []
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while len(names) < MAX_MEMBERS and (member := archive.next()) is not None:
                names.append(member.name)
    except (*TAR_ERRORS, OSError):
        pass  # the names before the damage count
    if {"sys_info", "pickle", "storages", "tensors"} & set(names):
        return (
            "a tar archive of PyTorch 0.1, which can run code when it is loaded",
            "save it again with a newer PyTorch",
        )
    inside = next((name for name in names if WEIGHTS_NAME.fullmatch(name)), None)
    if inside is not None:
        return f"a tar archive that holds {quote(inside)!r}", f"tar -xf {shown}, and use that file"
    return "a tar archive", f"tar -xf {shown} unpacks it"


def _describe_text(file: BinaryIO, head: bytes, size: int) -> tuple[str, str] | None:
    """Return the description of a text file, or ``None`` for another file."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page", LOAD_AGAIN
    if text.startswith((b"<?xml", b"<error")):
        return "an XML document", LOAD_AGAIN
    try:
        words = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # otherwise the end of the head cuts a character
            return None
        words = head[: error.start].decode()
    if not words.strip() or any(not (sign.isprintable() or sign in "\r\n\t") for sign in words):
        return None
    if text.startswith(b"{"):
        return _describe_json(file, size)
    return f"a text file that begins with {quote(words.strip().splitlines()[0][:60])!r}", LOAD_AGAIN


def _describe_json(file: BinaryIO, size: int) -> tuple[str, str]:
    file.seek(0)
    try:
        data = json.loads(file.read(MAX_INDEX_BYTES)) if size <= MAX_INDEX_BYTES else None
    except (ValueError, RecursionError):
        data = None
    parts = data.get("weight_map") if isinstance(data, dict) else None
    if isinstance(parts, dict) and parts:
        shards = sorted({str(name) for name in parts.values()})
        return (
            f"the index of a checkpoint in {len(shards)} files, the first {quote(shards[0])!r}",
            "join them in one file: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
        )
    return "a JSON file", USE


def _is_text_pickle(head: bytes) -> bool:
    """Return whether a file begins like a pickle without a protocol number."""
    if not head.startswith(_TEXT_PICKLE):
        return False
    count = 0
    try:
        for _ in pickletools.genops(head):
            count += 1
    except ValueError:
        pass  # the head ends within the pickle, or this is another file
    return count >= _LEAST_OPCODES


def _is_tensorflow(file: BinaryIO, path: Path, size: int) -> bool:
    file.seek(max(0, size - len(_TABLE_END)))
    return file.read() == _TABLE_END or _TABLE_NAME.fullmatch(path.name) is not None
