"""The driver of a labelling job: hands shards to workers, counts, and ends a job that fails or does not move."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from runtimes.errors import CheckFailedError
from runtimes.labelling.executor import Executor
from runtimes.labelling.queue import ShardQueue
from runtimes.labelling.work import ShardReport, ShardWork, WorkerDeath

TICK_S = 0.25
"""The longest wait for a worker between two reports of progress."""

HOPELESS_IMAGES = 1000
"""The number of images without a single label after which the source or the artifact is taken to be wrong."""


@dataclass(frozen=True)
class JobProgress:
    """How far a job is.

    Attributes:
        images: The number of labelled images, including those of earlier runs and of unfinished shards.
        errors: The number of images without a label in finished shards.
        executed: The number of images in works that this run finished. Repeated work counts again.
        deaths: The number of workers that died in this run.
    """

    images: int
    errors: int
    executed: int
    deaths: int


@dataclass(frozen=True)
class JobWatch:
    """When a job ends before its last shard, and who hears of its progress.

    Attributes:
        max_errors: The largest number of images without a label.
        stall_s: The seconds without any progress after which the job ends.
        allows_all: Whether the job may end without a single label. Otherwise it ends after ``HOPELESS_IMAGES`` images.
        report: Receives the progress, several times a second.
        clock: Returns seconds.
    """

    max_errors: int
    stall_s: float
    allows_all: bool
    report: Callable[[JobProgress], None]
    clock: Callable[[], float] = time.monotonic

    def check_errors(self, images: int, errors: int) -> None:
        """Check that the job may have as many images without a label as it has.

        Args:
            images: The number of images that the job is done with, including those of earlier runs.
            errors: The number of them that have no label.

        Raises:
            CheckFailedError: More images have no label than the limit allows, or none of the first images has one.
        """
        hint = "the column error has the reasons; a larger --max-errors continues the job"
        if errors > self.max_errors:
            raise CheckFailedError(
                f"{errors:,} of {images:,} images have no label, and --max-errors allows "
                f"{self.max_errors:,} in the whole job",
                code="too-many-errors",
                hint=hint,
            )
        if errors == images >= HOPELESS_IMAGES and not self.allows_all:
            raise CheckFailedError(f"none of the first {images:,} images has a label", code="no-labels", hint=hint)


class PieceWriter(Protocol):
    """Writes the part of a shard that was halved."""

    def write_pieces(self, shard: int, pieces: list[ShardReport]) -> None:
        """Write the part of a shard.

        Args:
            shard: The number of the shard.
            pieces: All its pieces, in order.
        """

    def error_rows(self, work: ShardWork, death: WorkerDeath) -> bytes:
        """Return the rows of a piece whose images have the death of the worker as their error.

        Args:
            work: The piece.
            death: The last death that it caused.
        """


class Driver:
    """One run of a job.

    Args:
        queue: The open shards.
        executor: The workers. The caller closes it.
        writer: Writes the parts of halved shards.
        watch: When the job ends early, and who hears of its progress.
        before: The images and errors of the parts that exist already.
    """

    def __init__(
        self,
        queue: ShardQueue,
        executor: Executor,
        writer: PieceWriter,
        watch: JobWatch,
        before: JobProgress,
    ) -> None:
        self._queue = queue
        self._executor = executor
        self._writer = writer
        self._watch = watch
        self._images, self._errors = before.images, before.errors
        self._executed = self._deaths = 0
        self._submitted = 0

    def run(self) -> JobProgress:
        """Label all open shards. Blocks until the last one is written.

        Returns:
            The final progress.

        Raises:
            CheckFailedError: More images have no label than the limit allows, or no image was labelled for too long.
            RexportError: As for ``Executor.wait``.
        """
        seen, moved_s = (0, 0), self._watch.clock()
        while True:
            self._submit()
            if not self._submitted:
                return self._progress(0)
            outcome = self._executor.wait(TICK_S)
            if outcome is not None:
                self._submitted -= 1
                self._record(outcome)
                self._watch.check_errors(self._images, self._errors)
            in_progress = self._executor.images_in_progress()
            self._watch.report(self._progress(in_progress))
            if outcome is not None or (self._executed, in_progress) != seen:
                seen, moved_s = (self._executed, in_progress), self._watch.clock()
            elif self._watch.clock() - moved_s > self._watch.stall_s:
                raise self._stall_error()

    def _submit(self) -> None:
        while self._submitted < self._executor.capacity and (work := self._queue.take()) is not None:
            self._executor.submit(work)
            self._submitted += 1

    def _record(self, outcome: ShardReport | WorkerDeath) -> None:
        if isinstance(outcome, ShardReport):
            self._executed += outcome.work.images
            self._finish(outcome)
            return
        self._deaths += 1
        lost = self._queue.requeue(outcome)
        if lost is not None:
            self._finish(ShardReport(lost, lost.images, self._writer.error_rows(lost, outcome)))

    def _finish(self, report: ShardReport) -> None:
        pieces = self._queue.finish(report)
        if pieces is not None:
            self._writer.write_pieces(report.work.shard, pieces)
        self._images += report.work.images
        self._errors += report.errors

    def _progress(self, in_progress: int) -> JobProgress:
        return JobProgress(self._images + in_progress, self._errors, self._executed, self._deaths)

    def _stall_error(self) -> CheckFailedError:
        return CheckFailedError(
            f"no image was labelled for {self._watch.stall_s:g} s: {self._executor.describe_workers()}",
            code="labelling-stalled",
            hint="the same command continues the job; a larger --stall waits longer",
        )
