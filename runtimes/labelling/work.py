"""Works, reports and deaths: messages between the driver of a labelling job and its workers, which can be pickled."""

from __future__ import annotations

from dataclasses import dataclass

from runtimes.labelling.job import LabellingJob
from runtimes.labelling.sources.opening import SourceForm


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker needs to label any shard of a job.

    Attributes:
        job: The job.
        source: The source of the images.
        artifact: The path of the model file, as the worker finds it.
        out: The output folder: an absolute path, or a URI such as ``s3://bucket/labels``.
        threads: The number of processors for one call of the network, as for ``runtimes.open``. ``None`` means all that
            the worker may use.
        decoding_threads: The largest number of threads that read and decode images, or ``None`` for the usual limit.
    """

    job: LabellingJob
    source: SourceForm
    artifact: str
    out: str
    threads: int | None = None
    decoding_threads: int | None = None


@dataclass(frozen=True, order=True)
class ShardWork:
    """Rows of one shard that a worker labels: all of them, or a piece of a shard that killed its workers.

    Attributes:
        shard: The number of the shard, from 0.
        start: The first row, counted from the first row of the shard.
        stop: The row after the last one.
        whole: Whether these are all rows of the shard. The worker then writes the part. The rows of a piece go to the
            driver, which writes the part when it has all pieces.
    """

    shard: int
    start: int
    stop: int
    whole: bool = True

    @property
    def images(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    def halves(self, batch: int) -> tuple[ShardWork, ShardWork]:
        """Return two pieces with all rows. They meet between two batches, if there are several batches.

        Args:
            batch: The number of images in one call of the network.
        """
        middle = self.start + self.images // 2
        if self.images > batch:
            middle = max(self.start + batch, middle - middle % batch)
        return (
            ShardWork(self.shard, self.start, middle, whole=False),
            ShardWork(self.shard, middle, self.stop, whole=False),
        )


@dataclass(frozen=True)
class ShardReport:
    """The outcome of a work that was completed.

    Attributes:
        work: The work.
        errors: The number of images without a label.
        rows: The rows of a piece as an Arrow IPC stream, or ``None`` for a whole shard, whose part the worker wrote.
    """

    work: ShardWork
    errors: int
    rows: bytes | None = None


@dataclass(frozen=True)
class WorkerDeath:
    """The end of a worker in the middle of a work. No row of the work is lost, as nothing of it was written.

    Attributes:
        work: The work.
        reason: The cause in words, for example "killed by SIGKILL".
    """

    work: ShardWork
    reason: str
