"""Atomic writing and bounded reading of files, for all of rexport.

A writer fills a temporary file in the target's folder, flushes it to the disk and renames it. A kill at any moment
therefore leaves either the old file or the new one. A reader opens only regular files and never waits for a pipe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runtimes.errors import ResourceError, UsageError, quote

CHUNK_BYTES = 1 << 20
"""The size of the pieces in which files are read for their digest."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-[0-9a-f]{8}\.tmp")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a binary file for reading. The caller closes it.

    Raises:
        ResourceError: The file is missing, unreadable, or not a regular file (a folder, a pipe, a device).
        UsageError: The path holds a NUL character, or a character that the system's encoding cannot represent.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ResourceError.from_os(error, path, "read") from error
    except ValueError as error:
        raise UsageError(f"the path {quote(path)!r} is invalid: {error}", code="path-invalid") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ResourceError("cannot read: this is not a regular file", code="file-not-regular", path=path)
    return os.fdopen(descriptor, "rb")


def read_bounded(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """Return the content of a file of limited size.

    Args:
        path: The file.
        limit_bytes: The largest size allowed.

    Raises:
        ResourceError: As for ``open_regular``, or the file is larger than ``limit_bytes``.
        UsageError: As for ``open_regular``.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            raise ResourceError(
                f"cannot read: the file has {size:,} bytes; at most {limit_bytes:,} are allowed",
                code="file-too-large",
                path=path,
            )
        try:
            return file.read(limit_bytes)
        except OSError as error:
            raise ResourceError.from_os(error, path, "read") from error


def identity(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return numbers that change when the file at ``path`` is replaced or written.

    Raises:
        ResourceError: The file is missing or cannot be accessed.
        UsageError: As for ``open_regular``.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        raise ResourceError.from_os(error, path, "read") from error
    except ValueError as error:
        raise UsageError(f"the path {quote(path)!r} is invalid: {error}", code="path-invalid") from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file as 64 hexadecimal digits. Other Python threads run meanwhile.

    Raises:
        ResourceError: As for ``open_regular``, or reading fails.
        UsageError: As for ``open_regular``.
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
    """Return a hidden path in the folder of ``path`` for its next content. The name holds the id of this process."""
    return path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


@contextlib.contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder, and remove the file at that path in the end.

    Raises:
        ResourceError: A system call in the ``with`` block fails.
    """
    path = temporary_for(target)
    try:
        yield path
    except OSError as error:
        raise ResourceError.from_os(error, target, "write") from error
    finally:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Block until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` in the end. On an error, ``path`` is unchanged.

    Raises:
        ResourceError: The folder is missing or not writable, the disk is full, or another system call fails.
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
    """Remove temporary files and folders of ``target`` whose writing processes have ended, as permissions allow."""
    for name in os.listdir(target.parent):
        match = _TEMPORARY.fullmatch(name)
        if match and match["name"] == target.name and not _is_running(int(match["pid"])):
            stale = target.with_name(name)
            with contextlib.suppress(OSError):
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder in the ``with`` block, after waiting for it. It is released if the process ends.

    Raises:
        ResourceError: The folder cannot be opened.
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
    """Check that the folder exists.

    Raises:
        ResourceError: The folder is missing, or the system does not tell. The hint is the command that creates it.
    """
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
    """Create the folder if it is missing and try to write a file, so that long work does not fail at its end.

    Raises:
        ResourceError: The folder cannot be created or written. The message gives the system's reason.
    """
    probe = temporary_for(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ResourceError.from_os(error, folder, "write into") from error
