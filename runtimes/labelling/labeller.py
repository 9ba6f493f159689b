"""``ShardLabeller``: the work of one worker. It opens the artifact and the listing once and labels shard after shard."""

from __future__ import annotations

from collections.abc import Callable

from runtimes.labelling.work import ShardReport, ShardWork, WorkerSettings


class ShardLabeller:
    """An opened artifact and the listing of a job. ``close`` frees them; so does a ``with`` statement."""

    @classmethod
    def open(cls, settings: WorkerSettings) -> ShardLabeller:
        """Open the artifact of a job and compare its digest with that of the job.

        Raises:
            ModelMismatchError: The artifact is not the one that the job began with.
            RexportError: As for ``Classifier.open``.
        """
        raise NotImplementedError

    def label(self, work: ShardWork, progress: Callable[[int], None]) -> ShardReport:
        """Label the images of a work, and write the part if it is a whole shard. Blocks.

        Args:
            work: The work.
            progress: Receives the number of images done, after each batch.

        Raises:
            ResourceError: The part cannot be written, or memory is lacking.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Free the model."""
