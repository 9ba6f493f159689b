"""Safety check of the external data of an ONNX file: the files that hold its weights."""

from __future__ import annotations

import stat
from pathlib import Path

from runtimes.errors import ArtifactError, UnsafeArtifactError, quote
from runtimes.onnx.graph import read


def check(path: Path) -> None:
    """Check that the ONNX file is complete and that its external data is safe to read.

    Raises:
        ArtifactError: The file is truncated or not an ONNX file, or its external data is missing or too short.
        ResourceError: The file cannot be read.
        UnsafeArtifactError: The external data is outside the file's folder, behind a symbolic link, or not a regular
            file.
    """
    sizes: dict[str, int] = {}
    for location, size in read(path).external:
        sizes[location] = max(size, sizes.get(location, 0))
    for location, size in sizes.items():
        _check_external(path, location, size)


def _check_external(path: Path, location: str, size: int) -> None:
    shown = quote(location)
    if not location or "\\" in location or "\0" in location or Path(location).is_absolute():
        raise UnsafeArtifactError(
            f"the path of the external data, {shown!r}, is not a relative path",
            code="external-data-absolute",
            path=path,
        )
    if ".." in Path(location).parts:
        raise UnsafeArtifactError(
            f"the external data {shown!r} is outside the folder of the model", code="external-data-outside", path=path
        )
    current = path.parent
    status = current.lstat()
    for part in Path(location).parts:
        current = current / part
        try:
            status = current.lstat()
        except OSError as error:
            raise ArtifactError(
                f"the external data {shown!r} is missing: {error.strerror}",
                code="external-data-missing",
                path=path,
                hint="copy the file to the folder of the model",
            ) from error
        if stat.S_ISLNK(status.st_mode):
            raise UnsafeArtifactError(
                f"the path of the external data, {shown!r}, contains a symbolic link",
                code="external-data-symlink",
                path=path,
                hint="replace the link by a copy of the file",
            )
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise UnsafeArtifactError(
            f"the external data {shown!r} is not a regular file, or has several hard links",
            code="external-data-not-plain",
            path=path,
            hint="replace it by a copy of the file",
        )
    if status.st_size < size:
        raise ArtifactError(
            f"the external data {shown!r} has {status.st_size:,} bytes, but the model needs {size:,}",
            code="external-data-too-short",
            path=path,
            hint="copy the whole file again",
        )
