"""The folder in which the workers of a server count, and its removal after a server that was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "rexport-metrics-"
"""The beginning of the folder's name."""

LOCK = ".lock"
"""The file in the folder that its server locks as long as it lives."""

NEW_S = 60.0
"""The age up to which a folder without a locked file may be that of a server that is just starting."""


@contextmanager
def metrics_folder() -> Iterator[str]:
    """Yield the path of a new folder for temporary files, which is removed in the end.

    Folders of this user whose servers were killed are removed first.

    Raises:
        OSError: The folder cannot be created.
    """
    _remove_abandoned()
    folder = tempfile.mkdtemp(prefix=PREFIX)
    try:
        with open(Path(folder, LOCK), "xb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is locked, or another server removes it as well
            status = folder.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < NEW_S:
                continue
            with open(folder / LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
