"""Artifacts that were moved: a link to a model file alone, and files that were renamed together with the model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from runtimes import files, notices
from runtimes.errors import Reason, RexportError, quote

MOST_CANDIDATES = 32
"""The largest number of files of a folder whose digests are compared to find a renamed one."""


def follow_link(path: Path, manifest_of: Callable[[Path], Path]) -> Path:
    """Return the path of the model file whose folder holds what belongs to it.

    This is ``path``, unless it is a symbolic link without a manifest beside it to a file with one. A notice on the
    logger ``rexport`` then says which file is opened.

    Args:
        path: The path of the model file, as it was named.
        manifest_of: Returns the path of the manifest of a model file.
    """
    if not path.is_symlink() or manifest_of(path).exists():
        return path
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # a broken link, or a loop, which opening the file reports
        return path
    if not manifest_of(target).exists():
        return path
    _announce(
        Reason("artifact-link-followed", f"{quote(path)} is a link: opened as {quote(target)}, beside its manifest")
    )
    return target


def find_renamed(path: Path, sha256: str) -> Path:
    """Return the path of a file that belongs to an artifact, under its name or under another one.

    Args:
        path: The path by the name in the manifest.
        sha256: The digest of the file.

    Returns:
        ``path`` if something is there; otherwise another file of the folder with the same suffix and this digest, which
        a notice on the logger ``rexport`` names; and ``path`` if there is none.
    """
    other = None if path.exists() else search_by_digest(path, sha256)
    if other is None:
        return path
    _announce(Reason("artifact-file-renamed", f"{quote(path.name)} is called {quote(other.name)} here, by its digest"))
    return other


def search_by_digest(path: Path, sha256: str) -> Path | None:
    """Return a file in the folder of ``path`` with its suffix and the digest ``sha256``, or ``None``."""
    try:
        others = sorted(other for other in path.parent.iterdir() if other.suffix == path.suffix)
    except OSError:
        return None
    return next((other for other in others[:MOST_CANDIDATES] if _has_digest(other, sha256)), None)


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        return files.sha256_of(path) == sha256
    except RexportError:  # a folder, a pipe or an unreadable file is another file
        return False


@functools.lru_cache(maxsize=1024)
def _announce(reason: Reason) -> None:
    """Tell the user of a file under another name than expected, once in a process."""
    notices.inform(reason)
