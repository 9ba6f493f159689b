"""Reading of the files in a folder or a tar archive, by name.

An archive is never unpacked to disk. Its content stays in memory, within a limit that also stops decompression bombs.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, Protocol

from runtimes import files
from runtimes.artifacts.formats import kind_of
from runtimes.errors import ArtifactError, ResourceError, UnsafeArtifactError, quote
from runtimes.escaping import shell_word
from runtimes.tar_errors import TAR_ERRORS

MAX_DEPTH = 8
"""The largest number of components in the name of a file. Deeper files of a folder are ignored.

The limit ends loops of symbolic links that are not recognised as such.
"""

MAX_UNPACKED_BYTES = 1 << 30
"""The largest size of an unpacked archive."""

_BLOCK_BYTES = 512

_ZIP = b"PK\x03\x04"


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
"""Decompressors by the first bytes of a file."""


@dataclass(frozen=True)
class Members:
    """The regular files in a folder or an archive.

    Names with a component that begins with a dot are left out.

    Attributes:
        place: The folder or archive.
        files: The files by relative name, for example "test/cat/1.jpg", in sorted order. Files of a folder are paths,
            files of an archive are contents.
        empty: The relative names of folders without anything in them, in sorted order. Those of an archive are unknown.
    """

    place: Path
    files: dict[str, Path | bytes]
    empty: tuple[str, ...] = ()

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Return the content of a file.

        Args:
            name: The name, a key of ``files``.
            limit_bytes: The largest size allowed.

        Raises:
            ResourceError: The file is missing, unreadable, or larger than the limit.
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


def read(path: Path) -> Members:
    """Return the files of a folder or a tar archive. The content determines which it is, not the name.

    An archive is read into memory, up to ``MAX_UNPACKED_BYTES``.

    Args:
        path: The folder or archive.

    Raises:
        ResourceError: The path is missing, unreadable, or neither a folder nor a regular file, or the archive is too
            large.
        ArtifactError: The file is not a tar archive, or is damaged.
        UnsafeArtifactError: The archive contains a link, a device or a sparse file, or a name that leads outside.
    """
    return _in_folder(path) if path.is_dir() else Members(path, dict(sorted(_in_archive(path).items())))


def _in_folder(path: Path) -> Members:
    members: dict[str, Path | bytes] = {}
    empty: list[str] = []
    for folder, folders, names in os.walk(path, onerror=_raise_resource_error, followlinks=True):
        parts = Path(folder).relative_to(path).parts
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and len(parts) + 1 < MAX_DEPTH and not _leads_back(Path(folder, name))
        ]
        for name in names:
            if not name.startswith("."):
                members["/".join((*parts, name))] = Path(folder, name)
        if parts and not folders and all(name.startswith(".") for name in names):
            empty.append("/".join(parts))
    return Members(path, dict(sorted(members.items())), tuple(sorted(empty)))


def _leads_back(folder: Path) -> bool:
    """Return whether a folder is a link to a folder that it lies in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _raise_resource_error(error: OSError) -> None:
    raise ResourceError.from_os(error, error.filename, "read") from error


class _Bounded:
    """A stream that raises an error beyond a limit and keeps its last block."""

    def __init__(self, file: _Stream, limit_bytes: int) -> None:
        self._file = file
        self._left = limit_bytes
        self.last = b""

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise ResourceError(
                f"the archive has more than {MAX_UNPACKED_BYTES:,} bytes when unpacked",
                code="archive-too-large",
                hint="unpack it and use the folder",
            )
        self.last = (self.last + chunk)[-_BLOCK_BYTES:]
        return chunk


def _in_archive(path: Path) -> dict[str, Path | bytes]:
    head = files.read_head(path, _BLOCK_BYTES)
    with files.open_regular(path) as file:
        opener = next((opener for start, opener in _OPENERS if head.startswith(start)), None)
        kind = "a zip archive" if head.startswith(_ZIP) else kind_of(head)
        if opener is None and head[257:262] != b"ustar":
            raise ArtifactError(
                f"expected a folder or a tar archive, but the file is {kind}",
                code="archive-expected",
                path=path,
                hint=_unzip_command(path) if head.startswith(_ZIP) else None,
            )
        try:
            with opener(file) if opener else file as stream:
                return _unpack(_Bounded(stream, MAX_UNPACKED_BYTES), path)
        except ResourceError as error:
            raise ResourceError(error.what, code=error.code, path=path, hint=error.hint) from error
        except OSError as error:
            if error.errno:
                raise ResourceError.from_os(error, path, "read") from error
            raise _damage_error(path, error) from error
        except TAR_ERRORS as error:
            raise _damage_error(path, error) from error


def _unzip_command(path: Path) -> str:
    """Return the command that unpacks a zip archive, and the folder to use."""
    folder = path.with_suffix("") if path.suffix else path.with_name(f"{path.name}-unpacked")
    return f"unzip {shell_word(path)} -d {shell_word(folder)}, then use {shell_word(folder)}"


def _damage_error(path: Path, error: object) -> ArtifactError:
    return ArtifactError(f"the tar archive is truncated or damaged: {quote(error)}", code="archive-damaged", path=path)


def _unpack(stream: _Bounded, path: Path) -> dict[str, Path | bytes]:
    members: dict[str, Path | bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            name = _check_name(member, path)
            if member.isdir() or any(part.startswith(".") for part in name.parts):
                continue
            file = archive.extractfile(member)
            if file is not None:
                members[str(name)] = file.read()
        rest = iter(lambda: archive.fileobj.read(files.CHUNK_BYTES), b"")
        # Reading to the end also verifies the checksum of the compression.
        clean = all(not any(chunk) for chunk in rest)
    if not clean or any(stream.last) or len(stream.last) < _BLOCK_BYTES:
        raise _damage_error(path, "the end mark is missing")
    return members


def _check_name(member: tarfile.TarInfo, path: Path) -> PurePosixPath:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise UnsafeArtifactError(
            f"the member {quote(member.name)!r} of the archive leads outside", code="member-outside-archive", path=path
        )
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UnsafeArtifactError(
            f"the member {quote(member.name)!r} of the archive is a link, a device or a sparse file; "
            "expected plain files",
            code="member-not-plain",
            path=path,
        )
    return name
