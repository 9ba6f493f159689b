"""``ShardQueue``: which work is next, and what becomes of a shard that kills its workers."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable

from runtimes.labelling.job import LabellingJob
from runtimes.labelling.work import ShardReport, ShardWork, WorkerDeath

ATTEMPTS = 3
"""The number of workers that a shard or a single image may kill before it counts as the cause."""


class ShardQueue:
    """The open shards of a job.

    A shard that killed ``ATTEMPTS`` workers is halved, and each piece that kills a worker is halved again, down to one
    image. An image that kills ``ATTEMPTS`` workers gets a row with an error, which the driver makes. Workers that die
    from another cause, as a lost machine, therefore cost repeated work and never a label.

    Args:
        job: The job.
        shards: The numbers of the open shards. The iterable is read as works are taken, so it may be long.
    """

    def __init__(self, job: LabellingJob, shards: Iterable[int]) -> None:
        self._job = job
        self._fresh = iter(shards)
        self._again: deque[ShardWork] = deque()
        self._deaths: Counter[ShardWork] = Counter()
        self._pieces: dict[int, list[ShardReport]] = defaultdict(list)

    def take(self) -> ShardWork | None:
        """Return the next work, or ``None`` if none is waiting. Repeated works come first."""
        if self._again:
            return self._again.popleft()
        shard = next(self._fresh, None)
        return None if shard is None else ShardWork(shard, 0, self._job.shard_images(shard))

    def finish(self, report: ShardReport) -> list[ShardReport] | None:
        """Record a finished work.

        Returns:
            All pieces of a halved shard in order if this was its last one, else ``None``.
        """
        self._deaths.pop(report.work, None)
        if report.work.whole:
            return None
        shard = report.work.shard
        pieces = self._pieces[shard]
        pieces.append(report)
        if sum(piece.work.images for piece in pieces) < self._job.shard_images(shard):
            return None
        del self._pieces[shard]
        return sorted(pieces, key=lambda piece: piece.work)

    def requeue(self, death: WorkerDeath) -> ShardWork | None:
        """Queue the work of a dead worker again, halved if it is the likely cause.

        Returns:
            The work if it is a single image that killed ``ATTEMPTS`` workers, else ``None``. The caller then finishes
            it with a row that holds the error.
        """
        work = death.work
        self._deaths[work] += 1
        if (work.whole or work.images == 1) and self._deaths[work] < ATTEMPTS:
            self._again.append(work)
            return None
        del self._deaths[work]
        if work.images == 1:
            return ShardWork(work.shard, work.start, work.stop, whole=False)
        self._again.extend(work.halves(self._job.batch))
        return None
