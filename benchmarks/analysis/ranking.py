"""Which configuration is the fastest, by how much, and whether that is more than chance: in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.analysis.figures import Figures, compare_latencies
from benchmarks.format import ABSENT, count, duration, points, times
from benchmarks.records.identity import describe_baseline
from benchmarks.records.result import Result
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

    fastest: Figures
    tied: tuple[Figures, ...]
    next: Figures | None
    lead: LatencyComparison | None
    threads: bool


def headlines(results: Sequence[Figures]) -> tuple[Headline, ...]:
    """One for each batch of these results of one subject on one machine; only those that were measured count."""
    batches: dict[int, list[tuple[float, Figures]]] = {}
    for each in results:
        if each.result.status == "ok" and each.result.samples and each.p50 is not None and each.p50.value:
            batches.setdefault(each.result.identity.batch, []).append((each.p50.value, each))
    ordered = (sorted(batch, key=lambda pair: pair[0]) for batch in batches.values())
    return tuple(_headline([figures for _, figures in batch]) for batch in ordered)


def _headline(ordered: Sequence[Figures]) -> Headline:
    """Of results by their p50."""
    fastest = ordered[0]
    for other in ordered[1:]:
        if compare_latencies(fastest.result, other.result).verdict == "faster":
            fastest = other
    threads = len({each.result.ran.threads for each in ordered}) > 1
    tied: list[Figures] = []
    lead: LatencyComparison | None = None
    for other in ordered:
        if other is fastest:
            continue
        compared = compare_latencies(other.result, fastest.result)
        if compared.verdict == "faster":
            return Headline(fastest, tuple(tied), other, compared, threads)
        tied.append(other)
        lead = lead or compared
    return Headline(fastest, tuple(tied), None, lead, threads)


def name(result: Result, threads: bool = False) -> str:
    """The configuration in a few words, without the batch."""
    of = result.identity
    parts = [" ".join(filter(None, (of.backend, of.precision, of.file)))]
    if result.asked.cuda_graphs is False:
        parts.append("no CUDA graphs")
    if threads:
        parts.append(count(result.ran.threads, "thread"))
    return ", ".join(parts)


def format_headline(headline: Headline) -> str:
    """The headline as a sentence, with the intervals."""
    fastest, following = headline.fastest, headline.next
    parts = [_describe_lead(headline)]
    against_reference = fastest.is_reference or (following is not None and following.is_reference)
    if fastest.ratio is not None and not against_reference:
        ratio = times(fastest.ratio.value, fastest.ratio.interval)
        parts.append(f"{ratio} times as fast as {describe_baseline(fastest.result)}")
    if fastest.drop is not None and not fastest.is_reference:
        parts.append(f"its drop of top-1 is {points(fastest.drop.value, fastest.drop.interval)} points")
    if fastest.disturbances:
        parts.append("the machine was not quiet meanwhile")
    return f"Batch {fastest.result.identity.batch}: {'; '.join(parts)}."


def _describe_lead(headline: Headline) -> str:
    p50, following = headline.fastest.p50, headline.next
    first, *tied = names = [name(each.result, headline.threads) for each in (headline.fastest, *headline.tied)]
    took = f"{ABSENT if p50 is None else duration(p50.value, p50.interval)} ms"
    if headline.lead is None:
        return f"{first} takes {took}; there is nothing to compare it with"
    ratio = f"{times(headline.lead.ratio, headline.lead.interval)} times as fast as"
    if len(names) > NAMED:
        names[NAMED - 1 :] = [f"{len(names) - NAMED + 1} others"]
    place = f"{', '.join(names[:-1])} and {names[-1]} tie for the fastest" if tied else f"{first} is the fastest"
    if following is None:
        return f"{place}, at {took}: {ratio} {tied[0]}, which is not told apart"
    return f"{place}, at {took}: {ratio} the next, {name(following.result, headline.threads)}"
