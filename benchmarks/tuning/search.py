"""``rbench tune``: the fastest runtime, precision, thread count and batch within a bound on accuracy, as an artifact.

It measures what ``rbench run`` measures, in the same processes and rows. To end within a minute or so it does not try
everything. Each runtime and precision is evaluated once, and timed with all processors first; where it is past the
bound its other batches and thread counts are left out; fewer threads are tried at its fastest batch alone. These are
measured one after another; those that come near the best take turns at last.
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
from runtimes import Artifact, Backend
from runtimes.artifacts.artifact import manifest_path
from runtimes.errors import CheckFailedError, Reason, UsageError, quote
from runtimes.processors import usable_processors

FINALISTS, FINAL_PROCESSES = 4, 3
"""So many of the fastest are measured again side by side, in so many processes each."""

NEAR = 1.1
"""How many times as long as the fastest one's their calls may have taken: by as much one process may differ from the
next, and one minute."""

BATCHES: dict[Objective, tuple[int, ...]] = {"latency": (1,), "throughput": (1, 8, 32)}
"""That are tried if none are named."""


@dataclass(frozen=True)
class TuningGoal:
    """What is looked for.

    Attributes:
        objective: the least time of a call, or the least time of an image in a call.
        max_drop: of top-1 against fp32, a fraction; the drop's own value counts, not its interval.
        threads: to try; none means the powers of two and all that this process may use.
        out: the file to write, or a folder if it exists as one or ends in a slash; ``None`` means NAME.tuned.onnx.
        force: whether a file that is there is replaced.

    Raises:
        UsageError: a drop that no bound can be, or more threads than there are.
    """

    objective: Objective = "latency"
    max_drop: float = 0.005
    threads: tuple[int, ...] = ()
    out: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 1:
            raise UsageError(
                f"the largest drop must lie between 0 and 100 points, not be {100 * self.max_drop:g}",
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
        """To try, the largest first; a GPU's work hangs on none, so that there it is all of them alone."""
        usable = usable_processors()
        if device != "cpu" and not self.threads:
            return (usable,)
        powers = (2**power for power in range(usable.bit_length()))
        return tuple(sorted({*(self.threads or (*powers, usable))}, reverse=True))


@dataclass
class TuningResult:
    """What a search has found so far; whole at any moment, as an interrupt finds it.

    Attributes:
        goal: what was looked for.
        results: all of them, in their order; the reference's come first.
        candidates: those that are ok and can become an artifact.
        left_out: what was not tried and why, a line each.
        finalists: those of the candidates that came near the best and were measured again, side by side.
        labelled: whether the accuracy drop is a measured drop of top-1; else the logits' error at the export's gate.
        artifact: that was written, at the end.
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
        """Of the result that was measured last."""
        return Figures.of(self.results[-1], self.results)

    @property
    def bound(self) -> float:
        """On the accuracy drop. Without labels there is none: what is there has passed the gate."""
        return self.goal.max_drop if self.labelled else math.inf

    def choice(self) -> Choice:
        """The best of what there is; of those that were measured side by side, by that."""
        found = pareto.choose(self.candidates, self.bound)
        return pareto.choose_among_finalists(found, self.finalists) if self.finalists else found


def tune(request: BenchmarkRequest, findings: TuningResult, listener: RunListener) -> Generator[Result, None, None]:
    """The results, each as soon as it is measured, and at last the best as an artifact that opens as it was measured,
    if there is one within the bound. The findings are filled meanwhile.

    The reference is never the best: an ONNX file cannot carry it.

    Raises:
        UsageError: it is not one subject that can be tuned; the target is there; options that contradict each other.
        RexportError: as ``benchmarks.harness.run.run``; the artifact cannot be written.
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
    """As for ``rbench run``; but where there is something to choose from, what failed its gate or broke is left out,
    which is no failure of the search.

    Raises:
        CheckFailedError: all that was measured is beyond the bound.
    """
    if not findings.candidates:
        return run_exit_code(Figures.of_all(findings.results), request)
    if findings.choice().best is None:
        least = 100 * min(one.accuracy_drop.value for one in findings.candidates)
        raise CheckFailedError(
            f"nothing is within a drop of {100 * findings.bound:.2f} points: the least is {least:.2f}",
            code="nothing-within-bound",
            hint="--max-drop allows more",
        )
    return run_exit_code([each for each in Figures.of_all(findings.results) if each.result.status == "ok"], request)


def _check(request: BenchmarkRequest, goal: TuningGoal) -> None:
    """Raises UsageError for what cannot be tuned, before anything is exported."""
    if len(request.subjects) != 1:
        raise UsageError(
            f"one network is tuned at a time, not {len(request.subjects)}", code="tuning-needs-one-subject"
        )
    if goal.objective == "latency" and len(set(request.batches)) > 1:
        raise UsageError(
            "the latencies of different batches cannot be compared",
            code="batches-not-comparable",
            hint="one --batch, or --objective throughput",
        )
    backends = select_backends(request)
    reference = backends[0]
    for backend in backends:
        if backend.name in request.backends and _opens_reference_only(backend, reference):
            raise UsageError(
                f"backend {backend.name} is never chosen: no tuned file can carry it",
                code="backend-not-tunable",
                hint="rbench run measures it",
            )
    name = request.subjects[0]
    if name in VARIANTS or not Path(name).is_file():
        return
    artifact = Artifact.read(name)
    if artifact.manifest is None:
        raise UsageError(
            "it has no manifest that could keep the best options",
            code="tuning-needs-manifest",
            path=artifact.path,
            hint=f"copy {quote(manifest_path(artifact.path).name)} beside it",
        )
    if artifact.format.name in reference.formats:
        raise UsageError(
            f"a {artifact.format.name} file cannot be tuned",
            code="format-not-tunable",
            path=artifact.path,
            hint="name the variant or its ONNX file",
        )


