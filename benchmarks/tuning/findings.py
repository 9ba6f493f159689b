"""The goal of a search, and what it has found so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.analysis.figures import Figures
from benchmarks.records.identity import find_timed_reference
from benchmarks.records.plan import RelativeTo
from benchmarks.records.result import Result
from benchmarks.tuning import pareto
from benchmarks.tuning.pareto import Choice, Objective, ParetoPoint
from runtimes import Artifact
from runtimes.errors import UsageError
from runtimes.processors import usable_processors

BATCHES: dict[Objective, tuple[int, ...]] = {"latency": (1,), "throughput": (1, 8, 32)}
"""The batch sizes that are tried by default."""


@dataclass(frozen=True)
class TuningGoal:
    """The goal of the search.

    Attributes:
        objective: ``latency`` for the lowest time of a call, ``throughput`` for the lowest time of an image in a call.
        max_drop: The largest decrease of top-1 accuracy against fp32, as a fraction. Only the value of the decrease
            counts, not its interval.
        relative_to: The network whose accuracy in fp32 the limit starts from.
        threads: The thread counts to try. If empty, the powers of two and all processors that this process may use.
        streams: The numbers of calls at the same time to try, for the throughput. One call is always tried.
        budget_s: The time after which no further configuration is begun; ``None`` for no limit. The baselines are
            measured in any case, and the finalists are measured again.
        model_cache: An existing folder of compiled models, with which the best one is opened, too; ``None`` for none.
        out: The file to write, or a folder if it exists as one or ends in a slash; ``None`` for NAME.tuned.onnx.
        force: Whether an existing file is replaced.
        others: The other files that are written, which the artifact must not replace.

    Raises:
        UsageError: ``max_drop``, a thread count or a number of streams is out of range, or streams are not for the
            throughput.
    """

    objective: Objective = "latency"
    max_drop: float = 0.005
    relative_to: RelativeTo = "best"
    threads: tuple[int, ...] = ()
    streams: tuple[int, ...] = ()
    budget_s: float | None = None
    model_cache: Path | None = None
    out: str | None = None
    force: bool = False
    others: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 1:
            raise UsageError(
                f"the accuracy limit is {100 * self.max_drop:g} pp, expected 0 to 100",
                code="drop-out-of-range",
            )
        if self.streams and self.objective != "throughput":
            raise UsageError(
                "streams are for the throughput, and the objective is the latency",
                code="streams-need-throughput",
                hint="--objective throughput",
            )
        usable = usable_processors()
        for number in (*self.threads, *self.streams):
            if not 1 <= number <= usable:
                raise UsageError(
                    f"threads and streams must be between 1 and {usable}, the number of processors that this process "
                    f"may use, not {number}",
                    code="tuning-threads-out-of-range",
                )

    def thread_counts(self, device: str = "cpu") -> tuple[int, ...]:
        """Return the thread counts to try on a ``device``, the largest first.

        A GPU does not depend on the thread count, so by default only all processors are tried.
        """
        usable = usable_processors()
        if device != "cpu" and not self.threads:
            return (usable,)
        powers = (2**power for power in range(usable.bit_length()))
        return tuple(sorted({*(self.threads or (*powers, usable))}, reverse=True))


@dataclass
class TuningResult:
    """The results of a search so far. After an interrupt it is complete up to the last result.

    Attributes:
        goal: The goal.
        results: All results in their order. Those of the references come first.
        candidates: The configurations that were measured and can become the artifact.
        left_out: The reasons why something was not tried, with the names of what.
        finalists: The candidates that were measured again in turns.
        concurrent: The candidates that answer several calls at the same time.
        openings: The cold starts of the best one, without a cache of compiled models and with it.
        baseline: The result of the most accurate network in fp32; ``None`` without labels.
        artifact: The written artifact; ``None`` until the end of the search.
    """

    goal: TuningGoal
    results: list[Result] = field(default_factory=list)
    candidates: list[ParetoPoint] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    finalists: list[ParetoPoint] = field(default_factory=list)
    concurrent: list[ParetoPoint] = field(default_factory=list)
    openings: list[Result] = field(default_factory=list)
    baseline: Result | None = None
    artifact: Artifact | None = None

    @property
    def labelled(self) -> bool:
        """Whether the accuracy drop is a decrease of top-1 accuracy, and not the error of the logits at the gate."""
        return self.baseline is not None

    @property
    def subjects(self) -> tuple[str, ...]:
        """The names of the networks, in their order."""
        return tuple(dict.fromkeys(result.identity.subject or "" for result in self.results))

    def figures_of(self, result: Result) -> Figures:
        """Return the figures of a result, with its latency against PyTorch and its predictions against the baseline."""
        return Figures(result, find_timed_reference(result, self.results), self.baseline)

    @property
    def bound(self) -> float:
        """The largest accuracy drop. Without labels there is no limit, because the artifacts have passed the gate."""
        return self.goal.max_drop if self.labelled else math.inf

    @property
    def points(self) -> tuple[ParetoPoint, ...]:
        """All candidates, the fastest first."""
        return tuple(sorted((*self.candidates, *self.concurrent), key=lambda point: point.cost_s.value))

    def choice(self) -> Choice:
        """Return the best of the candidates, or of the finalists if there are any."""
        choice = pareto.choose(self.candidates, self.bound)
        choice = pareto.choose_among_finalists(choice, self.finalists, self.bound)
        return replace(pareto.prefer_streams(choice, self.concurrent), front=pareto.front(self.points))
