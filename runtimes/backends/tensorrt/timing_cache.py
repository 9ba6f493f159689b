"""TensorRT's timing cache: a file with measured times of kernels, which makes later builds faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtimes import files
from runtimes.backends.tensorrt.flavors import Log
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError

LIMIT_BYTES = 1 << 30
"""The largest size of a timing cache."""

REFUSALS = ("timing-cache-unreadable", "timing-cache-other-gpu")
"""The codes of errors after which another timing cache, or none, helps."""


def attach(config: Any, path: Path, log: Log) -> None:
    """Make a build use a timing cache.

    Args:
        config: The library's configuration of the build.
        path: The file of the timing cache, which need not exist.
        log: The messages of the library.

    Raises:
        ArtifactError: The file is not a timing cache of this version of the library.
        CompatibilityError: The timing cache belongs to another GPU.
        ResourceError: The file cannot be read, or its folder cannot be written.
    """
    files.check_writable(path.parent)
    content = _read(path)
    before = len(log.warnings)
    cache = config.create_timing_cache(content)
    if cache is None or (content and any("timing cache" in text for text in log.warnings[before:])):
        raise ArtifactError(
            "the file is not a timing cache of this version of the library",
            code="timing-cache-unreadable",
            path=path,
            hint="choose another file",
        )
    if not config.set_timing_cache(cache, False):
        raise CompatibilityError(
            "the timing cache belongs to another GPU",
            code="timing-cache-other-gpu",
            path=path,
            hint="choose another file",
        )


def save(config: Any, path: Path) -> None:
    """Write the timing cache of a build to a file, merged with the present content of the file.

    Args:
        config: The library's configuration of the build.
        path: The file of the timing cache.

    Raises:
        ResourceError: The file cannot be read or written.
    """
    cache = config.get_timing_cache()
    with files.folder_lock(path.parent):
        content = _read(path)
        present = config.create_timing_cache(content) if content else None
        if present is not None:  # None if another version of the library has written the file meanwhile
            cache.combine(present, False)
        with files.write_atomically(path) as temporary:
            temporary.write_bytes(memoryview(cache.serialize()))


def _read(path: Path) -> bytes:
    try:
        return files.read_bounded(path, LIMIT_BYTES)
    except ResourceError:
        if path.exists():
            raise
        return b""
