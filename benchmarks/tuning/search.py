"""``rbench tune``: the fastest backend, precision, threads and batch size within an accuracy limit, as an artifact.

The search uses the processes and results of ``rbench run``. To end within a minute or so it does not try everything:

- Each backend and precision is evaluated once and timed with all processors first.
- If its accuracy is below the limit, its other batch sizes and thread counts are not tried.
- Fewer threads are tried only at its fastest batch size.
- Configurations are measured one after another. Those that are nearly as fast as the best take turns at the end.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.analysis.figures import Figures, negate
from benchmarks.harness.eta import RunPlan, workload
from benchmarks.harness.harness import Harness, Trial
from benchmarks.harness.run import exit_code as run_exit_code
from benchmarks.harness.subjects import pairs, variant_or_path
from benchmarks.records.request import (
    REFERENCE,
    BenchmarkRequest,
    Configuration,
    Pair,
    PrecisionVariant,
    Refusal,
    RunListener,
    Subject,
    select_backends,
)
from benchmarks.records.result import Estimate, Result
from benchmarks.tuning import pareto
from benchmarks.tuning.artifact import copy_with_tuning, target_of, tuning_of
from benchmarks.tuning.pareto import Choice, Objective, ParetoPoint
from exporter.models.variants import VARIANTS
from exporter.precision.table import PRECISIONS
from exporter.weights.checkpoint import is_weights_file
from runtimes import Artifact, Backend
from runtimes.artifacts.artifact import manifest_path
from runtimes.errors import CheckFailedError, Reason, UsageError, quote
from runtimes.processors import usable_processors

FINALISTS, FINAL_PROCESSES = 4, 3
"""The number of the fastest configurations that are measured again in turns, and their number of processes."""

NEAR = 1.1
"""The largest cost of a finalist, relative to the fastest. Single processes, and minutes, can differ by this factor."""

BATCHES: dict[Objective, tuple[int, ...]] = {"latency": (1,), "throughput": (1, 8, 32)}
"""The batch sizes that are tried by default."""


@dataclass(frozen=True)
class TuningGoal:
    """The goal of the search.

    Attributes:
        objective: ``latency`` for the lowest time of a call, ``throughput`` for the lowest time of an image in a call.
        max_drop: The largest decrease of top-1 accuracy against fp32, as a fraction. Only the value of the decrease
            counts, not its interval.
        threads: The thread counts to try. If empty, the powers of two and all processors that this process may use.
        out: The file to write, or a folder if it exists as one or ends in a slash; ``None`` for NAME.tuned.onnx.
        force: Whether an existing file is replaced.

    Raises:
        UsageError: ``max_drop`` or a thread count is out of range.
    """

    objective: Objective = "latency"
    max_drop: float = 0.005
    threads: tuple[int, ...] = ()
    out: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 1:
            raise UsageError(
                f"the accuracy limit is {100 * self.max_drop:g} pp, expected 0 to 100",
                code="drop-out-of-range",
            )
        usable = usable_processors()
        for number in self.threads:
            if not 1 <= number <= usable:
                raise UsageError(
                    f"threads must be between 1 and {usable}, the number of processors that this process may use, "
                    f"not {number}",
                    code="threads-out-of-range",
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
        results: All results in their order. Those of the reference come first.
        candidates: The configurations that were measured and can become the artifact.
        left_out: The configurations that were not tried and the reasons, a line each.
        finalists: The candidates that were measured again in turns.
        labelled: Whether the accuracy drop is a decrease of top-1 accuracy. Otherwise it is the error of the logits at
            the gate of the export.
        artifact: The written artifact; ``None`` until the end of the search.
    """

    goal: TuningGoal
    results: list[Result] = field(default_factory=list)
    candidates: list[ParetoPoint] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    finalists: list[ParetoPoint] = field(default_factory=list)
    labelled: bool = False
    artifact: Artifact | None = None

    @property
    def latest(self) -> Figures:
        """The figures of the last result."""
        return Figures.of(self.results[-1], self.results)

    @property
    def bound(self) -> float:
        """The largest accuracy drop. Without labels there is no limit, because the artifacts have passed the gate."""
        return self.goal.max_drop if self.labelled else math.inf

    def choice(self) -> Choice:
        """Return the best of the candidates, or of the finalists if there are any."""
        choice = pareto.choose(self.candidates, self.bound)
        return pareto.choose_among_finalists(choice, self.finalists) if self.finalists else choice


