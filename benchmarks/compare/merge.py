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
    """The merged results.

    Attributes:
        results: The results, each once, in the order of the files.
        duplicates: The number of results that were left out as duplicates.
    """

    results: tuple[Result, ...]
    duplicates: int


def merge(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], force: bool = False) -> MergeResult:
    """Write the results of several files into one file, in the current schema.

    Two results are the same if their run, time and configuration are the same. ``out`` is replaced only by a complete
    file.

    Args:
        paths: The files of results, or folders with ``results.jsonl``.
        out: The file to write.
        force: Whether an existing file is replaced.

    Raises:
        UsageError: ``out`` exists, and ``force`` is not set.
        ArtifactError: The files have no rows, a line is not a result, or two results of the same run, time and
            configuration differ.
        CompatibilityError: A file has a newer schema.
        ResourceError: A file cannot be read, ``out`` cannot be written, or ``out`` would be too large to read.
    """
    target = Path(out)
    sources = [store.find_results_file(path) for path in paths]
    if target.exists() and not force:
        is_source = any(source.exists() and source.samefile(target) for source in sources)
        problem = "is one of the files to merge" if is_source else "already exists"
        raise UsageError(f"{target} {problem}", code="output-exists", hint="--force replaces it")
    files.require_folder(target.parent)
    files.check_writable(target.parent)
    merged = _merge_files(sources)
    if paths and not merged.results:
        raise ArtifactError("no rows in it", code="rows-missing", path=paths[0], hint="rbench run -o DIR makes some")
    lines = (store.format_line(each.result, each.as_json()) for each in Figures.of_all(merged.results))
    content = b"".join(lines)
    if len(content) > store.FILE_LIMIT_BYTES:
        raise ResourceError(
            f"the merged rows have {len(content):,} bytes, more than the {store.FILE_LIMIT_BYTES:,} that rbench reads",
            code="output-too-large",
            path=target,
        )
    with files.write_atomically(target, force) as temporary:
        temporary.write_bytes(content)
    return merged


def _merge_files(sources: Sequence[Path]) -> MergeResult:
    results: dict[tuple[object, ...], Result] = {}
    count = 0
    for source in sources:
        for result in store.read(source):
            count += 1
            asked = result.asked
            fields = (field.of(result) for field in identity.FIELDS)
            key = (result.run, result.time, asked.group, asked.threads, asked.device, *fields)
            if results.setdefault(key, result) != result:
                raise ArtifactError(
                    f"{matching.name(result)} of run {result.run} differs from the same row of another file: one "
                    "of the files was edited",
                    code="merge-conflict",
                    path=source,
                )
    return MergeResult(tuple(results.values()), count - len(results))
