"""A row's raw samples and answers, and whether the figures that stand in the row are theirs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence

from benchmarks import accuracy, answers, statistics
from benchmarks.compare.keys import name
from benchmarks.numerals import milliseconds
from benchmarks.results import Row
from benchmarks.samples import Series
from runtimes.errors import ArtifactError

Processes = tuple[tuple[tuple[float, ...], ...], ...]

TOLERANCE = 1e-6
"""Relative: how far a figure may be from what its samples give today. Both are double-precision arithmetic."""

LATENCIES = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "p999_s": 0.999}
MEDIANS = {"compute_p50_s": "compute", "device_p50_s": "device", "image_p50_s": "image"}
"""Figures, and what of a sitting they are medians of."""


def latencies(row: Row) -> Processes:
    """The samples that ``p50_s`` is of, by process and round; of a row of a load shape they are its responses."""
    if row.load is None:
        return _processes([sitting.latency for sitting in row.sittings])
    if row.load.shape == "cold":
        return tuple(((sample,),) for sample in row.load.responses_s)
    return ((row.load.responses_s,),) if row.load.responses_s else ()


def _processes(series: Sequence[Series | None]) -> Processes:
    return tuple(() if one is None else one.rounds_s for one in series)


def images(row: Row) -> int:
    """How many images ``top1`` is of."""
    return 0 if row.images is None else row.images


def right(row: Row) -> int:
    """How many of them it says were right."""
    return 0 if row.top1 is None else round(row.top1 * images(row))


def check(row: Row, path: str | os.PathLike[str]) -> None:
    """Returns if every quantile and the top-1 that stand in the row are those of its samples and answers.

    Raises:
        ArtifactError: one is not, or has nothing to come from: the row was edited. A sample is not above 0.
    """
    for figure, stored_s, q, processes in _figures(row):
        samples = statistics.together(processes)
        if len(samples) and samples.min() <= 0:
            raise ArtifactError(f"{name(row)}: a sample of {figure} is {samples.min()} s, expected above 0", path=path)
        given_s = statistics.quantile(samples, q) if len(samples) else None
        if stored_s is not None and not _same(stored_s, given_s):
            raise _edited(
                row, f"{figure} is {milliseconds(stored_s)} ms", f"samples give {milliseconds(given_s)}", path
            )
    if row.top1 is not None:
        given = _share(row)
        if not _same(row.top1, given):
            raise _edited(
                row, f"top1 is {row.top1:g}", f"answers give {'none' if given is None else f'{given:g}'}", path
            )


def _same(stored: float, given: float | None) -> bool:
    return given is not None and math.isclose(stored, given, rel_tol=TOLERANCE)


def _edited(row: Row, stored: str, given: str, path: str | os.PathLike[str]) -> ArtifactError:
    return ArtifactError(
        f"{name(row)}: {stored} and its {given}: the row was edited", path=path, hint="measure again with rbench run"
    )


def _share(row: Row) -> float | None:
    """Top-1 from the answers; of a row without them, the share of whole images that is the nearest."""
    if row.answers is not None:
        share = accuracy.top1(answers.unpacked(row.answers))
        return None if share is None else share.value
    return right(row) / images(row) if images(row) else None


def _figures(row: Row) -> Iterator[tuple[str, float | None, float, Processes]]:
    for figure, q in LATENCIES.items():
        yield figure, getattr(row, figure), q, latencies(row)
    for figure, of in MEDIANS.items():
        yield figure, getattr(row, figure), 0.5, _processes([getattr(sitting, of) for sitting in row.sittings])
