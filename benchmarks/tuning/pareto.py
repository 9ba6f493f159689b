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
        accuracy_drop: The decrease of top-1 accuracy against fp32, of all candidates against the same network. Without
            labels, the error of the logits, which has no interval.
        own_drop: The decrease against fp32 of the candidate's own network, if the limit applies to that.
    """

    figures: Figures
    cost_s: Estimate
    accuracy_drop: Estimate
    own_drop: Estimate | None = None

    @property
    def limited_drop(self) -> Estimate:
        """The decrease that the limit applies to."""
        return self.own_drop or self.accuracy_drop

    def is_within(self, bound: float) -> bool:
        """Return whether the decrease is accepted, by the rule for a limit that the user asks for."""
        return DropLimit(bound, asked=True).accepts(self.limited_drop.value, self.limited_drop.interval)

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


def candidate(
    figures: Figures, objective: Objective, accuracy_drop: Estimate, own_drop: Estimate | None = None
) -> ParetoPoint | None:
    """Return the result as a candidate, or ``None`` if it has too few samples for a median.

    Args:
        figures: The figures of the result. The cost of calls at the same time follows from their throughput.
        objective: The objective, which decides the cost.
        accuracy_drop: As in ``ParetoPoint``.
        own_drop: As in ``ParetoPoint``.
    """
    if figures.result.load is not None:
        rate = figures.images_per_s
        return ParetoPoint(figures, Estimate(1 / rate), accuracy_drop, own_drop) if rate else None
    p50, images = figures.p50, figures.result.identity.batch if objective == "throughput" else 1
    if p50 is None:
        return None
    ends = () if p50.interval is None else (end / images for end in p50.interval)
    return ParetoPoint(figures, Estimate(p50.value / images, *ends), accuracy_drop, own_drop)


def choose(candidates: Sequence[ParetoPoint], bound: float = math.inf) -> Choice:
    """Choose the fastest candidate with an accuracy drop of at most ``bound``.

    Among the candidates that tie with the fastest, the one with the fewest threads is chosen, then the one with the
    smallest accuracy drop, then the fastest.

    Args:
        candidates: The candidates.
        bound: The largest accuracy drop.
    """
    within = [candidate for candidate in candidates if candidate.is_within(bound)]
    beyond = tuple(candidate for candidate in candidates if not candidate.is_within(bound))
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
        (candidate for candidate in candidates if candidate.is_within(bound)),
        key=lambda candidate: candidate.cost_s.value,
    )
    limit_s = times * within[0].cost_s.value if within else 0.0
    return [candidate for candidate in within if candidate.cost_s.value <= limit_s or _overlap(candidate, within[0])]


def choose_among_finalists(choice: Choice, finalists: Sequence[ParetoPoint], bound: float = math.inf) -> Choice:
    """Return the ``choice`` with the best of the ``finalists`` within the limit, and the ties among these.

    Args:
        choice: The choice among all candidates.
        finalists: Candidates that took turns.
        bound: The largest accuracy drop.
    """
    within = [finalist for finalist in finalists if finalist.is_within(bound)]
    if not within:
        return choice
    best, tied = _best_of(within, _is_no_slower)
    return replace(choice, best=best, tied=tied)


def prefer_streams(choice: Choice, concurrent: Sequence[ParetoPoint]) -> Choice:
    """Return the ``choice`` with the best of the ``concurrent`` candidates if it is clearly better.

    Its cost must be lower than that of the best so far by more than single processes differ.

    Args:
        choice: The choice among the other candidates.
        concurrent: Candidates within the limit that answer several calls at the same time.
    """
    if choice.best is None or not concurrent:
        return choice
    fastest = min(concurrent, key=lambda candidate: candidate.cost_s.value)
    if fastest.cost_s.value >= choice.best.cost_s.value or _overlap(fastest, choice.best):
        return choice
    return replace(choice, best=fastest, tied=())


def is_hopeless(candidate: ParetoPoint, others: Sequence[ParetoPoint], times: float) -> bool:
    """Return whether another candidate is at least as accurate at less than ``1 / times`` of the cost.

    Args:
        candidate: The candidate.
        others: All candidates.
        times: The ratio of the costs.
    """
    return any(
        other.accuracy_drop.value <= candidate.accuracy_drop.value
        and times * other.cost_s.value < candidate.cost_s.value
        for other in others
    )


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
