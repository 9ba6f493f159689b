"""``rbench tune``: the fastest runtime, precision, thread count and batch within a bound on accuracy, as an artifact.

It measures what ``rbench run`` measures, in the same processes and rows. To end within a minute or so it does not try
everything. Each runtime and precision is evaluated once, and timed with all processors first; where it is past the
bound its other batches and thread counts are left out; fewer threads are tried at its fastest batch alone. These are
measured one after another; those that come near the best take turns at last.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.harness.bench import Bench, session
from benchmarks.harness.bench import exit_code as run_exit_code
from benchmarks.harness.subjects import pairs, subjects
from benchmarks.records.request import BenchmarkRequest, RunListener, select_backends
from benchmarks.records.result import Row
from benchmarks.records.subject import Configuration, Pair, Refusal, Subject
from benchmarks.tuning import pareto
from benchmarks.tuning.artifact import copy_with_tuning, target_of, tuning_of
from benchmarks.tuning.pareto import Choice, Objective, ParetoPoint
from exporter.models.variants import VARIANTS
from exporter.precision.table import PRECISIONS
from exporter.proportions import Interval
from runtimes import Artifact, Backend
from runtimes.errors import CheckFailedError, UsageError
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
            raise UsageError(f"the largest drop must lie between 0 and 100 points, not be {100 * self.max_drop:g}")
        usable = usable_processors()
        for number in self.threads:
            if not 1 <= number <= usable:
                raise UsageError(f"threads must lie between 1 and the {usable} that this process may use, not {number}")

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
        rows: all of them, in their order; the reference's come first.
        candidates: the rows that are ok and can become an artifact.
        left_out: what was not tried and why, a line each.
        finalists: those of the candidates that came near the best and were measured again, side by side.
        labelled: whether the accuracy drop is a measured drop of top-1; else the logits' error at the export's gate.
    """

    goal: TuningGoal
    rows: list[Row] = field(default_factory=list)
    candidates: list[ParetoPoint] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    finalists: list[ParetoPoint] = field(default_factory=list)
    labelled: bool = False

    @property
    def bound(self) -> float:
        """On the accuracy drop. Without labels there is none: what is there has passed the gate."""
        return self.goal.max_drop if self.labelled else math.inf

    def choice(self) -> Choice:
        """The best of what there is; of those that were measured side by side, by that."""
        found = pareto.choose(self.candidates, self.bound)
        return pareto.choose_among_finalists(found, self.finalists) if self.finalists else found


def tune(
    request: BenchmarkRequest, findings: TuningResult, listener: RunListener, heard: Callable[[Row], None]
) -> Artifact | None:
    """Measures, and writes the best as an artifact that opens as it was measured; ``None`` if nothing is within the
    bound. Blocks until it is done; the findings are filled meanwhile, and ``heard`` is told each row.

    The reference is never the best: an ONNX file cannot carry it.

    Raises:
        UsageError: it is not one subject that can be tuned; the target is there; options that contradict each other.
        RexportError: as ``benchmarks.harness.bench.run``; the artifact cannot be written.
    """
    goal = findings.goal
    request = replace(request, precisions=request.precisions or tuple(PRECISIONS))
    _check(request, goal)
    with session(request, listener) as shared:
        target = target_of(request.subjects[0], goal.out, goal.force)
        (subject,) = subjects(request, shared.folder, listener)
        search = _TuningSearch(Bench(shared, subject), _portable(subject), request, findings, listener.left)
        for row in itertools.chain(search.rows(), search.finals()):
            heard(row)
        best = findings.choice().best
        if best is None:
            return None
        listener.step(subject.name, "writing the artifact")
        return copy_with_tuning(search.artifact_of(best), target, tuning_of(best, goal.objective))