def _opens_reference_only(backend: Backend, reference: Backend) -> bool:
    """Whether a backend opens nothing but what the reference does, which no tuned file can be."""
    return set(backend.formats) <= set(reference.formats)


def _portable(subject: Subject) -> Subject:
    """The subject without artifacts of several files: copies of their weights would bear the same names."""
    reason = Reason("weights-external", "its weights lie in files of their own, which a tuned artifact cannot carry")

    def with_one_file(typed: PrecisionVariant) -> PrecisionVariant:
        manifest = typed.made.manifest if isinstance(typed.made, Artifact) else None
        return replace(typed, made=Refusal("skipped", reason)) if manifest and manifest.external else typed

    return replace(subject, typed=tuple(map(with_one_file, subject.typed)))


class TuningSearch:
    """The order in which configurations are tried, and what is found of them."""

    def __init__(self, subject: Subject, request: BenchmarkRequest, findings: TuningResult) -> None:
        self._subject = subject
        self._findings = findings
        self._reference, *others = pairs(subject, request)
        alike = self._reference.backend
        exported = (pair for pair in others if pair.typed is not subject.reference)
        self._pairs = [pair for pair in exported if not _opens_reference_only(pair.backend, alike)]
        self._threads = findings.goal.thread_counts(request.device)
        self._cuda_graphs = request.cuda_graphs
        self._processes = max(request.processes or 1, FINAL_PROCESSES)
        default = (subject.fixed_batch,) if subject.fixed_batch else BATCHES[findings.goal.objective]
        self._batches = tuple(dict.fromkeys(request.batches or default))
        self._left = 0  # trials that may still come, the last one of all side by side among them

    def trials(self) -> Iterator[Trial]:
        """What is measured, in its order. The results of each must be among the findings before the next is asked
        for."""
        yield from self.one_by_one()
        yield from self.finals()

    def plan(self, request: BenchmarkRequest) -> RunPlan:
        """All trials that may come. Those of a pair that is beyond the bound are fewer."""
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
        """One configuration after another, those of the reference first."""
        findings, each = self._findings, len(self._batches) + len(self._threads) - 1
        self._left = len(self._batches) + len(self._pairs) * each + 1
        for batch in self._batches:
            yield self._trial(self._reference, batch, self._threads[0])
            findings.labelled = findings.labelled or findings.latest.top1 is not None
        for number, pair in enumerate(self._pairs):
            self._left = (len(self._pairs) - number) * each + 1
            yield from self._try_pair(pair)
        if len(self._batches) > 1 and len(self._threads) > 1:
            findings.left_out.append("fewer threads were tried at each one's fastest batch alone")

    def _try_pair(self, pair: Pair) -> Iterator[Trial]:
        """All processors first, at every batch; then fewer, at the batch that was the fastest."""
        findings = self._findings
        yield self._trial(pair, self._batches[0], self._threads[0])
        if findings.latest.result.status != "ok":
            return
        accuracy_drop = self._accuracy_drop(pair, findings.latest)
        timed = [self._add_candidate(accuracy_drop)]
        if accuracy_drop.value > findings.bound:
            name = f"{pair.backend.name} {pair.typed.precision}"
            findings.left_out.append(f"{name}: beyond the bound, so its other batches and threads were not tried")
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
        return Trial(self._subject, (configuration,), later_s=(0.0,) * self._left)

    def finals(self) -> Iterator[Trial]:
        """Those that come near the best again, side by side: one after another each met moments of its own."""
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
        yield Trial(self._subject, tuple(configurations), self._processes)
        settled = {}
        for candidate, result in zip(ordered, findings.results[-len(ordered) :], strict=True):
            figures = Figures.of(result, findings.results)
            again = pareto.candidate(figures, findings.goal.objective, candidate.accuracy_drop)
            if result.status == "ok" and again is not None:
                settled[id(candidate)] = again
        findings.candidates[:] = [settled.get(id(candidate), candidate) for candidate in findings.candidates]
        findings.finalists[:] = settled.values()

    def _add_candidate(self, accuracy_drop: Estimate) -> ParetoPoint | None:
        """The result that was measured last, if it can be one."""
        findings, latest = self._findings, self._findings.latest
        candidate = pareto.candidate(latest, findings.goal.objective, accuracy_drop)
        if latest.result.status != "ok" or candidate is None:
            return None
        findings.candidates.append(candidate)
        return candidate

    def _accuracy_drop(self, pair: Pair, figures: Figures) -> Estimate:
        """What a pair gives away against fp32, from its result with the predictions."""
        if self._findings.labelled and figures.top1_change is not None:
            return negate(figures.top1_change)
        gate = pair.opens.manifest.gate if isinstance(pair.opens, Artifact) and pair.opens.manifest else None
        error = 0.0 if gate is None else gate.error
        return Estimate(error)

    def artifact_of(self, candidate: ParetoPoint) -> Artifact:
        """What the candidate opened."""
        precision = candidate.figures.result.identity.precision
        opened = (pair.opens for pair in self._pairs if pair.typed.precision == precision)
        return next(artifact for artifact in opened if isinstance(artifact, Artifact))
