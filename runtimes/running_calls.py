"""``RunningCalls``: a runtime that is closed waits for the calls that other threads are running."""

from __future__ import annotations

import os
import threading

from runtimes.errors import UsageError


class RunningCalls:
    """A counter of running calls. Closing waits for running calls, and later calls raise an error.

    Each call of the model enters and leaves this context manager once, from any thread. The code is kept plain for
    speed: a generator-based context manager would cost several times as much.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._running = 0
        self._closed = False
        self._finishing = False
        self._process = os.getpid()

    def __enter__(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                f"the runtime was opened in process {self._process} and cannot be used in the forked process "
                f"{os.getpid()}",
                code="runtime-in-fork",
                hint="call runtimes.open in the child process",
            )
        with self._lock:
            if self._closed:
                raise UsageError(
                    "the runtime is closed", code="runtime-closed", hint="open the artifact again with runtimes.open"
                )
            if not (self._finishing and threading.current_thread().daemon):
                self._running += 1
                return
        threading.Event().wait()  # for the end of the process

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if self._closed or self._finishing:
                self._ended.notify_all()

    def close(self) -> bool:
        """Refuse new calls, wait for the running ones, and return whether the model has to be freed.

        In a forked process the result is false: the model belongs to the parent process, and calls that were running
        during the fork never end in the child.
        """
        if os.getpid() != self._process:
            return False
        with self._lock:
            first, self._closed = not self._closed, True
            self._ended.wait_for(lambda: self._running == 0)
            return first

    def finish(self) -> None:
        """Wait for running calls at the end of the process, up to ``FINISH_LIMIT_S``.

        From then on, a call in a daemon thread never starts and never returns. Other threads have ended by then, except
        the main one, which may still call.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            self._finishing = True
            self._ended.wait_for(lambda: self._running == 0, FINISH_LIMIT_S)


FINISH_LIMIT_S = 60.0
"""The seconds that the end of a process waits for running calls of daemon threads."""
