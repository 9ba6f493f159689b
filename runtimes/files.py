"""Atomic writing and bounded reading of files, for all of rexport.

A writer fills a temporary file in the target's folder, flushes it to the disk and renames it. A kill at any moment
therefore leaves either the old file or the new one. A reader opens only regular files and never waits for a pipe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from runtimes import notices
from runtimes.errors import Reason, ResourceError, RexportError, UsageError, quote
from runtimes.escaping import shell_word

CHUNK_BYTES = 1 << 20
"""The size of the pieces in which files are read for their digest."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)


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


def read_head(path: str | os.PathLike[str], count: int) -> bytes:
    """Return the first bytes of a file.

    Args:
        path: The file.
        count: The number of bytes. A shorter file gives fewer.

    Raises:
        ResourceError: As for ``open_regular``, or reading fails.
        UsageError: As for ``open_regular``.
    """
    with open_regular(path) as file:
        try:
            return file.read(count)
        except OSError as error:
            raise ResourceError.from_os(error, path, "read") from error


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

    Errors of the ``with`` block that name the temporary path name the target instead.

    Raises:
        ResourceError: A system call in the ``with`` block fails.
    """
    path = temporary_for(target)
    try:
        with name_target(path, target):
            yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def name_target(temporary: Path, target: Path) -> Iterator[None]:
    """Make the errors of the ``with`` block name the target, where they name its temporary file or folder.

    Raises:
        ResourceError: A system call in the ``with`` block fails.
    """
    try:
        yield
    except OSError as error:
        raise ResourceError.from_os(error, target, "write") from error
    except RexportError as error:
        error.rename(temporary, target)
        raise


def sync(path: Path) -> None:
    """Block until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str], replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` in the end. On an error, ``path`` is unchanged.

    Args:
        path: The file.
        replace: Whether a file that is there in the end is replaced.

    Raises:
        UsageError: There is a file, which must not be replaced.
        ResourceError: The folder is missing or not writable, the disk is full, another system call fails, or ``path``
            exists and is not a regular file.
    """
    target = Path(path)
    with temporary_file(target) as temporary:
        check_replaceable(target)
        remove_stale(target)
        yield temporary
        sync(temporary)
        check_replaceable(target)
        if replace:
            os.replace(temporary, target)
        else:
            _place(temporary, target)
        sync(target.parent)


def _place(temporary: Path, target: Path) -> None:
    """Give the file the name of a target that does not exist.

    Raises:
        UsageError: The target exists.
    """
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise target_exists(target) from error
    except OSError:  # a file system without hard links
        if target.exists():
            raise target_exists(target) from None
        os.replace(temporary, target)


def target_exists(path: Path, option: str = "-o") -> UsageError:
    """Return the error for a file that is not replaced without ``--force``.

    Args:
        path: The file.
        option: The option of the command that names the file.
    """
    return UsageError(
        "the file already exists",
        code="target-exists",
        path=path,
        hint=f"--force replaces it, {option} FILE names another file",
    )


def check_replaceable(path: Path) -> None:
    """Check that a file may be renamed to ``path``: there is nothing, or a regular file, or a link to one.

    A rename would replace a device, a pipe or a socket for all processes, and as root even ``/dev/null``.

    Raises:
        ResourceError: There is something else.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResourceError.from_os(error, path, "write") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a rename onto a folder fails by itself
        raise ResourceError(
            "cannot write: this is not a regular file, and it is not replaced", code="target-not-regular", path=path
        )


def remove_stale(target: Path) -> None:
    """Remove temporary files and folders of ``target`` whose writing processes have ended, as permissions allow."""
    for name in os.listdir(target.parent):
        match = _TEMPORARY.fullmatch(name)
        if match and match["name"] == target.name and not _is_running(int(match["pid"])):
            stale = target.with_name(name)
            with contextlib.suppress(OSError):
                if stale.is_dir():
                    import shutil  # imports five compression libraries, at every start

                    shutil.rmtree(stale)
                else:
                    stale.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:  # the name was not made by ``temporary_for``
        return False
    return True


LOCK = ".rexport.lock"
"""The name of the file that is locked. It can be opened by its owner only, and is removed when the lock is released."""

LOCK_PATIENCE_S = 120.0
"""The time after which a process gives up waiting for a lock."""

LONG_PATIENCE_S = 3600.0
"""The same for locks under which others build engines or download files."""

_ANNOUNCED_WAIT_S = 1.0
_POLL_S = 0.02


_held: set[int] = set()
"""The descriptors of the locks that this process holds."""


@contextlib.contextmanager
def folder_lock(folder: Path, patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
    """Hold the lock of a folder in the ``with`` block, after waiting for it. It is released if the process ends.

    After a second of waiting, the logger ``rexport`` names the process that holds the lock.

    Args:
        folder: The folder, in which the file of the lock is created.
        patience_s: The time after which the call gives up, in seconds.

    Raises:
        ResourceError: The folder is missing or not writable, or another process holds the lock for too long.
    """

    def announce(holder: str) -> None:
        notices.inform(Reason("lock-awaited", f"waiting for {holder}, which has locked {quote(folder)}"))

    with file_lock(folder / LOCK, announce, patience_s):
        yield


@contextlib.contextmanager
def file_lock(path: Path, announce: Callable[[str], object], patience_s: float) -> Iterator[None]:
    """Hold a lock in the ``with`` block, after waiting for it. Threads of one process exclude each other too.

    Processes forked meanwhile do not hold the lock.

    Args:
        path: The file of the lock. It is created, and removed when the lock is released.
        announce: Called after a second of waiting with the process that holds the lock, in words.
        patience_s: The time after which the call gives up, in seconds.

    Raises:
        ResourceError: The folder is missing or not writable, or another process holds the lock for too long.
    """
    _close_in_forks()
    try:
        descriptor = _wait_for_lock(path, announce, patience_s)
    except OSError as error:
        raise ResourceError.from_os(error, path.parent, "lock") from error
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # a forked process has closed it already
            _held.discard(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _wait_for_lock(path: Path, announce: Callable[[str], object], patience_s: float) -> int:
    """Return the descriptor of the locked file."""
    start, announced = time.monotonic(), False
    while (descriptor := _try_lock(path)) is None:
        waited_s = time.monotonic() - start
        if waited_s > patience_s:
            raise ResourceError(
                f"{_holder_of(path)} has locked this folder for more than {patience_s:g} s",
                code="folder-locked",
                path=path.parent,
                hint=f"wait for that process or end it; if there is none: rm {shell_word(path)}",
            )
        if waited_s > _ANNOUNCED_WAIT_S and not announced:
            announced = True
            announce(_holder_of(path))
        time.sleep(_POLL_S)
    return descriptor


@functools.cache
def _close_in_forks() -> None:
    """Close the files of locks in forked processes, which would otherwise hold the locks of a parent that has ended."""

    def close() -> None:
        for descriptor in _held:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        _held.clear()

    os.register_at_fork(after_in_child=close)


def _try_lock(path: Path) -> int | None:
    """Return the descriptor of the file after locking it, or ``None`` if another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except PermissionError:
        if path.exists():  # it belongs to another user, who holds the lock or died with it
            return None
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)  # another process holds it, or has removed the file in the meantime
    return None


def _holder_of(path: Path) -> str:
    """Return the process that holds the lock, in words."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        pid = next(
            fields[4] for line in locks if (fields := line.split())[5].endswith(f":{inode}") and fields[1] == "FLOCK"
        )
        name = Path(f"/proc/{int(pid)}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, StopIteration, ValueError, IndexError):
        return "another process"
    return f"process {pid} ({quote(name)})"


def require_utf8(path: str | os.PathLike[str]) -> None:
    """Check that a path is UTF-8, as libraries and files of JSON need.

    Raises:
        UsageError: It is not.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the path {quote(os.fspath(path))} is not UTF-8",
            code="path-not-utf8",
            hint="rename the file or the folder",
        ) from error


def find_read_failure(path: Path) -> ResourceError | None:
    """Return why a file cannot be read, or ``None`` if it can: a library that refuses a file may not tell.

    Args:
        path: The file.
    """
    try:
        read_head(path, 1)
    except ResourceError as error:
        return error
    return None


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
            hint=f"mkdir -p {shell_word(folder)}",
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
    except OSError as error:
        raise ResourceError.from_os(error, folder, "write into") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
