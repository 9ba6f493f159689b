"""``rbench merge``: the rows of several files in one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.compare import matching
from benchmarks.records import identity, store
from benchmarks.records.result import Row
from runtimes import codec, files
from runtimes.errors import ArtifactError, ResourceError, UsageError

_Identity: TypeAlias = tuple[object, ...]


@dataclass(frozen=True)
class MergeResult:
    """The rows, each once, in the order of the files; and how many were in more than one place."""

    rows: tuple[Row, ...]
    duplicates: int


def merge(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], force: bool = False) -> MergeResult:
    """Writes the rows of all files, or of the ``results.jsonl`` of folders, into ``out``, in the present schema.

    A row is the same as another if both are of one run, one moment and one configuration. ``out`` stays as it was
    unless it becomes whole.

    Raises:
        UsageError: ``out`` is there, as one of the files or otherwise, and ``force`` is not given.
        ArtifactError: two rows of one run, moment and configuration differ: one was edited.
        ResourceError, ArtifactError, CompatibilityError: as ``results.read``; or ``out`` cannot be written, or would be
            larger than can be read.
    """
    target = Path(out)
    sources = [store.find_rows_file(path) for path in paths]
    if target.exists() and not force:
        which = "is one of the files" if any(_same(source, target) for source in sources) else "is there already"
        raise UsageError(f"{target} {which}", hint="--force replaces it")
    merged = _merge_files(sources)
    content = b"".join(codec.dumps(row).encode() + b"\n" for row in merged.rows)
    if len(content) > store.FILE_LIMIT_BYTES:
        raise ResourceError(
            f"{len(content):,} bytes of rows, more than the {store.FILE_LIMIT_BYTES:,} that can be read", path=target
        )
    files.check_writable(target.parent)
    with files.write_atomically(target) as temporary:
        temporary.write_bytes(content)
    return merged


def _same(source: Path, target: Path) -> bool:
    return source.exists() and source.samefile(target)


def _merge_files(sources: Sequence[Path]) -> MergeResult:
    rows: dict[_Identity, Row] = {}
    seen = 0
    for source in sources:
        for row in store.read(source):
            seen += 1
            if rows.setdefault(_identity(row), row) != row:
                raise ArtifactError(
                    f"{matching.name(row)} of run {row.run} differs from the same row of another file: one was edited",
                    path=source,
                )
    return MergeResult(tuple(rows.values()), seen - len(rows))


def _identity(row: Row) -> _Identity:
    asked = row.requested_threads, row.requested_device
    return (row.run, row.time, row.field, *asked, *(field.of(row) for field in identity.FIELDS))
