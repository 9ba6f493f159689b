"""Checks of a zip checkpoint before PyTorch reads it.

PyTorch verifies no checksum, and unpacks as much as an entry claims to hold.
"""

from __future__ import annotations

import copy
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from exporter.weights import pickle_scan
from runtimes.errors import ArtifactError, IntegrityError, UnsafeArtifactError, quote

MAX_ENTRIES = 65_535
"""One a tensor. A training checkpoint of resnet1202 with its average and two optimizer moments has 22,000."""

MAX_DIRECTORY_BYTES = 16 << 20
"""Of the list of entries at a zip file's end: 256 bytes for each."""

MAX_PICKLE_BYTES = 16 << 20
"""Of the structure without the numbers; for the checkpoint named above it is 5 MB."""

MAX_EXPANSION = 4
"""Bytes in memory for a byte of the file. ``torch.save`` compresses nothing, and weights hardly compress."""

_CHUNK_BYTES = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_END_64_BYTES = 56
_LOCATOR_64_BYTES = 20


def check(file: BinaryIO) -> None:
    """Reads the archive once from start to end and leaves the file at its start.

    Raises:
        UnsafeArtifactError: a program (TorchScript, ``.pt2``) instead of weights, or a pickle that asks for more.
        IntegrityError: an entry's checksum does not match.
        ArtifactError: truncated, damaged, swollen, or not an archive of ``torch.save``.
    """
    try:
        _check_end(file)
        with zipfile.ZipFile(file) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            _check_sizes(entries, os.fstat(file.fileno()).st_size)
            structure = _structure(entries)
            _check_extents(file, entries, archive.start_dir)
            _check_checksums(archive, entries)
            pickle_scan.check(io.BytesIO(b"".join(_chunks(archive, structure))))
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, NotImplementedError, OverflowError) as error:
        raise ArtifactError(f"truncated or damaged: {quote(error)}", code="weights-damaged") from error
    file.seek(0)


def _check_end(file: BinaryIO) -> None:
    """Bounds the list of entries before it is read. PyTorch writes no comment: the end record is the last 22 bytes."""
    size = file.seek(0, os.SEEK_END)
    file.seek(-min(size, _END.size + _LOCATOR_64_BYTES + _END_64_BYTES), os.SEEK_END)
    tail = file.read()
    if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\x05\x06"):
        raise ArtifactError(
            f"truncated: {size:,} bytes of a zip archive whose list of entries is missing", code="zip-truncated"
        )
    directory_bytes = _END.unpack(tail[-_END.size :])[5]
    locator = tail[-_END.size - _LOCATOR_64_BYTES : -_END.size]
    if locator.startswith(b"PK\x06\x07") and len(tail) > _END.size + _LOCATOR_64_BYTES + _END_64_BYTES - 1:
        (directory_bytes,) = struct.unpack_from("<Q", tail, len(tail) - _END.size - _LOCATOR_64_BYTES - 16)
    if directory_bytes > MAX_DIRECTORY_BYTES:
        raise ArtifactError(
            f"its list of entries has {directory_bytes:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are read",
            code="zip-directory-large",
        )


def _check_sizes(entries: Sequence[zipfile.ZipInfo], file_bytes: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise ArtifactError(
            f"{len(entries):,} entries; a checkpoint has at most {MAX_ENTRIES:,}", code="zip-entries-excessive"
        )
    total = sum(entry.file_size for entry in entries)
    if total > MAX_EXPANSION * file_bytes:
        raise ArtifactError(
            f"a zip bomb: {file_bytes:,} bytes that claim to hold {total:,}; "
            f"at most {MAX_EXPANSION} times the file's size is read",
            code="zip-bomb",
        )
    for entry in entries:
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArtifactError(
                f"entry {quote(entry.filename)!r} is encrypted, or compressed in a way that zip files rarely are",
                code="zip-entry-unreadable",
            )


def _structure(entries: Sequence[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    """The entry that holds the pickle."""
    names = [entry.filename for entry in entries]
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise UnsafeArtifactError(
            "a TorchScript program, not weights: loading it could run code",
            code="torchscript-program",
            hint=pickle_scan.RESAVE,
        )
    if inner & {"archive_format", "serialized_exported_program.json", "models/model.json"}:
        raise UnsafeArtifactError(
            "a .pt2 program, not weights: loading it could run code", code="pt2-program", hint=pickle_scan.RESAVE
        )
    found = [entry for entry in entries if entry.filename.partition("/")[2] == "data.pkl"]
    if not found:
        raise ArtifactError(
            f"a zip archive that torch.save did not write; first in it is {quote(names[0] if names else '')!r}",
            code="foreign-zip",
            hint="unpack it and name the checkpoint that is in it",
        )
    if len({name.partition("/")[0] for name in names}) > 1 or len({name.lower() for name in names}) < len(names):
        raise ArtifactError(
            "damaged: two entries of the same name, or entries in several folders", code="zip-names-ambiguous"
        )
    if found[0].file_size > MAX_PICKLE_BYTES:
        raise ArtifactError(
            f"its pickle has {found[0].file_size:,} bytes; at most {MAX_PICKLE_BYTES:,} are read",
            code="zip-pickle-large",
        )
    return found[0]


def _check_extents(file: BinaryIO, entries: Sequence[zipfile.ZipInfo], directory_offset: int) -> None:
    """Refuses entries that share bytes, as the smallest bombs do, or whose two names differ."""
    ends = [entry.header_offset for entry in entries[1:]] + [directory_offset]
    if entries[0].header_offset != 0:
        raise ArtifactError("damaged: its first entry is not at the start", code="zip-start-wrong")
    for entry, end in zip(entries, ends, strict=True):
        file.seek(entry.header_offset)
        header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        name_bytes, extra_bytes = header[-2:]
        name = file.read(name_bytes)
        if header[0] != b"PK\x03\x04" or name != entry.orig_filename.encode(
            "utf-8" if entry.flag_bits & 0x800 else "cp437"
        ):
            raise ArtifactError(
                f"damaged: entry {quote(entry.filename)!r} is not where the list of entries says",
                code="zip-entry-misplaced",
            )
        if entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + entry.compress_size > end:
            raise ArtifactError(
                f"damaged: entry {quote(entry.filename)!r} overlaps with the next", code="zip-entries-overlap"
            )


def _check_checksums(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Compares every entry's CRC-32. ``set_crc32_options(False)`` makes PyTorch write 0 for all: then there is none."""
    if not any(entry.CRC for entry in entries):
        return
    for entry in entries:
        crc = 0
        for chunk in _chunks(archive, entry):
            crc = zlib.crc32(chunk, crc)
        if crc != entry.CRC:
            raise IntegrityError(
                f"entry {quote(entry.filename)!r} does not match its checksum: it was damaged after it was written",
                code="zip-checksum-mismatch",
                hint="copy or download it again",
            )


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The entry's content, never more than it claims. A claim that its data do not meet is damage."""
    unchecked = copy.copy(entry)
    del unchecked.CRC  # so that zipfile leaves the comparison to the caller: 0 may mean that none was recorded
    count = 0
    try:
        with archive.open(unchecked) as content:
            while chunk := content.read(_CHUNK_BYTES):
                count += len(chunk)
                yield chunk
    except (zlib.error, EOFError) as error:
        raise IntegrityError(
            f"entry {quote(entry.filename)!r} is damaged: {quote(error)}", code="zip-entry-damaged"
        ) from error
    if count != entry.file_size:
        raise ArtifactError(
            f"entry {quote(entry.filename)!r} has {count:,} bytes and claims {entry.file_size:,}", code="zip-entry-size"
        )
