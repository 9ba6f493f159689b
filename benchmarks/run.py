"""``rbench run``: every artifact x runtime x batch, one after another, each in a fresh process, each a row."""

from __future__ import annotations

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
from benchmarks.request import REFERENCE, Listener, Pair, Request, Subject, completed, pairs, selected, subjects
from benchmarks.results import Row
from benchmarks.rows import Reference, finished, started
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
    selected(request)
    with tempfile.TemporaryDirectory(prefix="rbench-") as name:
        folder = Path(name)
        found = subjects(request, folder, listener)
        session = _Session(request, uuid.uuid4().hex[:12], environment(), folder, listener)
        for subject in found:
            yield from session.rows(subject, pairs(subject, request, folder, listener))


def exit_code(rows: Sequence[Row], requested: Sequence[str]) -> int:
    """0 if all is well; 1 if a check failed, an image was unreadable or something broke; 5 if what was asked for, or
    all there is, is missing here.
    """
    if any(row.status in ("failed", "error") or row.unreadable for row in rows):
        return CheckFailedError.exit_code
    asked_and_missing = any(row.status == "skipped" and row.runtime in requested for row in rows)
    if asked_and_missing or not any(row.status == "ok" for row in rows):
        return BackendUnavailableError.exit_code
    return 0


@dataclass(frozen=True)
class _Session:
    """What all the rows of one run share."""

    request: Request
    run: str
    taken_on: Environment
    folder: Path
    listener: Listener

    def rows(self, subject: Subject, pairs: Sequence[Pair]) -> Iterator[Row]:
        """All the rows of one artifact; the reference's come first. Answers are taken once for each runtime."""
        latencies: dict[int, Measurement] = {}
        answers: Predictions | None = None
        for pair in pairs:
            predictions: Predictions | None = None
            for batch in self._batches(subject):
                row = started(self.run, self.taken_on, self.request, subject, pair, batch)
                if isinstance(pair.opens, str):
                    yield replace(row, status="skipped", reason=one_line(pair.opens))
                    continue
                evaluate = predictions is None and subject.artifact.manifest is not None
                outcome, new = self._measured(subject, pair.backend.name, pair.opens, batch, evaluate)
                predictions = predictions or new
                if pair.backend.name == REFERENCE:
                    answers = answers or new
                    if outcome.latency is not None:
                        latencies[batch] = outcome.latency
                yield finished(row, outcome, new, Reference(latencies.get(batch), answers))

    def _batches(self, subject: Subject) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.request.batches)) or (subject.fixed_batch or 1,)

    def _measured(
        self, subject: Subject, runtime: str, artifact: Artifact, batch: int, evaluate: bool
    ) -> tuple[Outcome, Predictions | None]:
        name = f"{subject.name} · {runtime} · batch {batch}"
        job = Job(
            artifact=str(artifact.path.absolute()),
            runtime=runtime,
            device=self.request.device,
            threads=self.request.threads or usable_processors(),
            batch=batch,
            data=subject.data,
            limit=self.request.limit,
            evaluate=evaluate,
            seed=self.request.seed,
            plan=Plan(duration_s=self.request.duration_s),
        )
        self.listener.step(name, "start")
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            outcome, answers = child.run(
                job,
                Path(folder),
                lambda step: self.listener.step(name, step),
                self.request.silence_s,
                self.request.show_errors,
            )
            return outcome, accuracy.load(answers) if evaluate and outcome.status == "ok" else None
