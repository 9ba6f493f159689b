"""``Executor``: where shards are labelled. The driver knows nothing else about processes, machines and Ray."""

from __future__ import annotations

from typing import Protocol

from runtimes.labelling.work import ShardReport, ShardWork, WorkerDeath


class Executor(Protocol):
    """Workers that label shards. All methods are called by one thread, that of the driver.

    A worker opens the artifact once, with ``runtimes.labelling.labeller.ShardLabeller``, and labels one work after the
    other. The executor replaces a worker that died.

    Attributes:
        capacity: The number of works that may be submitted and not yet returned by ``wait``. Twice the number of
            workers keeps each of them busy.
    """

    capacity: int

    def submit(self, work: ShardWork) -> None:
        """Queue a work. Does not block. The driver never exceeds ``capacity``."""

    def wait(self, timeout_s: float) -> ShardReport | WorkerDeath | None:
        """Return the next finished work, in any order, or ``None`` after ``timeout_s`` seconds.

        Each submitted work is returned exactly once: as a report, or as the death of the worker that had begun it. A
        work that a dead worker had not begun is given to another worker.

        Raises:
            RexportError: A worker reported an error that no other worker would avoid: the artifact is broken, the disk
                is full, a library is missing. Or the workers die before they begin a work.
        """

    def images_in_progress(self) -> int:
        """Return how many images of the submitted works are done already, as far as that is known."""

    def describe_workers(self) -> str:
        """Return what the workers are doing and which resources they wait for, for the message of a stalled job."""

    def close(self) -> None:
        """End the workers, also in the middle of a work. Waits for seconds at most."""
