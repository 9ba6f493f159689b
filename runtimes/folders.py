"""Folders for output, which do not stay if they stay empty."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from runtimes import files
from runtimes.errors import ResourceError

_PATIENCE_S = 1.0
"""The time after which a process works without the lock of a folder. Only who removes the folder holds it alone."""

_POLL_S = 0.01


@contextlib.contextmanager
def folder_to_fill(folder: Path) -> Iterator[None]:
    """Create the folder if it is missing, for the ``with`` block to fill; if the block does not, no empty one is left.

    Several processes and threads may fill one folder: it stays while another is in its block.

    Raises:
        ResourceError: As for ``files.check_writable``.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    descriptor = _share(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):  # others share it, or it is not empty
                if new:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for place in new:
                    place.rmdir()
            os.close(descriptor)


def _share(folder: Path) -> int | None:
    """Return the descriptor of the folder with a shared lock, or ``None`` where folders cannot be locked.

    Raises:
        ResourceError: As for ``files.check_writable``.
    """
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        is_late = time.monotonic() > end_s
        try:
            files.check_writable(folder)
            return _lock(folder)
        except ResourceError as error:
            if is_late or error.errno != errno.ENOENT:
                raise
        except (BlockingIOError, FileNotFoundError):
            if is_late:
                return None
        except OSError:
            return None
        time.sleep(_POLL_S)  # another process removes it at this moment


def _lock(folder: Path) -> int:
    """Return the descriptor of the folder with a shared lock.

    Raises:
        BlockingIOError: Another process holds the lock alone.
        FileNotFoundError: The folder is not there any more.
        OSError: The file system has no such locks, or the system fails.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        raise FileNotFoundError
    except BaseException:
        os.close(descriptor)
        raise
