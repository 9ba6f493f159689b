"""``rbench run``: every network x batch, and of each all runtimes and precisions side by side; a row for each."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.accuracy import predictions
from benchmarks.accuracy.predictions import Predictions
from benchmarks.analysis.figures import Reference, RowContext, finish_row, start_row
from benchmarks.format import one_line
from benchmarks.harness import scheduler
from benchmarks.harness.scheduler import Method, Progress, ScheduledJob
from benchmarks.harness.subjects import pairs, subjects
from benchmarks.machine.environment import Environment, environment
from benchmarks.process.job import Job, ProcessOutcomes
from benchmarks.records.plan import Plan
from benchmarks.records.request import BenchmarkRequest, RunListener, complete_request, select_backends
from benchmarks.records.result import Row
from benchmarks.records.subject import Configuration, Refusal, Subject
from benchmarks.roofline import ceilings
from benchmarks.roofline.ceilings import Ceilings
from benchmarks.roofline.graph_cost import cost_of
from runtimes import Artifact
from runtimes.errors import BackendUnavailableError, CheckFailedError
from runtimes.processors import usable_processors


def run(request: BenchmarkRequest, listener: RunListener) -> Generator[Row, None, None]:
    """The rows, those of one network and batch together as soon as they are measured. Closing the generator, or an
    interrupt, ends the workers at once; an interrupt gives the rows of the processes that were through, first.

    Raises:
        UsageError: an unknown runtime or variant, or options that contradict each other.
        RexportError: an artifact or the data cannot be read, or do not go together. All this before any measurement.
    """
    request = complete_request(request)
    threads = request.threads or usable_processors()
    with session(request, listener) as shared:
        found = subjects(request, shared.folder, listener)
        shared = with_ceilings(shared)
        fields = [(subject, batch) for subject in found for batch in _batches(request, subject)]
        benches = {subject.name: Bench(shared, subject) for subject in found}
        for number, (subject, batch) in enumerate(fields):
            together = [Configuration(pair, batch, threads, request.cuda_graphs) for pair in pairs(subject, request)]
            yield from benches[subject.name].rows(together, later=len(fields) - number - 1)


def _batches(request: BenchmarkRequest, subject: Subject) -> tuple[int, ...]:
    return tuple(dict.fromkeys(request.batches or (subject.fixed_batch or 1,)))


def exit_code(rows: Sequence[Row], request: BenchmarkRequest) -> int:
    """0 if all is well; 1 if a check failed, an image was unreadable, something broke or, where that is asked for, the
    machine was not quiet, or nobody looked; 5 if nothing at all was measured here, or nothing on a runtime or in a
    precision that was asked for.

    What a runtime cannot run beside others that can, as one precision of several, is told in its row alone.
    """
    if any(row.status in ("failed", "error") or row.unreadable for row in rows):
        return CheckFailedError.exit_code
    measured = [row for row in rows if row.status == "ok"]
    if request.strict and not all(map(_is_undisturbed, measured)):
        return CheckFailedError.exit_code
    lacking = {*request.backends} - {row.runtime for row in measured}
    lacking |= {*request.precisions} - {row.precision for row in measured}
    if lacking or not measured:
        return BackendUnavailableError.exit_code
    return 0


def _is_undisturbed(row: Row) -> bool:
    """Whether the machine was quiet. Cold starts are not judged: they watch nothing but themselves."""
    return row.disturbances == () or (row.load is not None and row.load.shape == "cold")


@dataclass(frozen=True)
class RunContext:
    """What all the rows of one run share. ``began_s`` by ``time.monotonic``; ``ceilings`` where they were measured."""

    request: BenchmarkRequest
    run: str
    taken_on: Environment
    folder: Path
    listener: RunListener
    began_s: float
    ceilings: Ceilings | None = None


@contextlib.contextmanager
def session(request: BenchmarkRequest, listener: RunListener) -> Iterator[RunContext]:
    """A session with a folder of its own, which is gone afterwards.

    Raises:
        UsageError: an unknown runtime.
    """
    select_backends(request)
    with tempfile.TemporaryDirectory(prefix="rbench-") as name:
        yield RunContext(request, uuid.uuid4().hex[:12], environment(), Path(name), listener, time.monotonic())


def with_ceilings(session: RunContext) -> RunContext:
    """The session with the machine's ceilings, where they are wanted; blocks for some seconds."""
    request, listener = session.request, session.listener
    if not request.roofline:
        return session
    listener.step("the machine's ceilings", "matrix products and copies")
    found = ceilings.measure_ceilings(request.threads or usable_processors(), request.device)
    if found.missing is not None:
        listener.notice(f"no roofline: {found.missing}")
    return replace(session, ceilings=found)


