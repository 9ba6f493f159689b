"""Files that are never half there: how everything in rexport is read and written.

A writer puts a temporary file into the target's own folder, flushes it to the disk and renames it, so that a kill at
any moment leaves the old file or the new one. A reader opens regular files only, and never waits on a pipe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runtimes.errors import ResourceError, UsageError, quote

CHUNK_BYTES = 1 << 20
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-[0-9a-f]{8}\.tmp")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """An open binary file; the caller closes it.

    Raises:
        ResourceError: the file is missing, unreadable, or not a regular file (a folder, a pipe, a device).
        UsageError: no path: it has a NUL or what the system's encoding has not.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ResourceError.from_os(error, path, "read") from error
    except ValueError as error:
        raise UsageError(f"{error} in the path {quote(path)!r}", code="path-invalid") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ResourceError("cannot read: not a regular file", code="file-not-regular", path=path)
    return os.fdopen(descriptor, "rb")


def read_bounded(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """The content of a small file.

    Raises:
        ResourceError: as ``open_regular``, or the file is larger than ``limit_bytes``.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            raise ResourceError(
                f"cannot read: {size:,} bytes, more than the {limit_bytes:,} allowed here",
                code="file-too-large",
                path=path,
            )
        try:
            return file.read(limit_bytes)
        except OSError as error:
            raise ResourceError.from_os(error, path, "read") from error


def identity(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Numbers that change when another file is put at ``path`` or this one is written.

    Raises:
        ResourceError: there is no such file.
        UsageError: no path.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        raise ResourceError.from_os(error, path, "read") from error
    except ValueError as error:
        raise UsageError(f"{error} in the path {quote(path)!r}", code="path-invalid") from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The file's SHA-256 as 64 hexadecimal digits. Other threads run meanwhile.

    Raises:
        ResourceError: as ``open_regular``, or the disk fails.
    """
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    with open_regular(path) as file:
        try:
            while count := file.readinto(buffer):  # type: ignore[attr-defined]
                digest.update(view[:count])
        except OSError as error:
            raise ResourceError.from_os(error, path, "read") from error
    return digest.hexdigest()


def temporary_for(path: Path) -> Path:
    """A name beside ``path`` for its next content; hidden, and carrying the writer's process id."""
    return path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


@contextlib.contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Gives a temporary path in the target's folder; whatever lies there at the end is removed.

    Raises:
        ResourceError: in place of a system call's error inside.
    """
    path = temporary_for(target)
    try:
        yield path
    except OSError as error:
        raise ResourceError.from_os(error, target, "write") from error
    finally:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Blocks until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path to fill; on leaving, it becomes ``path``. On an error ``path`` stays as it was.

    Raises:
        ResourceError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    temporary = temporary_for(target)
    try:
        remove_stale(target)
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
        sync(target.parent)
    except OSError as error:
        raise ResourceError.from_os(error, target, "write") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_stale(target: Path) -> None:
    """Removes the temporary files of ``target`` whose writers have died, as far as this user may."""
    for name in os.listdir(target.parent):
        found = _TEMPORARY.fullmatch(name)
        if found and found["name"] == target.name and not _alive(int(found["pid"])):
            with contextlib.suppress(OSError):
                target.with_name(name).unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, waiting for it. The system lets go of a dead holder's lock.

    Raises:
        ResourceError: the folder cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ResourceError.from_os(error, folder, "open") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def require_folder(folder: Path) -> None:
    """Raises ResourceError where the folder is missing, and says how to make it; or where the system does not tell."""
    try:
        above = next(place for place in (folder, *folder.parents) if place.exists())
        missing = above != folder and above.is_dir()
    except OSError as error:
        raise ResourceError.from_os(error, folder, "read") from error
    if missing:
        raise ResourceError(
            "no such folder",
            code="folder-missing",
            path=folder,
            hint=f"mkdir -p {shlex.quote(str(folder))}",
            errno=errno.ENOENT,
        )


def check_writable(folder: Path) -> None:
    """Makes the folder where it is missing and tries a write, so that long work does not end in a refusal.

    Raises:
        ResourceError: with the system's reason.
    """
    probe = temporary_for(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ResourceError.from_os(error, folder, "write into") from error
