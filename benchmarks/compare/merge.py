"""``rbench merge``: the results of several files in one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.analysis.figures import Figures
from benchmarks.compare import matching
from benchmarks.records import identity, store
from benchmarks.records.result import Result
from runtimes import files
from runtimes.errors import ArtifactError, ResourceError, UsageError


@dataclass(frozen=True)
class MergeResult:
    """The results, each once, in the order of the files; and how many were in more than one place."""

    results: tuple[Result, ...]
    duplicates: int


def merge(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], force: bool = False) -> MergeResult:
    """Writes the results of all files, or of the ``results.jsonl`` of folders, into ``out``, in the present schema.

    A result is the same as another if both are of one run, one moment and one configuration. ``out`` stays as it was
    unless it becomes whole.

    Raises:
        UsageError: ``out`` is there, as one of the files or otherwise, and ``force`` is not given.
        ArtifactError: two results of one run, moment and configuration differ: one was edited.
        ResourceError, ArtifactError, CompatibilityError: as ``store.read``; or ``out`` cannot be written, or would be
            larger than can be read.
    """
    target = Path(out)
    sources = [store.find_results_file(path) for path in paths]
    if target.exists() and not force:
        named = any(source.exists() and source.samefile(target) for source in sources)
        which = "is one of the files" if named else "is there already"
        raise UsageError(f"{target} {which}", code="output-exists", hint="--force replaces it")
    files.require_folder(target.parent)
    files.check_writable(target.parent)
    merged = _merge_files(sources)
    lines = (store.format_line(each.result, each.as_json()) for each in Figures.of_all(merged.results))
    content = b"".join(lines)
    if len(content) > store.FILE_LIMIT_BYTES:
        raise ResourceError(
            f"{len(content):,} bytes of rows, more than the {store.FILE_LIMIT_BYTES:,} that can be read",
            code="output-too-large",
            path=target,
        )
    with files.write_atomically(target) as temporary:
        temporary.write_bytes(content)
    return merged


def _merge_files(sources: Sequence[Path]) -> MergeResult:
    results: dict[tuple[object, ...], Result] = {}
    seen = 0
    for source in sources:
        for result in store.read(source):
            seen += 1
            asked = result.asked
            fields = (field.of(result) for field in identity.FIELDS)
            key = (result.run, result.time, asked.group, asked.threads, asked.device, *fields)
            if results.setdefault(key, result) != result:
                raise ArtifactError(
                    f"{matching.name(result)} of run {result.run} differs from the same row of another file: one was "
                    "edited",
                    code="merge-conflict",
                    path=source,
                )
    return MergeResult(tuple(results.values()), seen - len(results))