def tune(request: BenchmarkRequest, findings: TuningResult, listener: RunListener) -> Generator[Result, None, None]:
    """Yield each result as soon as it is measured. At the end, write the best configuration as an artifact.

    If no configuration is within the limit, no artifact is written. The PyTorch reference is never the best, because
    an ONNX file cannot hold it.

    Args:
        request: The request, with one subject.
        findings: The results of the search, which this function fills.
        listener: The callbacks that report the progress.

    Raises:
        UsageError: There is not exactly one subject, the subject cannot be tuned, the target exists, or options
            contradict each other.
        RexportError: As for ``benchmarks.harness.run.run``, or the artifact cannot be written.
    """
    goal = findings.goal
    request = replace(request, precisions=request.precisions or tuple(PRECISIONS), baseline=REFERENCE)
    request = replace(request, subjects=tuple(map(variant_or_path, request.subjects)))
    _check(request, goal)
    with Harness(request, listener) as harness:
        target = target_of(request.subjects[0], goal.out, goal.force)
        (subject,) = harness.make_subjects()
        search = TuningSearch(_portable(subject), request, findings)
        harness.announce(search.plan(request))
        for result in harness.measure(search.trials()):
            findings.results.append(result)
            yield result
        best = findings.choice().best
        if best is not None:
            listener.step(subject.name, "writing the artifact")
            findings.artifact = copy_with_tuning(search.artifact_of(best), target, tuning_of(best, goal.objective))


def exit_code(findings: TuningResult, request: BenchmarkRequest) -> int:
    """Return the exit code, as for ``rbench run``.

    If there are candidates, configurations that failed or broke off do not make the search fail.

    Args:
        findings: The results of the search.
        request: The request.

    Raises:
        CheckFailedError: The accuracy of every candidate is below the limit.
    """
    if not findings.candidates:
        return run_exit_code(Figures.of_all(findings.results), request)
    if findings.choice().best is None:
        least = 100 * min(candidate.accuracy_drop.value for candidate in findings.candidates)
        raise CheckFailedError(
            f"no configuration is within the limit of {100 * findings.bound:.2f} pp of top-1 accuracy: the smallest "
            f"decrease is {least:.2f} pp",
            code="nothing-within-bound",
            hint="raise --max-drop",
        )
    return run_exit_code([each for each in Figures.of_all(findings.results) if each.result.status == "ok"], request)


def _check(request: BenchmarkRequest, goal: TuningGoal) -> None:
    """Raise ``UsageError`` for a request that cannot be tuned, before anything is exported."""
    if len(request.subjects) != 1:
        raise UsageError(f"{len(request.subjects)} networks to tune, expected one", code="tuning-needs-one-subject")
    if goal.objective == "latency" and len(set(request.batches)) > 1:
        raise UsageError(
            "the latencies of different batch sizes cannot be compared",
            code="batches-not-comparable",
            hint="pass one --batch, or --objective throughput",
        )
    backends = select_backends(request)
    reference = backends[0]
    for backend in backends:
        if backend.name in request.backends and _opens_reference_only(backend, reference):
            raise UsageError(
                f"backend {backend.name} cannot be chosen, because it opens no format of a tuned file",
                code="backend-not-tunable",
                hint="measure the backend with rbench run",
            )
    name = request.subjects[0]
    if name in VARIANTS or not Path(name).is_file() or is_weights_file(name):
        return
    artifact = Artifact.read(name)
    if artifact.manifest is None:
        raise UsageError(
            "the file has no manifest to store the best options",
            code="tuning-needs-manifest",
            path=artifact.path,
            hint=f"copy {quote(manifest_path(artifact.path).name)} beside it",
        )
    if artifact.format.name in reference.formats:
        raise UsageError(
            f"a {artifact.format.name} file cannot be tuned",
            code="format-not-tunable",
            path=artifact.path,
            hint="pass the variant, the checkpoint or its ONNX file",
        )


