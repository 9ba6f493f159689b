"""Reading of tensors from weights files without running code from them. The extension of a file does not matter.

Supported are ``.safetensors`` and both formats of ``torch.save``: a zip archive since PyTorch 1.6, a bare pickle
before. Code of this package checks each file first, so neither library receives a file whose structure is false.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from exporter.weights import entries, foreign_files, pickle_scan, safetensors_header, torch_zip
from exporter.weights.entries import StoredState
from runtimes import files
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    IntegrityError,
    ResourceError,
    RexportError,
    UsageError,
    quote,
)

if TYPE_CHECKING:
    from torch import Tensor

MAX_FILE_BYTES = 4 << 30
"""The largest size of a file: four times resnet152 with its average and two optimizer moments."""

SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".safetensors", ".bin", ".tar")
"""The usual suffixes of weights files. They count only for names and for missing files, never for the content."""

MAX_RANK = safetensors_header.MAX_RANK
"""The largest number of dimensions of a tensor."""

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number at the start of each bare-pickle file of ``torch.save``."""

_LEGACY_PICKLES = 5
"""The number of pickles before the numbers.

They are magic number, protocol version, system facts, structure, and names of storages.
"""

_HEAD_BYTES = 512

_DATA_PICKLE = b"/data.pkl"
"""The end of the first name in a zip archive of ``torch.save``."""


def is_weights_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a regular file begins like a weights file. A PyTorch program (``.pt2``) does not."""
    try:
        with files.open_regular(Path(path)) as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, RexportError):
        return False
    if head.startswith(_ZIP):
        name_bytes = int.from_bytes(head[26:28], "little")
        return head[30 : 30 + name_bytes].endswith(_DATA_PICKLE)
    return head.startswith(_LEGACY) or safetensors_header.recognise(head)


def stem(path: str | os.PathLike[str]) -> str:
    """Return the name of a weights file without its usual suffixes: ``best`` for ``runs/best.pth.tar``."""
    name = Path(path).name
    while Path(name).suffix.lower() in SUFFIXES:
        name = Path(name).stem
    return name


def read(path: str | os.PathLike[str], key: str | None = None, sha256: str | None = None) -> StoredState:
    """Read the named tensors of a file.

    In a training checkpoint, the entry of ``entries.CONTAINERS`` that holds tensors is read.

    Args:
        path: The file.
        key: The entry to read instead, with dots for entries inside others.
        sha256: The SHA-256 that the file must have. The tensors are read from the bytes that have this digest, so the
            file is in memory meanwhile. ``None`` for any.

    Raises:
        ResourceError: The file is missing, unreadable, not a regular file, or too large for this machine.
        UnsafeArtifactError: The file holds more than tensors, and loading it could run code.
        IntegrityError: A checksum does not match, or the SHA-256 is another one.
        ArtifactError: The file is not a weights file, or it is truncated, damaged or too large in memory.
        BackendUnavailableError: The safetensors library is needed but not installed.
        UsageError: The file has no entry ``key``, or the TORCH_FORCE_ environment variables contradict each other.
        ModelMismatchError: Several entries may be the weights, or only averaged weights are in the file.
    """
    file_path = Path(path)
    try:
        with files.open_regular(file_path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ResourceError(
                    f"the file has {size:,} bytes; a weights file may have at most {MAX_FILE_BYTES:,}",
                    code="weights-too-large",
                    path=file_path,
                )
            content = file if sha256 is None else io.BytesIO(_read_expected(file, sha256))
            stored = entries.choose(_content(content, file_path, size), key)
            _check_tensors(stored.tensors, size)
            return replace(stored, sha256=sha256)
    except RexportError as error:
        if error.path is None:
            raise type(error)(error.what, code=error.code, path=file_path, hint=error.hint) from error.__cause__
        raise
    except OSError as error:
        raise ResourceError.from_os(error, file_path, "read") from error
    except MemoryError as error:
        raise ResourceError(
            "cannot read: there is not enough memory", code="weights-exceed-memory", path=file_path
        ) from error


def _read_expected(file: BinaryIO, expected: str) -> bytes:
    """Return the content of a file, which has the expected SHA-256."""
    content = file.read(MAX_FILE_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise IntegrityError(
            f"the SHA-256 of the file is {digest}, and {expected} is expected",
            code="weights-digest-mismatch",
            hint="download the file again, or compare the digest with the one that its author publishes",
        )
    return content


def _content(file: BinaryIO, path: Path, size: int) -> object:
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if head.startswith(_ZIP):
        torch_zip.check(file, size)
        return _load(file)
    if head.startswith(_LEGACY):
        _check_legacy(file)
        content = _load(file)
        _check_end(file, size)
        return content
    if safetensors_header.recognise(head):
        return _load_safetensors(file.read())
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        with suppress(pickle_scan.ProtocolError):
            pickle_scan.check(file)
        raise ArtifactError(
            "the file is a pickle that torch.save did not write", code="foreign-pickle", hint=pickle_scan.RESAVE
        )
    kind, hint = foreign_files.describe(file, path, head, size)
    raise ArtifactError(f"not a weights file: the file is {kind}", code="weights-unrecognised", hint=hint)


def _check_legacy(file: BinaryIO) -> None:
    start = io.BytesIO(file.read(torch_zip.MAX_PICKLE_BYTES))
    for _ in range(_LEGACY_PICKLES):
        pickle_scan.check(start)
    file.seek(0)


def _check_end(file: BinaryIO, size: int) -> None:
    """Reject bytes after the last tensor. PyTorch ignores them, and another program may read them as a second file."""
    if (rest := size - file.tell()) > 0:
        raise ArtifactError(
            f"the file has {rest:,} bytes after its last tensor, which torch.save did not write",
            code="weights-trailing-bytes",
            hint=pickle_scan.RESAVE,
        )


def _load(file: BinaryIO) -> object:
    """Return the result of ``torch.load`` for a checked file: containers, numbers and tensors."""
    import torch

    truthy = ("1", "y", "yes", "true")
    forced = [name for name in os.environ if name.startswith("TORCH_FORCE_") and os.environ[name].lower() in truthy]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except MemoryError:
        raise
    except Exception as error:  # a wrong pickle can make the restricted unpickler raise any error
        if len(forced) > 1:
            raise UsageError(
                "the TORCH_FORCE_ environment variables contradict each other",
                code="torch-variables-contradict",
                hint=f"unset {' '.join(forced)}",
            ) from error
        if "allocate memory" in str(error):
            raise ResourceError(
                "cannot read: there is not enough memory for the size that the file claims",
                code="tensors-exceed-memory",
            ) from error
        raise ArtifactError(
            f"the file is truncated or damaged: {_first_line(error)}", code="weights-damaged"
        ) from error


def _first_line(error: Exception) -> str:
    """Return the first line of the library's message, unless it advises to load the file unsafely."""
    line = str(error).partition("\n")[0]
    advice = ("weights_only", "torch.load", "Weights only load failed")
    return type(error).__name__ if not line or any(words in line for words in advice) else quote(line)


