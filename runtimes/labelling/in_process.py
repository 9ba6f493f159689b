"""``InProcessExecutor``: shards are labelled in this process, by one thread beside that of the driver."""

from __future__ import annotations

import queue
import threading
from functools import partial

from runtimes.labelling.labeller import ShardLabeller
from runtimes.labelling.work import ShardReport, ShardWork, WorkerDeath, WorkerSettings

END_S = 10.0
"""The time for which ``close`` waits for the batch at work."""


class _CancelledError(Exception):
    """The driver has closed the executor."""


class InProcessExecutor:
    """One worker in this process, so that a crash of the worker is a crash of the driver.

    Args:
        settings: The settings of the worker.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.capacity = 2
        self._settings = settings
        self._works: queue.SimpleQueue[ShardWork | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[ShardReport | Exception] = queue.SimpleQueue()
        self._done: dict[ShardWork, int] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labeller", daemon=True)
        self._thread.start()

    def submit(self, work: ShardWork) -> None:
        """Queue a work."""
        self._done[work] = 0
        self._works.put(work)

    def wait(self, timeout_s: float) -> ShardReport | WorkerDeath | None:
        """Return the next report, or ``None`` after ``timeout_s`` seconds.

        Raises:
            RexportError: The worker raised an error.
        """
        try:
            outcome = self._outcomes.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(outcome, Exception):
            raise outcome
        del self._done[outcome.work]
        return outcome

    def images_in_progress(self) -> int:
        """Return how many images of the submitted works are done."""
        return sum(self._done.values())

    def describe_workers(self) -> str:
        """Return what the worker is doing."""
        works = [f"shard {work.shard} after {done:,} of {work.images:,} images" for work, done in self._done.items()]
        return f"the worker in this process is at {works[0] if works else 'no shard'}"

    def close(self) -> None:
        """End the thread after the batch at work. A thread that hangs is left behind."""
        self._closed.set()
        self._works.put(None)
        self._thread.join(END_S)

    def _run(self) -> None:
        try:
            with ShardLabeller.open(self._settings) as labeller:
                while (work := self._works.get()) is not None:
                    self._outcomes.put(labeller.label(work, partial(self._report, work)))
        except _CancelledError:
            pass
        except Exception as error:
            self._outcomes.put(error)

    def _report(self, work: ShardWork, done: int) -> None:
        if self._closed.is_set():
            raise _CancelledError
        self._done[work] = done
