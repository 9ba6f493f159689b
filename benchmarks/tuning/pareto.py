"""Which of the measured configurations is the best: within a bound, with ties named, and what lies on the front.

Pure functions of rows: the same rows give the same choice anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from benchmarks.analysis.ranking import compare_latencies
from benchmarks.records.result import Row
from benchmarks.stats.comparison import RESOLUTION
from exporter.proportions import Interval

Objective: TypeAlias = Literal["latency", "throughput"]


@dataclass(frozen=True)
class ParetoPoint:
    """A measured configuration, and what counts of it.

    Attributes:
        row: as it was measured.
        cost_s: the median seconds of a call, or of one image of it where the throughput counts.
        cost_interval_s: on that, at 95 %.
        accuracy_drop: against fp32, of top-1; where there are no labels, the logits' error.
        accuracy_drop_interval: on that, at 95 %.
    """

    row: Row
    cost_s: float
    cost_interval_s: Interval
    accuracy_drop: float
    accuracy_drop_interval: Interval | None = None


@dataclass(frozen=True)
class Choice:
    """What came of all candidates.

    Attributes:
        best: within the bound; ``None`` if nothing is.
        tied: the others within the bound whose intervals overlap the fastest one's, or that are not told apart from it
            where they took turns.
        front: those that no other one betters in cost and accuracy drop at once.
        beyond: those past the bound.
    """

    best: ParetoPoint | None
    tied: tuple[ParetoPoint, ...]
    front: tuple[ParetoPoint, ...]
    beyond: tuple[ParetoPoint, ...]


def candidate(
    row: Row, objective: Objective, accuracy_drop: float, accuracy_drop_interval: Interval | None = None
) -> ParetoPoint | None:
    """The row as a candidate; ``None`` if it has too few samples for a median."""
    if row.p50_s is None or row.p50_interval_s is None:
        return None
    images = row.batch if objective == "throughput" else 1
    low, high = row.p50_interval_s
    return ParetoPoint(row, row.p50_s / images, (low / images, high / images), accuracy_drop, accuracy_drop_interval)


def choose(candidates: Sequence[ParetoPoint], bound: float = math.inf) -> Choice:
    """The fastest with an accuracy drop of at most ``bound``. Of those that tie with it, the one of the fewest threads
    is taken, then the one of the smallest accuracy drop, then the fastest."""
    within = [one for one in candidates if one.accuracy_drop <= bound]
    beyond = tuple(one for one in candidates if one.accuracy_drop > bound)
    if not within:
        return Choice(None, (), front(candidates), beyond)
    fastest = min(within, key=lambda one: one.cost_s)
    alike = [one for one in within if _overlap(one.cost_interval_s, fastest.cost_interval_s)]
    best = min(alike, key=lambda one: (one.row.threads, one.accuracy_drop, one.cost_s))
    return Choice(best, tuple(one for one in alike if one is not best), front(candidates), beyond)


def close_to_best(candidates: Sequence[ParetoPoint], times: float, bound: float = math.inf) -> list[ParetoPoint]:
    """Those within the bound that take at most so many times as long as the fastest of them, or whose interval overlaps
    its own; the fastest first."""
    within = sorted((one for one in candidates if one.accuracy_drop <= bound), key=lambda one: one.cost_s)
    return [
        one
        for one in within
        if one.cost_s <= times * within[0].cost_s or _overlap(one.cost_interval_s, within[0].cost_interval_s)
    ]


def choose_among_finalists(found: Choice, finalists: Sequence[ParetoPoint]) -> Choice:
    """The choice among those that were measured side by side: only what is not told apart from the fastest of them by
    that ties with it."""
    fastest = min(finalists, key=lambda one: one.cost_s)
    alike = [one for one in finalists if one is fastest or not _is_slower(one, fastest)]
    best = min(alike, key=lambda one: (one.row.threads, one.accuracy_drop, one.cost_s))
    return replace(found, best=best, tied=tuple(one for one in alike if one is not best))


def _is_slower(one: ParetoPoint, fastest: ParetoPoint) -> bool:
    """Whether an image of the one takes longer by more than the resolution, with all of the interval on the ratio."""
    images = (one.row.p50_s or 0.0) * fastest.cost_s / ((fastest.row.p50_s or 0.0) * one.cost_s)
    return compare_latencies(one.row, fastest.row).interval[0] / images > 1 + RESOLUTION


def front(candidates: Sequence[ParetoPoint]) -> tuple[ParetoPoint, ...]:
    """Those that no other one betters: the Pareto front of cost and accuracy drop, in the order that they came."""
    return tuple(one for one in candidates if not any(_dominates(other, one) for other in candidates))


def _dominates(one: ParetoPoint, other: ParetoPoint) -> bool:
    mine, theirs = (one.cost_s, one.accuracy_drop), (other.cost_s, other.accuracy_drop)
    return mine != theirs and mine[0] <= theirs[0] and mine[1] <= theirs[1]


def _overlap(one: Interval, other: Interval) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
