"""TensorRT's timing cache: a file in which the times of kernels wait for the next build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtimes import files
from runtimes.backends.tensorrt.flavors import Log
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError

LIMIT_BYTES = 1 << 30


def attach(config: Any, path: Path, heard: Log) -> None:
    """Makes the build use what is in the file, which need not exist.

    Raises:
        ArtifactError: it is no timing cache.
        CompatibilityError: it is one of another GPU.
        ResourceError: it cannot be read, or its folder cannot be written into.
    """
    files.check_writable(path.parent)
    content = _content(path)
    before = len(heard.warnings)
    cache = config.create_timing_cache(content)
    if cache is None or (content and any("timing cache" in text for text in heard.warnings[before:])):
        raise ArtifactError(
            "it is no timing cache of this library's version",
            code="timing-cache-unreadable",
            path=path,
            hint="name another file",
        )
    if not config.set_timing_cache(cache, False):
        raise CompatibilityError(
            "it is a timing cache of another GPU", code="timing-cache-other-gpu", path=path, hint="name another file"
        )


def save(config: Any, path: Path) -> None:
    """Writes what the build has learnt into the file, with what others have written meanwhile.

    Raises:
        ResourceError: with the system's reason.
    """
    cache = config.get_timing_cache()
    with files.folder_lock(path.parent):
        content = _content(path)
        others = config.create_timing_cache(content) if content else None
        if others is not None:  # None where another version of the library has written it meanwhile
            cache.combine(others, False)
        with files.write_atomically(path) as temporary:
            temporary.write_bytes(memoryview(cache.serialize()))


def _content(path: Path) -> bytes:
    try:
        return files.read_bounded(path, LIMIT_BYTES)
    except ResourceError:
        if path.exists():
            raise
        return b""
