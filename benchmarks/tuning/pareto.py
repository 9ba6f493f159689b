"""Which of the measured configurations is the best: within a bound, with ties named, and what lies on the front.

Pure functions of results: the same results give the same choice anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from benchmarks.analysis.figures import Figures, compare_latencies
from benchmarks.records.result import Estimate
from benchmarks.stats.comparison import ONE_PROCESS_RESOLUTION, RESOLUTION
from exporter.proportions import Interval

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
    ends = () if p50.interval is None else (end / images for end in p50.interval)
    return ParetoPoint(figures, Estimate(p50.value / images, *ends), accuracy_drop)


def choose(candidates: Sequence[ParetoPoint], bound: float = math.inf) -> Choice:
    """The fastest with an accuracy drop of at most ``bound``. Of those that tie with it, the one of the fewest threads
    is taken, then the one of the smallest accuracy drop, then the fastest."""
    within = [one for one in candidates if one.accuracy_drop.value <= bound]
    beyond = tuple(one for one in candidates if one.accuracy_drop.value > bound)
    best, tied = _best_of(within, _overlap) if within else (None, ())
    return Choice(best, tied, front(candidates), beyond)


def _best_of(
    candidates: Sequence[ParetoPoint], ties: Callable[[ParetoPoint, ParetoPoint], bool]
) -> tuple[ParetoPoint, tuple[ParetoPoint, ...]]:
    """The best of those that tie with the fastest, and the others of them."""
    fastest = min(candidates, key=lambda one: one.cost_s.value)
    alike = [one for one in candidates if one is fastest or ties(one, fastest)]
    best = min(alike, key=lambda one: (one.figures.result.ran.threads, one.accuracy_drop.value, one.cost_s.value))
    return best, tuple(one for one in alike if one is not best)


def close_to_best(candidates: Sequence[ParetoPoint], times: float, bound: float = math.inf) -> list[ParetoPoint]:
    """Those within the bound that take at most so many times as long as the fastest of them, or whose interval overlaps
    its own; the fastest first."""
    within = sorted((one for one in candidates if one.accuracy_drop.value <= bound), key=lambda one: one.cost_s.value)
    limit_s = times * within[0].cost_s.value if within else 0.0
    return [one for one in within if one.cost_s.value <= limit_s or _overlap(one, within[0])]


def choose_among_finalists(found: Choice, finalists: Sequence[ParetoPoint]) -> Choice:
    """The choice among those that were measured side by side: only what is not told apart from the fastest of them by
    that ties with it."""
    best, tied = _best_of(finalists, _is_no_slower)
    return replace(found, best=best, tied=tied)


def _is_no_slower(one: ParetoPoint, fastest: ParetoPoint) -> bool:
    """Whether an image of the one is not told to take longer by more than the resolution, with all of the interval on
    the ratio."""
    images = one.images_per_call / fastest.images_per_call
    return compare_latencies(one.figures.result, fastest.figures.result).interval[0] / images <= 1 + RESOLUTION


def front(candidates: Sequence[ParetoPoint]) -> tuple[ParetoPoint, ...]:
    """Those that no other one betters: the Pareto front of cost and accuracy drop, in the order that they came."""
    places = [(one.cost_s.value, one.accuracy_drop.value) for one in candidates]
    bettered = [any(it != me and it[0] <= me[0] and it[1] <= me[1] for it in places) for me in places]
    return tuple(one for one, worse in zip(candidates, bettered, strict=True) if not worse)


def _overlap(one: ParetoPoint, other: ParetoPoint) -> bool:
    (low, high), (other_low, other_high) = map(_ends, (one.cost_s, other.cost_s))
    return low <= other_high and other_low <= high


def _ends(cost_s: Estimate) -> Interval:
    """The interval of a cost; of one of too few processes what a start of another process may change."""
    factor = 1 + ONE_PROCESS_RESOLUTION
    return cost_s.interval or (cost_s.value / math.sqrt(factor), cost_s.value * math.sqrt(factor))
