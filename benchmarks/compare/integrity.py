"""A row's raw samples and answers, and whether the figures that stand in the row are theirs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.accuracy import packing, predictions
from benchmarks.accuracy.predictions import ShareEstimate
from benchmarks.compare.matching import name
from benchmarks.format import milliseconds
from benchmarks.records.result import Row
from benchmarks.records.samples import Series
from benchmarks.records.subject import is_reference
from benchmarks.stats import intervals
from exporter.proportions import Interval, wilson
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


@dataclass(frozen=True)
class _Figure:
    """A figure in a row, what comes of the row's own ``source`` for it, and how either is put into words."""

    name: str
    stored: float | None
    given: float | None
    source: str
    format: Callable[[float | None], str]


def check(row: Row, path: str | os.PathLike[str], beside: Sequence[Row] = ()) -> None:
    """Returns if what stands in the row is what comes of its samples and answers: quantiles and rates, what loading and
    memory took, the roof's share, top-1 and top-5 with their Wilson intervals; and agreement and drop against the
    PyTorch row of its run among ``beside``, if it has one there.

    Intervals of times, the ratio and its verdict are not looked at: they are as resampling was done when they were
    written, and nothing is concluded from them. ``rbench compare`` takes its own.

    Raises:
        ArtifactError: one is not, or has nothing to come from: the row was edited. A sample is not above 0.
    """
    for figure in (*_derive_from_samples(row, path), *_derive_from_predictions(row), *_against_reference(row, beside)):
        if figure.stored is not None and not _same(figure.stored, figure.given):
            raise ArtifactError(
                f"{name(row)}: {figure.name} is {_format_figure(figure, figure.stored)} and its {figure.source} give "
                f"{figure.format(figure.given)}: the row was edited",
                path=path,
                hint="measure again with rbench run",
            )


def _same(stored: float, given: float | None) -> bool:
    return given is not None and math.isclose(stored, given, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2)


def _format_figure(figure: _Figure, value: float) -> str:
    return f"{figure.format(value)} ms" if figure.format is milliseconds else figure.format(value)


def _plain(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _derive_from_samples(row: Row, path: str | os.PathLike[str]) -> Iterator[_Figure]:
    quantiles = [(figure, q, latencies(row)) for figure, q in LATENCIES.items()]
    quantiles += [
        (figure, 0.5, _processes([getattr(sitting, of) for sitting in row.sittings])) for figure, of in MEDIANS.items()
    ]
    for figure, q, processes in quantiles:
        samples = intervals.together(processes)
        if len(samples) and samples.min() <= 0:
            raise ArtifactError(f"{name(row)}: a sample of {figure} is {samples.min()} s, expected above 0", path=path)
        given_s = intervals.quantile(samples, q) if len(samples) else None
        yield _Figure(figure, getattr(row, figure), given_s, "samples", milliseconds)
    yield _Figure("images_per_s", row.images_per_s, _images_per_s(row), "samples", _plain)
    if row.sittings:
        first, peaks = row.sittings[0], [sitting.peak_bytes for sitting in row.sittings if sitting.peak_bytes]
        yield _Figure("load_s", row.load_s, first.load_s, "processes", milliseconds)
        yield _Figure("first_s", row.first_s, first.first_s, "processes", milliseconds)
        yield _Figure("baseline_bytes", row.baseline_bytes, first.baseline_bytes, "processes", _plain)
        yield _Figure("peak_bytes", row.peak_bytes, max(peaks, default=None), "processes", _plain)
    if row.roof is not None:
        share = row.roof.least_s / row.compute_p50_s if row.compute_p50_s else None
        yield _Figure("roof.share", row.roof.share, share, "samples", _plain)


def _images_per_s(row: Row) -> float | None:
    if row.load is not None:
        return row.batch * row.load.achieved_per_s
    samples = intervals.together(latencies(row))
    return row.batch * len(samples) / math.fsum(samples) if len(samples) else None


def _derive_from_predictions(row: Row) -> Iterator[_Figure]:
    """Of a row without answers, top-1 is the share of whole images that is the nearest."""
    found = None if row.answers is None else packing.unpack_predictions(row.answers)
    if found is not None:
        yield _Figure("images", row.images, len(found.indices), "answers", _plain)
    one = predictions.top1(found) if found is not None else _nearest(row)
    five = None if found is None else predictions.top5(found)
    yield from _share("top1", row.top1, row.top1_interval, one)
    if found is not None:
        yield from _share("top5", row.top5, row.top5_interval, five)


def _nearest(row: Row) -> ShareEstimate | None:
    if row.top1 is None or not images(row):
        return None
    return ShareEstimate(right(row) / images(row), wilson(right(row), images(row)), images(row))


def _share(
    name: str, stored: float | None, interval: Interval | None, given: ShareEstimate | None
) -> Iterator[_Figure]:
    yield _Figure(name, stored, None if given is None else given.value, "answers", _plain)
    for end, place in (("low", 0), ("high", 1)) if interval is not None else ():
        value = None if given is None else given.interval[place]
        yield _Figure(f"{name}_interval's {end} end", interval[place] if interval else None, value, "answers", _plain)


def _against_reference(row: Row, beside: Sequence[Row]) -> Iterator[_Figure]:
    mine = row.answers
    theirs = [
        other.answers
        for other in beside
        if is_reference(other.runtime, other.precision) and (other.run, other.subject) == (row.run, row.subject)
    ]
    asked = [one for one in theirs if one is not None and mine is not None and one.asked == mine.asked]
    if mine is None or not asked:
        return
    this, reference = packing.unpack_predictions(mine), packing.unpack_predictions(asked[0])
    lost = predictions.drop(this, reference)
    yield from _share("agreement", row.agreement, row.agreement_interval, predictions.agreement(this, reference))
    yield _Figure("drop", row.drop, None if lost is None else lost.value, "answers", _plain)
