"""Checks of a zip checkpoint before PyTorch reads it.

PyTorch verifies no checksums, and unpacks as much as an entry claims to hold.
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

from exporter.weights import foreign_files, pickle_scan
from runtimes.errors import ArtifactError, IntegrityError, UnsafeArtifactError, quote

MAX_ENTRIES = 65_535
"""The largest number of entries, one for each tensor.

A training checkpoint of resnet1202 with its average and two optimizer moments has 22,000.
"""

MAX_DIRECTORY_BYTES = 16 << 20
"""The largest list of entries at the end of a zip file: 256 bytes for each entry."""

MAX_PICKLE_BYTES = 16 << 20
"""The largest pickle, which holds the structure without the numbers. It has 5 MB for the checkpoint named above."""

MAX_EXPANSION = 4
"""The largest ratio of bytes in memory to bytes of the file.

``torch.save`` does not compress, and weights hardly compress.
"""

_CHUNK_BYTES = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_END_64_BYTES = 56
_LOCATOR_64_BYTES = 20
_HAS_DESCRIPTOR = 8
_DESCRIPTOR_BYTES = 24


def check(file: BinaryIO, size: int) -> None:
    """Check a zip archive of ``torch.save``, and leave the file at its start.

    Args:
        file: The archive.
        size: Its size in bytes.

    Raises:
        UnsafeArtifactError: The file is a program (TorchScript or ``.pt2``), or its pickle could run code.
        IntegrityError: The checksum of an entry does not match.
        ArtifactError: The archive is truncated, damaged or too large when unpacked, or not written by ``torch.save``.
    """
    try:
        _check_end(file)
        with zipfile.ZipFile(file) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            _check_sizes(entries, size)
            pickle_entry = _find_pickle(entries)
            _check_extents(file, entries, archive.start_dir)
            _check_pickle_size(archive, pickle_entry)
            _check_checksums(archive, entries)
            pickle_scan.check(io.BytesIO(b"".join(_chunks(archive, pickle_entry))))
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, NotImplementedError, OverflowError) as error:
        raise ArtifactError(f"the file is truncated or damaged: {quote(error)}", code="weights-damaged") from error
    file.seek(0)


def _check_end(file: BinaryIO) -> None:
    """Check the size of the list of entries before it is read.

    PyTorch writes no comment, so the end record is the last 22 bytes.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(-min(size, _END.size + _LOCATOR_64_BYTES + _END_64_BYTES), os.SEEK_END)
    tail = file.read()
    if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\x05\x06"):
        raise ArtifactError(
            f"the file is truncated: {size:,} bytes of a zip archive without its list of entries", code="zip-truncated"
        )
    directory_bytes = _END.unpack(tail[-_END.size :])[5]
    locator = tail[-_END.size - _LOCATOR_64_BYTES : -_END.size]
    if locator.startswith(b"PK\x06\x07") and len(tail) > _END.size + _LOCATOR_64_BYTES + _END_64_BYTES - 1:
        (directory_bytes,) = struct.unpack_from("<Q", tail, len(tail) - _END.size - _LOCATOR_64_BYTES - 16)
    if directory_bytes > MAX_DIRECTORY_BYTES:
        raise ArtifactError(
            f"the list of entries has {directory_bytes:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are allowed",
            code="zip-directory-large",
        )


