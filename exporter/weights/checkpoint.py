"""The tensors of a weights file, whatever its extension, without running anything that is in it.

Understood: ``.safetensors``, and what ``torch.save`` writes or wrote (a zip archive since PyTorch 1.6, a bare pickle
before). Each is checked by code of this package first, so that neither library meets a file that lies about itself.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from exporter.weights import pickle_scan, safetensors_header, torch_zip
from runtimes import files
from runtimes.artifacts.formats import kind_of
from runtimes.errors import ArtifactError, BackendUnavailableError, ResourceError, RexportError, UsageError, quote

if TYPE_CHECKING:
    from torch import Tensor

MAX_FILE_BYTES = 4 << 30
"""Four times resnet152 with its average and two optimizer moments."""

MIN_FILE_BYTES = 16
"""No format holds a tensor in less."""

MAX_TENSORS = safetensors_header.MAX_TENSORS
MAX_RANK = safetensors_header.MAX_RANK

CONTAINERS = ("state_dict", "model", "model_state", "model_state_dict", "ema")
"""Entries of a training checkpoint under which the weights are looked for, in this order."""

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number that every bare-pickle file of ``torch.save`` begins with."""

_LEGACY_PICKLES = 5
"""Magic number, protocol version, system facts, the structure, and the storages' names; then the numbers."""

_HEAD_BYTES = 512


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The file's named tensors, on the CPU, as they are stored; they may share memory with one another.

    Of a training checkpoint, the state dict under one of ``CONTAINERS``; the rest of it is ignored.

    Raises:
        ResourceError: missing, unreadable, not a regular file, or too large for this machine.
        UnsafeArtifactError: it holds more than tensors, which would have to be run.
        IntegrityError: a checksum in it does not match.
        ArtifactError: it is no weights file (the message says what it is), or truncated, damaged or swollen.
    """
    place = Path(path)
    try:
        with files.open_regular(place) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ResourceError(
                    f"{size:,} bytes; a weights file may have {MAX_FILE_BYTES:,}", code="weights-too-large", path=place
                )
            state = _choose_state(_content(file, size))
            _check_tensors(state, size)
            return state
    except RexportError as error:
        if error.path is None:
            raise type(error)(error.what, code=error.code, path=place, hint=error.hint) from error.__cause__
        raise
    except OSError as error:
        raise ResourceError.from_os(error, place, "read") from error
    except MemoryError as error:
        raise ResourceError("cannot read: not enough memory", code="weights-exceed-memory", path=place) from error


def _content(file: BinaryIO, size: int) -> object:
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if head.startswith(_ZIP):
        torch_zip.check(file)
        return _load(file)
    if head.startswith(_LEGACY):
        _check_legacy(file)
        return _load(file)
    if safetensors_header.recognise(head):
        return _load_safetensors(file.read())
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        pickle_scan.check(file)
        raise ArtifactError("a pickle that torch.save did not write", code="foreign-pickle", hint=pickle_scan.RESAVE)
    raise ArtifactError(
        f"not weights: {_stranger(head, size)}",
        code="weights-unrecognised",
        hint="a .safetensors or a torch.save file is needed",
    )


def _stranger(head: bytes, size: int) -> str:
    """What a file that holds no weights seems to be, for a message."""
    text = head.lstrip()[:64].lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "an HTML page"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if head.startswith(b"\x08") and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return "an ONNX model: weights are wanted that PyTorch can load"
    if head.startswith(_ZIP[:2]):
        return "a damaged or empty zip archive"
    if size and not any(head):
        return f"{size:,} bytes that begin with zeros"
    kind = kind_of(head)
    return f"truncated: {size} bytes" if 0 < size < MIN_FILE_BYTES and "begins with" in kind else kind


def _check_legacy(file: BinaryIO) -> None:
    start = io.BytesIO(file.read(torch_zip.MAX_PICKLE_BYTES))
    for _ in range(_LEGACY_PICKLES):
        pickle_scan.check(start)
    file.seek(0)


def _load(file: BinaryIO) -> object:
    """What ``torch.load`` makes of a file that was checked; never anything but containers, numbers and tensors."""
    import torch

    truthy = ("1", "y", "yes", "true")
    forced = [name for name in os.environ if name.startswith("TORCH_FORCE_") and os.environ[name].lower() in truthy]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except MemoryError:
        raise
    except Exception as error:  # the restricted unpickler raises whatever a wrong pickle makes Python raise
        if len(forced) > 1:
            raise UsageError(
                "contradictory TORCH_FORCE_ variables are set", code="torch-variables-contradict", hint="unset both"
            ) from error
        if "allocate memory" in str(error):
            raise ResourceError(
                "cannot read: not enough memory for what the file claims to hold", code="tensors-exceed-memory"
            ) from error
        raise ArtifactError(f"truncated or damaged: {_first_line(error)}", code="weights-damaged") from error


def _first_line(error: Exception) -> str:
    """The library's reason, unless it advises to load the file unsafely."""
    line = str(error).partition("\n")[0]
    return type(error).__name__ if not line or "weights_only" in line or "torch.load" in line else quote(line)