def exit_code(findings: TuningResult, request: BenchmarkRequest) -> int:
    """As for ``rbench run``; but where there is something to choose from, what failed its gate or broke is left out,
    which is no failure of the search.

    Raises:
        CheckFailedError: all that was measured is beyond the bound.
    """
    if not findings.candidates:
        return run_exit_code(findings.rows, request)
    if findings.choice().best is None:
        least = 100 * min(one.accuracy_drop for one in findings.candidates)
        raise CheckFailedError(
            f"nothing is within a drop of {100 * findings.bound:.2f} points: the least is {least:.2f}",
            hint="--max-drop allows more",
        )
    return run_exit_code([row for row in findings.rows if row.status == "ok"], request)


def _check(request: BenchmarkRequest, goal: TuningGoal) -> None:
    """Raises UsageError for what cannot be tuned, before anything is exported."""
    if len(request.subjects) != 1:
        raise UsageError(f"one network is tuned at a time, not {len(request.subjects)}")
    if goal.objective == "latency" and len(set(request.batches)) > 1:
        raise UsageError(
            "the latencies of different batches cannot be compared", hint="one --batch, or --objective throughput"
        )
    reference, *others = select_backends(request)
    fixed = {backend.name for backend in (reference, *others) if _opens_reference_only(backend, reference)}
    for name in request.backends:
        if name in fixed:
            raise UsageError(
                f"runtime {name} is never chosen: no tuned file can carry it", hint="rbench run measures it"
            )
    name = request.subjects[0]
    if name in VARIANTS or not Path(name).is_file():
        return
    artifact = Artifact.read(name)
    if artifact.manifest is None:
        raise UsageError("it has no manifest that could keep the best options", path=artifact.path)
    if artifact.format.name in reference.formats:
        raise UsageError(
            f"a {artifact.format.name} file cannot be tuned",
            path=artifact.path,
            hint="name the variant or its ONNX file",
        )


def _opens_reference_only(backend: Backend, reference: Backend) -> bool:
    """Whether a backend opens nothing but what the reference does, which no tuned file can be."""
    return set(backend.formats) <= set(reference.formats)


def _portable(subject: Subject) -> Subject:
    """The subject without artifacts of several files: copies of their weights would bear the same names."""
    reason = "its weights lie in files of their own, which a tuned artifact cannot carry"
    return replace(
        subject,
        typed=tuple(
            replace(typed, made=Refusal("skipped", reason))
            if isinstance(typed.made, Artifact) and typed.made.manifest is not None and typed.made.manifest.external
            else typed
            for typed in subject.typed
        ),
    )