def _load_safetensors(content: bytes) -> object:
    safetensors_header.check(content)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise BackendUnavailableError(
            "reading a .safetensors file needs the safetensors library",
            code="safetensors-missing",
            hint="pip install 'rexport[export]'",
        ) from error
    try:
        return dict(sorted(load(content).items()))  # the library's order differs from run to run
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"the file is damaged: {quote(error)}", code="safetensors-damaged") from error


def _check_tensors(state: Mapping[str, Tensor], file_bytes: int) -> None:
    """Reject tensors that would grow when copied: with a stride of 0, one number becomes any number of elements."""
    import torch

    total = 0
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise ArtifactError(
                f"tensor {quote(name)!r} is sparse, quantised or without data; only plain tensors are supported",
                code="tensor-not-plain",
            )
        if tensor.dim() > MAX_RANK:
            raise ArtifactError(
                f"tensor {quote(name)!r} has {tensor.dim()} dimensions; at most {MAX_RANK} are supported",
                code="tensor-rank-excessive",
            )
        total += tensor.numel() * tensor.element_size()
    if total > torch_zip.MAX_EXPANSION * file_bytes:
        raise ArtifactError(
            f"the tensors need {total:,} bytes, but the file has {file_bytes:,}: tensors share the same numbers",
            code="tensors-overlap",
            hint=pickle_scan.RESAVE,
        )
