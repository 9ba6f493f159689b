"""``rbench run``: every network x precision x runtime x batch, one after another, each in a fresh process and a row."""

from __future__ import annotations

import contextlib
import re
import tempfile
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import accuracy, child
from benchmarks.accuracy import Predictions
from benchmarks.environment import Environment, environment
from benchmarks.job import Job, Outcome, one_line
from benchmarks.measure import Measurement, Plan
from benchmarks.request import Listener, Request, completed, selected
from benchmarks.results import Row
from benchmarks.rows import Configuration, Reference, finished, started
from benchmarks.subjects import Refusal, Subject, pairs, subjects
from runtimes import Artifact
from runtimes.errors import BackendUnavailableError, CheckFailedError
from runtimes.processors import usable_processors


def run(request: Request, listener: Listener) -> Generator[Row, None, None]:
    """The rows, each as soon as it is measured. Closing the generator, or an interrupt, ends the worker at once.

    Raises:
        UsageError: an unknown runtime or variant, or options that contradict each other.
        RexportError: an artifact or the data cannot be read, or do not go together. All this before any measurement.
    """
    request = completed(request)
    threads = request.threads or usable_processors()
    with session(request, listener) as shared:
        for subject in subjects(request, shared.folder, listener):
            bench = Bench(shared, subject)
            for pair in pairs(subject, request):
                for batch in dict.fromkeys(request.batches or (subject.fixed_batch or 1,)):
                    yield bench.row(Configuration(pair, batch, threads, request.cuda_graphs))


def exit_code(rows: Sequence[Row], request: Request) -> int:
    """0 if all is well; 1 if a check failed, an image was unreadable or something broke; 5 if nothing at all was
    measured here, or nothing on a runtime or in a precision that was asked for.

    What a runtime cannot run beside others that can, as one precision of several, is told in its row alone.
    """
    if any(row.status in ("failed", "error") or row.unreadable for row in rows):
        return CheckFailedError.exit_code
    measured = [row for row in rows if row.status == "ok"]
    lacking = {*request.runtimes} - {row.runtime for row in measured}
    lacking |= {*request.precisions} - {row.precision for row in measured}
    if lacking or not measured:
        return BackendUnavailableError.exit_code
    return 0


@dataclass(frozen=True)
class Session:
    """What all the rows of one run share."""

    request: Request
    run: str
    taken_on: Environment
    folder: Path
    listener: Listener


@contextlib.contextmanager
def session(request: Request, listener: Listener) -> Iterator[Session]:
    """A session with a folder of its own, which is gone afterwards.

    Raises:
        UsageError: an unknown runtime.
    """
    selected(request)
    with tempfile.TemporaryDirectory(prefix="rbench-") as name:
        yield Session(request, uuid.uuid4().hex[:12], environment(), Path(name), listener)


class Bench:
    """Measures one subject, row by row, and remembers what the reference gave and which pairs have answered.

    The reference's rows come first, if the others are to be compared with them.
    """

    def __init__(self, session: Session, subject: Subject) -> None:
        self._session = session
        self._subject = subject
        self._latencies: dict[int, Measurement] = {}
        self._answers: Predictions | None = None
        self._answered: set[tuple[str, str | None]] = set()

    def row(self, configuration: Configuration) -> Row:
        """Measures it in a process of its own; blocks for seconds. A pair's answers are taken once, in its first row
        that is ok."""
        shared, pair = self._session, configuration.pair
        row = started(shared.run, shared.taken_on, shared.request, self._subject, configuration)
        if isinstance(pair.opens, Refusal):
            return replace(row, status=pair.opens.status, reason=self._without_folder(pair.opens.reason))
        key = (pair.backend.name, pair.typed.precision)
        evaluate = key not in self._answered and self._subject.weights is not None
        outcome, answers = self._measured(configuration, pair.opens, evaluate)
        outcome = replace(outcome, reason=outcome.reason and self._without_folder(outcome.reason))
        if answers is not None:
            self._answered.add(key)
        if configuration.reference:
            self._answers = self._answers or answers
            if outcome.latency is not None:
                self._latencies[configuration.batch] = outcome.latency
        return finished(row, outcome, answers, Reference(self._latencies.get(configuration.batch), self._answers))

    def _without_folder(self, reason: str) -> str:
        """The reason, with what was exported on the way named by its file alone: its folder will be gone."""
        return one_line(re.sub(rf"{re.escape(str(self._session.folder))}/[^/\s]+/", "", reason))

    def _measured(
        self, configuration: Configuration, artifact: Artifact, evaluate: bool
    ) -> tuple[Outcome, Predictions | None]:
        request, listener = self._session.request, self._session.listener
        name = _words(self._subject, configuration)
        job = Job(
            artifact=str(artifact.path.absolute()),
            runtime=configuration.pair.backend.name,
            device=request.device,
            threads=configuration.threads,
            batch=configuration.batch,
            data=self._subject.data,
            limit=request.limit,
            evaluate=evaluate,
            seed=request.seed,
            plan=Plan(duration_s=request.duration_s, max_samples=request.max_samples),
            cuda_graphs=configuration.cuda_graphs,
        )
        listener.step(name, "start")
        with tempfile.TemporaryDirectory(dir=self._session.folder) as folder:
            outcome, answers = child.run(
                job,
                Path(folder),
                lambda step: listener.step(name, step),
                request.silence_s,
                request.show_errors,
            )
            return outcome, accuracy.load(answers) if evaluate and outcome.status == "ok" else None


def _words(subject: Subject, configuration: Configuration) -> str:
    """A configuration in one line of progress."""
    pair = configuration.pair
    runtime = " ".join(filter(None, (pair.backend.name, pair.typed.precision)))
    threads = f"{configuration.threads} thread{'s' if configuration.threads > 1 else ''}"
    graphs = "" if configuration.cuda_graphs else " · no CUDA graphs"
    return f"{subject.name} · {runtime} · batch {configuration.batch} · {threads}{graphs}"