def _load_safetensors(content: bytes) -> object:
    safetensors_header.check(content)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise BackendUnavailableError(
            "reading it needs the safetensors library", code="safetensors-missing", hint="pip install 'rexport[export]'"
        ) from error
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"damaged: {quote(error)}", code="safetensors-damaged") from error


def _choose_state(content: object) -> dict[str, Tensor]:
    """The dict that holds the weights, every entry of it a plain tensor."""
    if not isinstance(content, Mapping):
        raise ArtifactError(
            f"holds a {type(content).__name__}, not a state dict", code="state-dict-missing", hint=pickle_scan.RESAVE
        )
    place, chosen = "", content
    for name in CONTAINERS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and any(_is_tensor(value) for value in inner.values()):
            place, chosen = f" under {name!r}", inner
            break
    if not any(_is_tensor(value) for value in chosen.values()):
        looked = ", ".join(CONTAINERS)
        raise ArtifactError(
            f"holds no tensors at its top level nor under {looked}", code="tensors-missing", hint=pickle_scan.RESAVE
        )
    if len(chosen) > MAX_TENSORS:
        raise ArtifactError(
            f"{len(chosen):,} entries{place}; a state dict has at most {MAX_TENSORS:,}", code="too-many-entries"
        )
    for name, value in chosen.items():
        if not isinstance(name, str) or not _is_tensor(value):
            raise ArtifactError(
                f"entry {quote(name)!r}{place} is a {type(value).__name__}, not a tensor",
                code="entry-not-tensor",
                hint=pickle_scan.RESAVE,
            )
    return {name: value.detach() for name, value in chosen.items()}


def _is_tensor(value: object) -> bool:
    import torch

    return type(value) in (torch.Tensor, torch.nn.Parameter)


def _check_tensors(state: Mapping[str, Tensor], file_bytes: int) -> None:
    """Refuses what would swell when copied: a stride of 0 makes any number of elements out of one."""
    import torch

    total = 0
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise ArtifactError(
                f"tensor {quote(name)!r} is sparse, quantized or empty of data; plain ones are read",
                code="tensor-not-plain",
            )
        if tensor.dim() > MAX_RANK:
            raise ArtifactError(
                f"tensor {quote(name)!r} has {tensor.dim()} dimensions; at most {MAX_RANK} are read",
                code="tensor-rank-excessive",
            )
        total += tensor.numel() * tensor.element_size()
    if total > torch_zip.MAX_EXPANSION * file_bytes:
        raise ArtifactError(
            f"its tensors would take {total:,} bytes, the file has {file_bytes:,}: they repeat the same numbers",
            code="tensors-overlap",
            hint=pickle_scan.RESAVE,
        )
