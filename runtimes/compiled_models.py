"""Files of compiled models: a cache that a damaged, foreign or half-written file can neither break nor make lie.

A compiled form of a model holds its weights again, and no library checks it for damage: one flipped bit changes the
answers without an error. So each file begins with the SHA-256 of the rest, which is compared before the library reads
it. Its name is the digest of all that the compiled form depends on. Files are written beside and renamed, so several
processes may use one folder, and a file in use may be replaced or removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes import codec, files, notices
from runtimes.errors import Reason, ResourceError, quote

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIX = ".compiled"
"""The suffix of the files."""

LIMIT_BYTES = 4 << 30
"""The size of all files of a folder together, above which those that were not used for longest are removed."""

_MAGIC = b"rexport compiled model 1\n"
_HEADER_BYTES = 4096
"""The size of the header, so that the rest begins at a page of memory."""


def path_of_compiled(folder: Path, facts: Mapping[str, object]) -> Path:
    """Return the file of a compiled model.

    Args:
        folder: The folder of the cache.
        facts: All that the compiled form depends on: the digest of the model, the library with its version, the
            processor, and the settings.
    """
    text = codec.dumps(dict(sorted(facts.items())))
    return folder / f"{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()}{SUFFIX}"


def read_compiled(path: Path) -> NDArray[Any] | None:
    """Return the content of a file of a compiled model, mapped into memory, or ``None`` if it is to be compiled.

    A damaged or unreadable file is a warning on the logger ``rexport``.

    Returns:
        uint8 (n,), which the caller owns. Changes of the array do not reach the file.
    """
    try:
        if not path.exists():
            return None
        with files.open_regular(path) as file:
            header = file.read(_HEADER_BYTES)
            if len(header) == _HEADER_BYTES and header.startswith(_MAGIC):
                import numpy as np

                content: NDArray[Any] = np.memmap(file, np.uint8, "c", _HEADER_BYTES)
                if header == _header(content.data):
                    with contextlib.suppress(OSError):
                        os.utime(path)  # marks the file as used
                    return content
        notices.warn(Reason("compiled-model-damaged", f"{quote(path)} is damaged, so the model is compiled again"))
    except (OSError, ValueError, ResourceError) as error:  # ValueError: the file has nothing after its header
        notices.warn(Reason("compiled-model-unreadable", f"{quote(path)} is unreadable and is compiled again: {error}"))
    return None


def discard_compiled(path: Path, error: Exception) -> None:
    """Remove the file of a compiled model that the library refuses, with a warning on the logger ``rexport``.

    Args:
        path: The file.
        error: The error of the library.
    """
    with contextlib.suppress(OSError):  # another process has removed or replaced it
        path.unlink()
    notices.warn(
        Reason("compiled-model-refused", f"{quote(path)} cannot be opened here and is compiled again: {quote(error)}")
    )


def write_compiled(path: Path, content: bytes | memoryview) -> bool:
    """Write the file of a compiled model, and remove old files if the folder is above its limit.

    A failure is a warning on the logger ``rexport``: the model that was compiled runs all the same.

    Args:
        path: The file.
        content: The compiled model.

    Returns:
        Whether the file was written.
    """
    try:
        with files.write_atomically(path) as temporary, temporary.open("wb") as file:
            file.write(_header(content))
            file.write(content)
        _remove_old(path)
    except (OSError, ResourceError) as error:
        notices.warn(Reason("compiled-model-not-kept", f"the compiled model is not kept: {error}"))
        return False
    return True


def _header(content: bytes | memoryview) -> bytes:
    return (_MAGIC + hashlib.sha256(content).digest()).ljust(_HEADER_BYTES, b"\0")


def _remove_old(newest: Path) -> None:
    """Remove the files that were not used for longest while all files together are above ``LIMIT_BYTES``."""
    found = []
    for path in newest.parent.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):  # another process has removed it
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= LIMIT_BYTES or path == newest:
            continue
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