def _opens_reference_only(backend: Backend, reference: Backend) -> bool:
    """Return whether a backend opens only formats of the reference, which a tuned file cannot have."""
    return set(backend.formats) <= set(reference.formats)


def _portable(subject: Subject) -> Subject:
    """Return the subject without artifacts of several files. Copies of the weights would have the same names."""
    reason = Reason("weights-external", "the weights are in separate files, which a tuned artifact cannot have")

    def with_one_file(typed: PrecisionVariant) -> PrecisionVariant:
        manifest = typed.made.manifest if isinstance(typed.made, Artifact) else None
        return replace(typed, made=Refusal("skipped", reason)) if manifest and manifest.external else typed

    return replace(subject, typed=tuple(map(with_one_file, subject.typed)))


class TuningSearch:
    """The order in which configurations are measured, and the candidates among them.

    Args:
        subject: The network.
        request: The request.
        findings: The results of the search, which the search reads and extends.
    """

    def __init__(self, subject: Subject, request: BenchmarkRequest, findings: TuningResult) -> None:
        self._subject = subject
        self._findings = findings
        self._reference, *others = pairs(subject, request)
        reference = self._reference.backend
        exported = (pair for pair in others if pair.typed is not subject.reference)
        self._pairs = [pair for pair in exported if not _opens_reference_only(pair.backend, reference)]
        self._threads = findings.goal.thread_counts(request.device)
        self._cuda_graphs = request.cuda_graphs
        self._processes = max(request.processes or 1, FINAL_PROCESSES)
        default = (subject.fixed_batch,) if subject.fixed_batch else BATCHES[findings.goal.objective]
        self._batches = tuple(dict.fromkeys(request.batches or default))
        self._left = 0  # trials that may still come; all finalists side by side are the last one

    def trials(self) -> Iterator[Trial]:
        """Yield all trials in their order. The results of a trial must be in the findings before the next is taken."""
        yield from self.one_by_one()
        yield from self.finals()

    def plan(self, request: BenchmarkRequest) -> RunPlan:
        """Return the plan of all trials that may come. A pair beyond the bound has fewer.

        Args:
            request: The request, whose plan gives the time of a trial.
        """
        evaluated = self._subject.weights is not None
        workloads = []
        for pair in (self._reference, *self._pairs):
            threads = (self._threads[0],) if pair is self._reference else self._threads
            for batch in self._batches:
                configuration = Configuration(pair, batch, threads[0], self._cuda_graphs)
                workloads.append(workload([configuration], evaluated and batch == self._batches[0]))
            workloads += [replace(workloads[-1], evaluated=0, threads=number) for number in threads[1:]]
        candidates = len(self._pairs) * (len(self._batches) + len(self._threads) - 1)
        again = min(FINALISTS, candidates) if candidates > 1 else 0
        finals = replace(workloads[-1], configurations=again, evaluated=0, processes=self._processes)
        return RunPlan(request, (*workloads, finals), at_most=True)

    def one_by_one(self) -> Iterator[Trial]:
        """Yield one configuration after another, those of the reference first."""
        findings, trials_of_pair = self._findings, len(self._batches) + len(self._threads) - 1
        self._left = len(self._batches) + len(self._pairs) * trials_of_pair + 1
        for batch in self._batches:
            yield self._trial(self._reference, batch, self._threads[0])
            findings.labelled = findings.labelled or findings.latest.top1 is not None
        for number, pair in enumerate(self._pairs):
            self._left = (len(self._pairs) - number) * trials_of_pair + 1
            yield from self._try_pair(pair)
        if len(self._batches) > 1 and len(self._threads) > 1:
            findings.left_out.append("fewer threads were tried only at the fastest batch size of each configuration")

    def _try_pair(self, pair: Pair) -> Iterator[Trial]:
        """Yield all batch sizes with all processors, then fewer threads at the fastest batch size."""
        findings = self._findings
        yield self._trial(pair, self._batches[0], self._threads[0])
        if findings.latest.result.status != "ok":
            return
        accuracy_drop = self._accuracy_drop(pair, findings.latest)
        timed = [self._add_candidate(accuracy_drop)]
        if not pareto.is_within(accuracy_drop, findings.bound):
            name = f"{pair.backend.name} {pair.typed.precision}"
            reason = "accuracy below the limit, so other batch sizes and thread counts were not tried"
            findings.left_out.append(f"{name}: {reason}")
            return
        for batch in self._batches[1:]:
            yield self._trial(pair, batch, self._threads[0])
            timed.append(self._add_candidate(accuracy_drop))
        fastest = min(filter(None, timed), key=lambda candidate: candidate.cost_s.value, default=None)
        if fastest is None:
            return
        batch = fastest.figures.result.identity.batch
        for threads in self._threads[1:]:
            yield self._trial(pair, batch, threads)
            self._add_candidate(accuracy_drop)

    def _trial(self, pair: Pair, batch: int, threads: int) -> Trial:
        self._left -= 1
        configuration = Configuration(pair, batch, threads, self._cuda_graphs)
        return Trial((configuration,), later_s=(0.0,) * self._left)

    def finals(self) -> Iterator[Trial]:
        """Yield a trial of the configurations that are nearly as fast as the best, which take turns.

        Before, each configuration was measured at another time, under other conditions of the machine.
        """
        findings = self._findings
        ordered = pareto.close_to_best(findings.candidates, NEAR, findings.bound)[:FINALISTS]
        if len(ordered) < 2:
            return
        pairs_by_name = {(pair.backend.name, pair.typed.precision): pair for pair in self._pairs}
        configurations = []
        for result in (candidate.figures.result for candidate in ordered):
            pair = pairs_by_name[result.identity.backend, result.identity.precision]
            threads = result.asked.threads or result.ran.threads
            configurations.append(Configuration(pair, result.identity.batch, threads, self._cuda_graphs))
        yield Trial(tuple(configurations), self._processes)
        remeasured = {}
        for candidate, result in zip(ordered, findings.results[-len(ordered) :], strict=True):
            figures = Figures.of(result, findings.results)
            again = pareto.candidate(figures, findings.goal.objective, candidate.accuracy_drop)
            if result.status == "ok" and again is not None:
                remeasured[id(candidate)] = again
        findings.candidates[:] = [remeasured.get(id(candidate), candidate) for candidate in findings.candidates]
        findings.finalists[:] = remeasured.values()

    def _add_candidate(self, accuracy_drop: Estimate) -> ParetoPoint | None:
        """Add the last result to the candidates and return it, or return ``None`` if it has no figures."""
        findings, latest = self._findings, self._findings.latest
        candidate = pareto.candidate(latest, findings.goal.objective, accuracy_drop)
        if latest.result.status != "ok" or candidate is None:
            return None
        findings.candidates.append(candidate)
        return candidate

    def _accuracy_drop(self, pair: Pair, figures: Figures) -> Estimate:
        """Return the accuracy drop of a pair against fp32, from its result with predictions."""
        if self._findings.labelled and figures.top1_change is not None:
            return negate(figures.top1_change)
        gate = pair.opens.manifest.gate if isinstance(pair.opens, Artifact) and pair.opens.manifest else None
        error = 0.0 if gate is None else gate.error
        return Estimate(error)

    def artifact_of(self, candidate: ParetoPoint) -> Artifact:
        """Return the artifact that the ``candidate`` opened."""
        precision = candidate.figures.result.identity.precision
        opened = (pair.opens for pair in self._pairs if pair.typed.precision == precision)
        return next(artifact for artifact in opened if isinstance(artifact, Artifact))
