"""Which of the measured configurations is the best: within a bound, with ties named, and what lies on the front.

Pure functions of results: the same results give the same choice anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from benchmarks.analysis.figures import Figures, compare_latencies
from benchmarks.records.result import Estimate
from benchmarks.stats.comparison import RESOLUTION

Objective: TypeAlias = Literal["latency", "throughput"]


@dataclass(frozen=True)
class ParetoPoint:
    """A measured configuration, and what counts of it.

    Attributes:
        figures: of the result, as it was measured.
        cost_s: the median seconds of a call, or of one image of it where the throughput counts.
        accuracy_drop: against fp32, of top-1; where there are no labels, the logits' error, which has no interval.
    """

    figures: Figures
    cost_s: Estimate
    accuracy_drop: Estimate

    @property
    def images_per_call(self) -> float:
        """That the cost is of: the batch, or 1 where a call's time counts."""
        return 0.0 if self.figures.p50 is None else self.figures.p50.value / self.cost_s.value


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


def candidate(figures: Figures, objective: Objective, accuracy_drop: Estimate) -> ParetoPoint | None:
    """The result as a candidate; ``None`` if it has too few samples for a median."""
    p50, images = figures.p50, figures.result.identity.batch if objective == "throughput" else 1
    if p50 is None:
        return None
    return ParetoPoint(figures, Estimate(p50.value / images, p50.low / images, p50.high / images), accuracy_drop)


def choose(candidates: Sequence[ParetoPoint], bound: float = math.inf) -> Choice:
    """The fastest with an accuracy drop of at most ``bound``. Of those that tie with it, the one of the fewest threads
    is taken, then the one of the smallest accuracy drop, then the fastest."""
    within = [one for one in candidates if one.accuracy_drop.value <= bound]
    beyond = tuple(one for one in candidates if one.accuracy_drop.value > bound)
    if not within:
        return Choice(None, (), front(candidates), beyond)
    fastest = min(within, key=lambda one: one.cost_s.value)
    alike = [one for one in within if _overlap(one.cost_s, fastest.cost_s)]
    best = min(alike, key=_preference)
    return Choice(best, tuple(one for one in alike if one is not best), front(candidates), beyond)


def _preference(one: ParetoPoint) -> tuple[int, float, float]:
    return one.figures.result.ran.threads, one.accuracy_drop.value, one.cost_s.value


def close_to_best(candidates: Sequence[ParetoPoint], times: float, bound: float = math.inf) -> list[ParetoPoint]:
    """Those within the bound that take at most so many times as long as the fastest of them, or whose interval overlaps
    its own; the fastest first."""
    within = sorted((one for one in candidates if one.accuracy_drop.value <= bound), key=lambda one: one.cost_s.value)
    return [
        one
        for one in within
        if one.cost_s.value <= times * within[0].cost_s.value or _overlap(one.cost_s, within[0].cost_s)
    ]


def choose_among_finalists(found: Choice, finalists: Sequence[ParetoPoint]) -> Choice:
    """The choice among those that were measured side by side: only what is not told apart from the fastest of them by
    that ties with it."""
    fastest = min(finalists, key=lambda one: one.cost_s.value)
    alike = [one for one in finalists if one is fastest or not _is_slower(one, fastest)]
    best = min(alike, key=_preference)
    return replace(found, best=best, tied=tuple(one for one in alike if one is not best))


def _is_slower(one: ParetoPoint, fastest: ParetoPoint) -> bool:
    """Whether an image of the one takes longer by more than the resolution, with all of the interval on the ratio."""
    mine, its = (point.figures.result for point in (one, fastest))
    images = one.images_per_call / fastest.images_per_call
    return compare_latencies(mine, its).interval[0] / images > 1 + RESOLUTION


def front(candidates: Sequence[ParetoPoint]) -> tuple[ParetoPoint, ...]:
    """Those that no other one betters: the Pareto front of cost and accuracy drop, in the order that they came."""
    return tuple(one for one in candidates if not any(_dominates(other, one) for other in candidates))


def _dominates(one: ParetoPoint, other: ParetoPoint) -> bool:
    mine, theirs = ((point.cost_s.value, point.accuracy_drop.value) for point in (one, other))
    return mine != theirs and mine[0] <= theirs[0] and mine[1] <= theirs[1]


def _overlap(one: Estimate, other: Estimate) -> bool:
    return one.low <= other.high and other.low <= one.high
