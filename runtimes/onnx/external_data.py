"""Check where an ONNX file says that its external data lies."""

from __future__ import annotations

import stat
from pathlib import Path

from runtimes.errors import ArtifactError, UnsafeArtifactError, quote
from runtimes.onnx.graph import read


def check(path: Path) -> None:
    """Refuses what must not reach a backend.

    Raises:
        ArtifactError: as ``read``; or external data that is missing or too short.
        UnsafeArtifactError: external data outside the file's folder, behind a link, or not in a regular file.
    """
    needs: dict[str, int] = {}
    for location, size in read(path).external:
        needs[location] = max(size, needs.get(location, 0))
    for location, size in needs.items():
        _check_external(path, location, size)


def _check_external(path: Path, location: str, size: int) -> None:
    shown = quote(location)
    if not location or "\\" in location or "\0" in location or Path(location).is_absolute():
        raise UnsafeArtifactError(
            f"its external data {shown!r} is not a relative path", code="external-data-absolute", path=path
        )
    if ".." in Path(location).parts:
        raise UnsafeArtifactError(
            f"its external data {shown!r} leaves the folder of the model", code="external-data-outside", path=path
        )
    place = path.parent
    status = place.lstat()
    for part in Path(location).parts:
        place = place / part
        try:
            status = place.lstat()
        except OSError as error:
            raise ArtifactError(
                f"its external data {shown!r} is missing: {error.strerror}", code="external-data-missing", path=path
            ) from error
        if stat.S_ISLNK(status.st_mode):
            raise UnsafeArtifactError(
                f"its external data {shown!r} lies behind a symbolic link",
                code="external-data-symlink",
                path=path,
                hint="copy the file itself there",
            )
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise UnsafeArtifactError(
            f"its external data {shown!r} is not a plain file of its own", code="external-data-not-plain", path=path
        )
    if status.st_size < size:
        raise ArtifactError(
            f"its external data {shown!r} has {status.st_size:,} bytes, {size:,} are needed",
            code="external-data-too-short",
            path=path,
        )
