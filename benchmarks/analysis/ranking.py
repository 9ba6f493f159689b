"""Which configuration is the fastest, by how much, and whether that is more than chance: in words."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.format import count, duration, points, times
from benchmarks.records.request import REFERENCE
from benchmarks.records.result import Row
from benchmarks.records.samples import ProcessSamples
from benchmarks.records.subject import is_reference
from benchmarks.stats import comparison as statistics
from benchmarks.stats.comparison import LatencyComparison

NAMED = 4
"""How many are named of those that tie for the fastest."""


@dataclass(frozen=True)
class Headline:
    """What came of configurations that answer the same calls.

    Attributes:
        fastest: the one of the smallest p50, unless another is told to be faster than it: the rounds decide that, and
            all samples together may say otherwise.
        tied: those that are not told apart from it, the fastest first.
        next: the fastest of the others; ``None`` where all tie, or there is none.
        lead: of the fastest over ``next``, else over the first that ties; ``None`` where it is alone.
        threads: whether the configurations differ in their threads.
    """

    fastest: Row
    tied: tuple[Row, ...]
    next: Row | None
    lead: LatencyComparison | None
    threads: bool


def headlines(rows: Sequence[Row]) -> tuple[Headline, ...]:
    """One for each batch of these rows of one subject on one machine; only those that were measured count."""
    measured = [row for row in rows if row.status == "ok" and row.load is None and row.p50_s and row.sittings]
    return tuple(_headline([row for row in measured if row.batch == batch]) for batch in _batches(measured))


def _batches(rows: Sequence[Row]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(row.batch for row in rows))


def _headline(rows: Sequence[Row]) -> Headline:
    ordered = sorted(rows, key=lambda row: row.p50_s or 0.0)
    fastest = _fastest(ordered)
    others = [row for row in ordered if row is not fastest]
    threads = len({row.threads for row in rows}) > 1
    tied: list[Row] = []
    lead: LatencyComparison | None = None
    for other in others:
        found = compare_latencies(other, fastest)
        if found.verdict == "faster":
            return Headline(fastest, tuple(tied), other, found, threads)
        tied.append(other)
        lead = lead or found
    return Headline(fastest, tuple(tied), None, lead, threads)


def _fastest(ordered: Sequence[Row]) -> Row:
    """The first of the rows that none of those behind it is told to be faster than."""
    first, *others = ordered
    for other in others:
        if compare_latencies(first, other).verdict == "faster":
            first = other
    return first


def compare_latencies(reference: Row, other: Row) -> LatencyComparison:
    """The latencies of two rows: above 1, ``other`` is the faster. Side by side if they took turns."""
    side_by_side = reference.run == other.run and reference.field == other.field is not None
    return _compare_samples(side_by_side, reference.sittings, other.sittings, other.seed)


@functools.lru_cache(maxsize=256)  # the same rows are told of on the terminal, in Markdown and on a page
def _compare_samples(
    side_by_side: bool, reference: tuple[ProcessSamples, ...], other: tuple[ProcessSamples, ...], seed: int
) -> LatencyComparison:
    first, second = ([sitting.latency.rounds_s for sitting in sittings] for sittings in (reference, other))
    return (
        statistics.compare_paired(first, second, seed)
        if side_by_side
        else statistics.compare_unpaired(first, second, seed)
    )


def name(row: Row, threads: bool = False) -> str:
    """The configuration in a few words, without the batch."""
    parts = [" ".join(filter(None, (row.runtime, row.precision)))]
    if row.cuda_graphs is False:
        parts.append("no CUDA graphs")
    if threads:
        parts.append(count(row.threads, "thread"))
    return ", ".join(parts)


def format_headline(found: Headline) -> str:
    """The headline as a sentence, with the intervals."""
    row = found.fastest
    parts = [_first(found), *_over_reference(found), *_describe_drop(row)]
    if row.disturbances:
        parts.append("the machine was not quiet meanwhile")
    return f"Batch {row.batch}: {'; '.join(parts)}."


def _first(found: Headline) -> str:
    row, named = found.fastest, name(found.fastest, found.threads)
    took = f"{duration(row.p50_s, row.p50_interval_s)} ms"
    if found.lead is None:
        return f"{named} takes {took}; there is nothing to compare it with"
    ratio = f"{times(found.lead.ratio, found.lead.interval)} times as fast as"
    place = f"{named} is the fastest" if not found.tied else f"{_list_names(found)} tie for the fastest"
    if found.next is None:
        return f"{place}, at {took}: {ratio} {name(found.tied[0], found.threads)}, which is not told apart"
    return f"{place}, at {took}: {ratio} the next, {name(found.next, found.threads)}"


def _list_names(found: Headline) -> str:
    names = [name(row, found.threads) for row in (found.fastest, *found.tied)]
    if len(names) > NAMED:
        names[NAMED - 1 :] = [f"{len(names) - NAMED + 1} others"]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _over_reference(found: Headline) -> tuple[str, ...]:
    row, following = found.fastest, found.next
    told = following is not None and is_reference(following.runtime, following.precision)
    if row.ratio is None or told or is_reference(row.runtime, row.precision):
        return ()
    return (f"{times(row.ratio, row.ratio_interval)} times as fast as {REFERENCE} in fp32",)


def _describe_drop(row: Row) -> tuple[str, ...]:
    if row.drop is None or is_reference(row.runtime, row.precision):
        return ()
    return (f"its drop of top-1 is {points(row.drop, row.drop_interval)} points",)
