"""The choice of the best configuration within an accuracy limit, its ties, and the Pareto front.

All functions are pure: the same results always give the same choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from benchmarks.analysis.figures import Figures, compare_latencies
from benchmarks.records.result import Estimate
from benchmarks.stats.comparison import ONE_PROCESS_RESOLUTION, RESOLUTION
from exporter.precision.acceptance import DropLimit
from exporter.proportions import Interval

Objective: TypeAlias = Literal["latency", "throughput"]
"""The objective: the lowest time of a call, or the lowest time of an image in a call."""


@dataclass(frozen=True)
class ParetoPoint:
    """A measured configuration with its cost and its change in accuracy.

    Attributes:
        figures: The figures of its result.
        cost_s: The median time of a call in seconds; for the objective throughput, of one image in a call.
        accuracy_drop: The decrease of top-1 accuracy against fp32. Without labels, the error of the logits, which has
            no interval.
    """

    figures: Figures
    cost_s: Estimate
    accuracy_drop: Estimate

    @property
    def images_per_call(self) -> float:
        """The number of images that ``cost_s`` covers: the batch size for the objective throughput, otherwise 1."""
        return 0.0 if self.figures.p50 is None else self.figures.p50.value / self.cost_s.value


@dataclass(frozen=True)
class Choice:
    """The choice among all candidates.

    Attributes:
        best: The best candidate within the accuracy limit; ``None`` if there is none.
        tied: The other candidates within the limit without a significant difference from the fastest one. Intervals
            that overlap count as no difference unless the candidates took turns.
        front: The Pareto-optimal candidates: no other one is at least as good in both cost and accuracy.
        beyond: The candidates rejected because their accuracy is below the limit.
    """

    best: ParetoPoint | None
    tied: tuple[ParetoPoint, ...]
    front: tuple[ParetoPoint, ...]
    beyond: tuple[ParetoPoint, ...]


def candidate(figures: Figures, objective: Objective, accuracy_drop: Estimate) -> ParetoPoint | None:
    """Return the result as a candidate, or ``None`` if it has too few samples for a median.

    Args:
        figures: The figures of the result.
        objective: The objective, which decides the cost.
        accuracy_drop: The decrease of accuracy against fp32.
    """
    p50, images = figures.p50, figures.result.identity.batch if objective == "throughput" else 1
    if p50 is None:
        return None
    ends = () if p50.interval is None else (end / images for end in p50.interval)
    return ParetoPoint(figures, Estimate(p50.value / images, *ends), accuracy_drop)


def is_within(accuracy_drop: Estimate, bound: float) -> bool:
    """Return whether an accuracy drop is accepted: the rule for a limit that the user asks for.

    Args:
        accuracy_drop: The measured drop.
        bound: The largest accuracy drop.
    """
    return DropLimit(bound, asked=True).accepts(accuracy_drop.value, accuracy_drop.interval)


def choose(candidates: Sequence[ParetoPoint], bound: float = math.inf) -> Choice:
    """Choose the fastest candidate with an accuracy drop of at most ``bound``.

    Among the candidates that tie with the fastest, the one with the fewest threads is chosen, then the one with the
    smallest accuracy drop, then the fastest.

    Args:
        candidates: The candidates.
        bound: The largest accuracy drop.
    """
    within = [candidate for candidate in candidates if is_within(candidate.accuracy_drop, bound)]
    beyond = tuple(candidate for candidate in candidates if not is_within(candidate.accuracy_drop, bound))
    best, tied = _best_of(within, _overlap) if within else (None, ())
    return Choice(best, tied, front(candidates), beyond)


def _best_of(
    candidates: Sequence[ParetoPoint], ties: Callable[[ParetoPoint, ParetoPoint], bool]
) -> tuple[ParetoPoint, tuple[ParetoPoint, ...]]:
    """Return the best of the candidates that tie with the fastest, and the other ones that tie."""
    fastest = min(candidates, key=lambda candidate: candidate.cost_s.value)
    tied = [candidate for candidate in candidates if candidate is fastest or ties(candidate, fastest)]
    best = min(
        tied, key=lambda other: (other.figures.result.ran.threads, other.accuracy_drop.value, other.cost_s.value)
    )
    return best, tuple(candidate for candidate in tied if candidate is not best)


def close_to_best(candidates: Sequence[ParetoPoint], times: float, bound: float = math.inf) -> list[ParetoPoint]:
    """Return the candidates that are nearly as fast as the fastest one within the limit, the fastest first.

    Args:
        candidates: The candidates.
        times: The largest cost relative to the fastest. Candidates whose intervals overlap are returned, too.
        bound: The largest accuracy drop.
    """
    within = sorted(
        (candidate for candidate in candidates if is_within(candidate.accuracy_drop, bound)),
        key=lambda candidate: candidate.cost_s.value,
    )
    limit_s = times * within[0].cost_s.value if within else 0.0
    return [candidate for candidate in within if candidate.cost_s.value <= limit_s or _overlap(candidate, within[0])]


def choose_among_finalists(choice: Choice, finalists: Sequence[ParetoPoint]) -> Choice:
    """Return the ``choice`` with the best of the ``finalists``, which took turns, and the ties among them."""
    best, tied = _best_of(finalists, _is_no_slower)
    return replace(choice, best=best, tied=tied)


def _is_no_slower(point: ParetoPoint, fastest: ParetoPoint) -> bool:
    """Return whether the interval of the ratio of costs per image reaches below the resolution."""
    images = point.images_per_call / fastest.images_per_call
    return compare_latencies(point.figures.result, fastest.figures.result).interval[0] / images <= 1 + RESOLUTION


def front(candidates: Sequence[ParetoPoint]) -> tuple[ParetoPoint, ...]:
    """Return the Pareto front of cost and accuracy drop of the ``candidates``, in their order."""
    values = [(candidate.cost_s.value, candidate.accuracy_drop.value) for candidate in candidates]
    dominated = [
        any(other != value and other[0] <= value[0] and other[1] <= value[1] for other in values) for value in values
    ]
    return tuple(candidate for candidate, worse in zip(candidates, dominated, strict=True) if not worse)


def _overlap(first: ParetoPoint, second: ParetoPoint) -> bool:
    (first_low, first_high), (second_low, second_high) = map(_interval_of, (first.cost_s, second.cost_s))
    return first_low <= second_high and second_low <= first_high


def _interval_of(cost_s: Estimate) -> Interval:
    """Return the interval of a cost. With too few processes for one, it is the usual variation between processes."""
    factor = 1 + ONE_PROCESS_RESOLUTION
    return cost_s.interval or (cost_s.value / math.sqrt(factor), cost_s.value * math.sqrt(factor))
