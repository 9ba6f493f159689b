"""``AsyncCalls``: the threads behind ``Runtime.infer_async``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from runtimes.running_calls import RunningCalls

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_Result = TypeVar("_Result")


class AsyncCalls:
    """A few threads that make calls of a runtime and complete futures. They are started by the first call.

    Args:
        running: The counter of the runtime. A call counts as running from ``submit`` until its future is done.
        threads: The largest number of calls that run at the same time.
    """

    def __init__(self, running: RunningCalls, threads: int) -> None:
        self._running = running
        self._threads = threads
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, call: Callable[[], _Result]) -> Future[_Result]:
        """Make a call in one of the threads and return its future.

        Raises:
            UsageError: The runtime is closed, or was opened before a fork.
        """
        from concurrent.futures import ThreadPoolExecutor  # not at load: most runtimes need no threads

        self._running.begin()
        try:
            with self._lock:
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(self._threads, "rexport-infer")
            future = self._executor.submit(call)
        except BaseException:
            self._running.end()
            raise
        future.add_done_callback(self._running.end)  # also of a cancelled call, which does not run
        return future

    def close(self) -> None:
        """End the threads. No call may be running or waiting."""
        with self._lock:
            if self._executor is not None:
                self._executor.shutdown(wait=False)  # the last future may be closing the runtime in its callback