class Bench:
    """Measures one subject, field by field, and remembers what the reference gave and which pairs have answered."""

    def __init__(self, session: RunContext, subject: Subject) -> None:
        self._session = session
        self._subject = subject
        self._references: dict[int, Reference] = {}
        self._answers: Predictions | None = None
        self._answered: set[tuple[str, str | None]] = set()
        self._fields = 0

    def row(self, configuration: Configuration) -> Row:
        """Measures one configuration by itself; blocks for seconds. It is compared with what the reference gave before,
        if that was measured."""
        (row,) = self.rows([configuration], later=None)
        return row

    def rows(
        self, configurations: Sequence[Configuration], later: int | None = 0, processes: int | None = None
    ) -> Iterator[Row]:
        """Measures them side by side, in processes of their own; blocks for a while. A pair's answers are taken once,
        in its first row that is ok. ``later`` is how many such fields are still to come, ``None`` where nobody knows.
        ``processes`` where it is not what was asked for.

        An interrupt, or the end of the process that was asked for, gives the rows of the processes that were through,
        and comes through itself.
        """
        entries = {place: self._entry(one) for place, one in enumerate(configurations) if not _is_refused(one)}
        found = [ProcessOutcomes() for _ in entries]
        ending: KeyboardInterrupt | SystemExit | None = None
        self._fields += 1
        method = self._method() if processes is None else replace(self._method(), processes=processes)
        with tempfile.TemporaryDirectory(dir=self._session.folder) as folder:
            try:
                for so_far in scheduler.gather(
                    list(entries.values()), method, Path(folder), self._pass_progress_on(later)
                ):
                    found = so_far
            except (KeyboardInterrupt, SystemExit) as error:
                ending = error
            gathered = dict(zip(entries, found, strict=True))
            self._remember(configurations, gathered)
            for place, configuration in enumerate(configurations):
                if ending is None or (place in gathered and gathered[place].outcomes):
                    yield self._row(configuration, gathered.get(place), method)
        if ending is not None:
            raise ending

    def _method(self) -> Method:
        request = self._session.request
        return Method(
            duration_s=request.duration_s,
            processes=request.processes,
            budget_s=request.budget_s,
            rounds=request.rounds,
            max_samples=request.max_samples,
            seed=request.seed,
            silence_s=request.silence_s,
            show_errors=request.show_errors,
        )

    def _pass_progress_on(self, later: int | None) -> Callable[[Progress], None]:
        """Passes on how far it is; ``later`` fields that are still to come will take as long. Where nobody knows how
        many there are, how long it takes is for the caller to tell."""
        listener, subject = self._session.listener, self._subject.name

        def report(told: Progress) -> None:
            if later is not None:
                left_s = None
                if told.left_s is not None and told.whole_s is not None:
                    left_s = told.left_s + later * told.whole_s
                listener.left(left_s)
            listener.step(f"{subject} · {told.name}" if told.name else subject, told.step)

        return report

    def _entry(self, configuration: Configuration) -> ScheduledJob:
        request, pair = self._session.request, configuration.pair
        assert isinstance(pair.opens, Artifact)
        job = Job(
            artifact=str(pair.opens.path.absolute()),
            runtime=pair.backend.name,
            device=request.device,
            threads=configuration.threads,
            batch=configuration.batch,
            data=self._subject.data,
            limit=request.limit,
            evaluate=_key(configuration) not in self._answered and self._subject.weights is not None,
            seed=request.seed,
            plan=Plan(max_samples=request.max_samples),
            cuda_graphs=configuration.cuda_graphs,
            began_s=self._session.began_s,
        )
        return ScheduledJob(_describe_configuration(configuration), job)

    def _remember(self, configurations: Sequence[Configuration], gathered: Mapping[int, ProcessOutcomes]) -> None:
        """What the others are compared with, and who has answered."""
        for place, one in gathered.items():
            configuration = configurations[place]
            if not (one.sound and one.outcomes):
                continue
            answers = _load_predictions(one)
            if answers is not None:
                self._answered.add(_key(configuration))
            if configuration.reference:
                self._answers = self._answers or answers
                sittings = tuple(outcome.sitting for outcome in one.outcomes if outcome.sitting is not None)
                self._references[configuration.batch] = Reference(
                    sittings, self._answers, None if one.alone else self._fields
                )

    def _row(self, configuration: Configuration, gathered: ProcessOutcomes | None, method: Method) -> Row:
        shared, pair = self._session, configuration.pair
        row = start_row(shared.run, shared.taken_on, shared.request, self._subject, configuration)
        alone = gathered is not None and gathered.alone
        row = replace(row, field=None if alone else self._fields, processes=method.processes)
        if isinstance(pair.opens, Refusal):
            return replace(row, status=pair.opens.status, reason=self._without_folder(pair.opens.reason))
        if gathered is None or not gathered.outcomes:
            return replace(row, status="error", reason="it was not measured")
        answers = (
            predictions.load(gathered.predictions) if gathered.predictions and gathered.predictions.exists() else None
        )
        manifest = pair.opens.manifest
        context = RowContext(
            reference=self._references.get(configuration.batch, Reference(predictions=self._answers)),
            labels=None if manifest is None else manifest.labels,
            cost=cost_of(pair.opens, configuration.batch),
            ceilings=shared.ceilings,
        )
        row = finish_row(row, gathered, answers, context)
        return replace(row, reason=row.reason and self._without_folder(row.reason))

    def _without_folder(self, reason: str) -> str:
        """The reason, with what was exported on the way named by its file alone: its folder will be gone."""
        return one_line(re.sub(rf"{re.escape(str(self._session.folder))}/[^/\s]+/", "", reason))


def _is_refused(configuration: Configuration) -> bool:
    return isinstance(configuration.pair.opens, Refusal)


def _key(configuration: Configuration) -> tuple[str, str | None]:
    return configuration.pair.backend.name, configuration.pair.typed.precision


def _load_predictions(gathered: ProcessOutcomes) -> Predictions | None:
    place = gathered.predictions
    return predictions.load(place) if place is not None and place.exists() else None


def _describe_configuration(configuration: Configuration) -> str:
    """A configuration in one line of progress."""
    pair = configuration.pair
    runtime = " ".join(filter(None, (pair.backend.name, pair.typed.precision)))
    threads = f"{configuration.threads} thread{'s' if configuration.threads > 1 else ''}"
    graphs = "" if configuration.cuda_graphs else " · no CUDA graphs"
    return f"{runtime} · batch {configuration.batch} · {threads}{graphs}"
