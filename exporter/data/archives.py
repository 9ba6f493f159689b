"""The files of a folder or of a tar archive, by their names in it.

An archive is never unpacked to the disk: what it holds stays in memory, within a limit that also stops bombs.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, Protocol

from runtimes import files
from runtimes.artifacts.formats import kind_of
from runtimes.errors import ArtifactError, ResourceError, UnsafeArtifactError, quote

MAX_DEPTH = 4
"""Folders within folders that are looked into; deeper ones hold no data set's images. Ends loops of links too."""

MAX_UNPACKED_BYTES = 1 << 30
"""Of a tar archive."""

_BLOCK_BYTES = 512


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def __enter__(self) -> _Stream: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...


_OPENERS: tuple[tuple[bytes, Callable[[BinaryIO], _Stream]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
    (b"BZh", bz2.BZ2File),
)
"""Compressions by the first bytes of their files."""


@dataclass(frozen=True)
class Members:
    """Regular files under ``place``, sorted by name ("test/cat/1.jpg"): paths in a folder, contents in an archive.

    Names that begin with a dot are left out.
    """

    place: Path
    files: dict[str, Path | bytes]

    def read(self, name: str, limit_bytes: int) -> bytes:
        """A file's content.

        Raises:
            ResourceError: missing, unreadable, or larger than the limit.
        """
        content = self.files[name]
        if isinstance(content, Path):
            return files.read_bounded(content, limit_bytes)
        if len(content) > limit_bytes:
            raise ResourceError(
                f"cannot read: the file has {len(content):,} bytes; at most {limit_bytes:,} are allowed",
                code="file-too-large",
                path=self.place / name,
            )
        return content


def read(place: Path) -> Members:
    """What the folder or archive holds; told apart by what they are, not by their names.

    Raises:
        ResourceError: missing, unreadable, neither folder nor regular file, or an archive too large for memory.
        ArtifactError: a file that is no tar archive, or a damaged one.
        UnsafeArtifactError: an archive with a link, a device, or a name that leads outside.
    """
    found = _in_folder(place) if place.is_dir() else _in_archive(place)
    return Members(place, dict(sorted(found.items())))


def _in_folder(place: Path) -> dict[str, Path | bytes]:
    found: dict[str, Path | bytes] = {}
    for folder, folders, names in os.walk(place, onerror=_refuse, followlinks=True):
        parts = Path(folder).relative_to(place).parts
        folders[:] = [name for name in folders if not name.startswith(".") and len(parts) + 1 < MAX_DEPTH]
        for name in names:
            if not name.startswith("."):
                found["/".join((*parts, name))] = Path(folder, name)
    return found


def _refuse(error: OSError) -> None:
    raise ResourceError.from_os(error, error.filename, "read") from error


class _Bounded:
    """A stream that ends in an error beyond the limit, and remembers the last block that it gave."""

    def __init__(self, file: _Stream, limit_bytes: int) -> None:
        self._file = file
        self._left = limit_bytes
        self.last = b""

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise ResourceError(
                f"more than {MAX_UNPACKED_BYTES:,} bytes when unpacked",
                code="archive-too-large",
                hint="unpack it and name the folder",
            )
        self.last = (self.last + chunk)[-_BLOCK_BYTES:]
        return chunk


def _in_archive(place: Path) -> dict[str, Path | bytes]:
    with files.open_regular(place) as file:
        head = file.read(_BLOCK_BYTES)
        file.seek(0)
        opener = next((opener for start, opener in _OPENERS if head.startswith(start)), None)
        if opener is None and head[257:262] != b"ustar":
            raise ArtifactError(
                f"no folder and no tar archive: it is {kind_of(head)}", code="archive-expected", path=place
            )
        try:
            with opener(file) if opener else file as stream:
                return _unpack(_Bounded(stream, MAX_UNPACKED_BYTES), place)
        except ResourceError as error:
            raise ResourceError(error.what, code=error.code, path=place, hint=error.hint) from error
        except OSError as error:
            if error.errno:
                raise ResourceError.from_os(error, place, "read") from error
            raise _damage_error(place, error) from error
        except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
            raise _damage_error(place, error) from error


def _damage_error(place: Path, error: object) -> ArtifactError:
    return ArtifactError(f"a truncated or damaged tar archive: {quote(error)}", code="archive-damaged", path=place)


def _unpack(stream: _Bounded, place: Path) -> dict[str, Path | bytes]:
    found: dict[str, Path | bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            name = _check_name(member, place)
            if member.isdir() or any(part.startswith(".") for part in name.parts):
                continue
            file = archive.extractfile(member)
            if file is not None:
                found[str(name)] = file.read()
        rest = iter(lambda: archive.fileobj.read(files.CHUNK_BYTES), b"")
        clean = all(not any(chunk) for chunk in rest)  # reading to the end also checks the compression's checksum
    if not clean or any(stream.last) or len(stream.last) < _BLOCK_BYTES:
        raise _damage_error(place, "its end mark is missing")
    return found


def _check_name(member: tarfile.TarInfo, place: Path) -> PurePosixPath:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise UnsafeArtifactError(
            f"its member {quote(member.name)!r} leads outside", code="member-outside-archive", path=place
        )
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UnsafeArtifactError(
            f"its member {quote(member.name)!r} is a link, a device or a sparse file; expected plain files",
            code="member-not-plain",
            path=place,
        )
    return name