def _check_sizes(entries: Sequence[zipfile.ZipInfo], file_bytes: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise ArtifactError(
            f"the archive has {len(entries):,} entries; at most {MAX_ENTRIES:,} are allowed",
            code="zip-entries-excessive",
        )
    total = sum(entry.file_size for entry in entries)
    if total > MAX_EXPANSION * file_bytes:
        raise ArtifactError(
            f"the archive is a decompression bomb: it has {file_bytes:,} bytes and claims to hold {total:,}; "
            f"at most {MAX_EXPANSION} times its size is allowed",
            code="zip-bomb",
        )
    for entry in entries:
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArtifactError(
                f"entry {quote(entry.filename)!r} is encrypted or has a rare compression method",
                code="zip-entry-unreadable",
            )


def _find_pickle(entries: Sequence[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    """Return the entry that holds the pickle."""
    names = [entry.filename for entry in entries]
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise UnsafeArtifactError(
            "the file is a TorchScript program, not weights: loading it could run code",
            code="torchscript-program",
            hint=pickle_scan.RESAVE,
        )
    if inner & {"archive_format", "serialized_exported_program.json", "models/model.json"}:
        raise UnsafeArtifactError(
            "the file is a .pt2 program, not weights: loading it could run code",
            code="pt2-program",
            hint=pickle_scan.RESAVE,
        )
    pickles = [entry for entry in entries if entry.filename.partition("/")[2] == "data.pkl"]
    if not pickles:
        kind, hint = foreign_files.describe_zip(names)
        raise ArtifactError(f"not a weights file: the file is {kind}", code="weights-unrecognised", hint=hint)
    if len({name.partition("/")[0] for name in names}) > 1 or len({name.lower() for name in names}) < len(names):
        raise ArtifactError(
            "the archive is damaged: two entries have the same name, or entries lie in several folders",
            code="zip-names-ambiguous",
        )
    return pickles[0]


def _check_pickle_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Reject a large pickle. NumPy arrays lie in the pickle itself, so their beginning shows why it is large."""
    if entry.file_size <= MAX_PICKLE_BYTES:
        return
    beginning = bytearray()
    for chunk in _chunks(archive, entry):
        beginning += chunk
        if len(beginning) >= MAX_PICKLE_BYTES:
            break
    pickle_scan.explain(io.BytesIO(beginning))
    raise ArtifactError(
        f"the pickle has {entry.file_size:,} bytes; at most {MAX_PICKLE_BYTES:,} are allowed",
        code="zip-pickle-large",
    )


def _check_extents(file: BinaryIO, entries: Sequence[zipfile.ZipInfo], directory_offset: int) -> None:
    """Reject entries that share bytes, as the smallest bombs do, and entries with two different names."""
    ends = [entry.header_offset for entry in entries[1:]] + [directory_offset]
    if entries[0].header_offset != 0:
        raise ArtifactError("the archive is damaged: its first entry is not at the start", code="zip-start-wrong")
    for entry, end in zip(entries, ends, strict=True):
        file.seek(entry.header_offset)
        header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        name_bytes, extra_bytes = header[-2:]
        name = file.read(name_bytes)
        if header[0] != b"PK\x03\x04" or name != entry.orig_filename.encode(
            "utf-8" if entry.flag_bits & 0x800 else "cp437"
        ):
            raise ArtifactError(
                f"the archive is damaged: entry {quote(entry.filename)!r} is not at the position in the list of "
                "entries",
                code="zip-entry-misplaced",
            )
        gap = end - (entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + entry.compress_size)
        if gap < 0:
            raise ArtifactError(
                f"the archive is damaged: entry {quote(entry.filename)!r} overlaps with the next",
                code="zip-entries-overlap",
            )
        if gap > (_DESCRIPTOR_BYTES if entry.flag_bits & _HAS_DESCRIPTOR else 0):
            raise ArtifactError(
                f"the archive hides {gap:,} bytes after entry {quote(entry.filename)!r}, which no entry holds",
                code="zip-hidden-bytes",
                hint=pickle_scan.RESAVE,
            )


def _check_checksums(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Compare the CRC-32 of each entry.

    With ``set_crc32_options(False)`` PyTorch writes 0 for all, which means no checksum.
    """
    if not any(entry.CRC for entry in entries):
        return
    for entry in entries:
        crc = 0
        for chunk in _chunks(archive, entry):
            crc = zlib.crc32(chunk, crc)
        if crc != entry.CRC:
            raise IntegrityError(
                f"entry {quote(entry.filename)!r} does not match its checksum: the file was damaged after it was "
                "written",
                code="zip-checksum-mismatch",
                hint="copy or download the file again",
            )


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of an entry, and raise an error unless it has exactly the size that the entry claims."""
    unchecked = copy.copy(entry)
    # Without the value, zipfile leaves the comparison to the caller. 0 may mean that there is no checksum.
    del unchecked.CRC
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
            f"entry {quote(entry.filename)!r} has {count:,} bytes, but claims {entry.file_size:,}",
            code="zip-entry-size",
        )