class _TuningSearch:
    """The order in which configurations are tried, and what is found of them."""

    def __init__(
        self,
        bench: Bench,
        subject: Subject,
        request: BenchmarkRequest,
        findings: TuningResult,
        left: Callable[[float | None], None],
    ) -> None:
        """``left`` is told how many seconds it still takes."""
        self._bench = bench
        self._subject = subject
        self._findings = findings
        self._reference, *others = pairs(subject, request)
        alike = self._reference.backend
        self._pairs = [
            pair
            for pair in others
            if pair.typed is not subject.reference and not _opens_reference_only(pair.backend, alike)
        ]
        self._threads = findings.goal.thread_counts(request.device)
        self._cuda_graphs = request.cuda_graphs
        self._processes = max(request.processes or 1, FINAL_PROCESSES)
        default = (subject.fixed_batch,) if subject.fixed_batch else BATCHES[findings.goal.objective]
        self._batches = tuple(dict.fromkeys(request.batches or default))
        self._left = left
        self._of_each = len(self._batches) + len(self._threads) - 1
        self._to_come = len(self._batches) + len(self._pairs) * self._of_each
        self._began_s = time.monotonic()

    def rows(self) -> Iterator[Row]:
        """Measures, row by row; the reference's rows come first."""
        for batch in self._batches:
            row = self._row(self._reference, batch, self._threads[0])
            self._findings.labelled = self._findings.labelled or row.top1 is not None
            yield row
        for pair in self._pairs:
            yield from self._try_pair(pair)
        if len(self._batches) > 1 and len(self._threads) > 1:
            self._findings.left_out.append("fewer threads were tried at each one's fastest batch alone")

    def _try_pair(self, pair: Pair) -> Iterator[Row]:
        """All processors first, at every batch; then fewer, at the batch that was the fastest."""
        findings = self._findings
        first = self._row(pair, self._batches[0], self._threads[0])
        yield first
        if first.status != "ok":
            self._report_fewer(self._of_each - 1)
            return
        accuracy_drop, interval = self._accuracy_drop(pair, first)
        found = [self._add_candidate(first, accuracy_drop, interval)]
        if accuracy_drop > findings.bound:
            name = f"{pair.backend.name} {pair.typed.precision}"
            findings.left_out.append(f"{name}: beyond the bound, so its other batches and threads were not tried")
            self._report_fewer(self._of_each - 1)
            return
        for batch in self._batches[1:]:
            row = self._row(pair, batch, self._threads[0])
            yield row
            found.append(self._add_candidate(row, accuracy_drop, interval))
        timed = [one for one in found if one is not None]
        if not timed:
            return
        fastest = min(timed, key=lambda one: one.cost_s).row.batch
        for threads in self._threads[1:]:
            row = self._row(pair, fastest, threads)
            yield row
            self._add_candidate(row, accuracy_drop, interval)

    def finals(self) -> Iterator[Row]:
        """Measures those that come near the best again, side by side: one after another each met moments of its own."""
        findings = self._findings
        ordered = pareto.close_to_best(findings.candidates, NEAR, findings.bound)[:FINALISTS]
        if len(ordered) < 2:
            return
        rows: list[Row] = []
        for row in self._bench.rows(list(map(self._configuration, ordered)), processes=self._processes):
            findings.rows.append(row)
            rows.append(row)
            yield row
        settled = {}
        for one, row in zip(ordered, rows, strict=False):
            again = pareto.candidate(row, findings.goal.objective, one.accuracy_drop, one.accuracy_drop_interval)
            if row.status == "ok" and again is not None:
                settled[id(one)] = again
        findings.candidates[:] = [settled.get(id(one), one) for one in findings.candidates]
        findings.finalists[:] = settled.values()

    def _configuration(self, candidate: ParetoPoint) -> Configuration:
        row = candidate.row
        named = (
            pair for pair in self._pairs if (pair.backend.name, pair.typed.precision) == (row.runtime, row.precision)
        )
        return Configuration(next(named), row.batch, row.requested_threads or row.threads, self._cuda_graphs)

    def _row(self, pair: Pair, batch: int, threads: int) -> Row:
        row = self._bench.row(Configuration(pair, batch, threads, self._cuda_graphs))
        self._findings.rows.append(row)
        self._report_fewer(1)
        return row

    def _report_fewer(self, fewer: int) -> None:
        """So many configurations fewer are to come. Each takes about as long as those that were measured."""
        self._to_come -= fewer
        measured = sum(row.status == "ok" for row in self._findings.rows)
        taken_s = time.monotonic() - self._began_s
        self._left(taken_s / measured * self._to_come if measured else None)

    def _add_candidate(self, row: Row, accuracy_drop: float, interval: Interval | None) -> ParetoPoint | None:
        findings = self._findings
        one = pareto.candidate(row, findings.goal.objective, accuracy_drop, interval) if row.status == "ok" else None
        if one is not None:
            findings.candidates.append(one)
        return one

    def _accuracy_drop(self, pair: Pair, row: Row) -> tuple[float, Interval | None]:
        """What a pair gives away against fp32, from its row with the answers."""
        if self._findings.labelled and row.drop is not None:
            return row.drop, row.drop_interval
        gate = pair.opens.manifest.gate if isinstance(pair.opens, Artifact) and pair.opens.manifest else None
        return (0.0 if gate is None else gate.error), None

    def artifact_of(self, candidate: ParetoPoint) -> Artifact:
        """What the candidate's row opened."""
        opened = (pair.opens for pair in self._pairs if pair.typed.precision == candidate.row.precision)
        return next(artifact for artifact in opened if isinstance(artifact, Artifact))
