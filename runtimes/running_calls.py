"""``RunningCalls``: a runtime that is closed waits for the calls that other threads are running."""

from __future__ import annotations

import os
import threading

from runtimes.errors import UsageError


class RunningCalls:
    """A counter of running calls. Closing waits for running calls, and later calls raise an error.

    Each call of the model enters and leaves this context manager once, in one thread. The code is kept plain for
    speed: a generator-based context manager would cost several times as much. A call that another thread ends is
    counted with ``begin`` and ``end``.

    An interrupt can come between the count of a call and its block, which then counts for ever. So calls are counted by
    thread, and the thread that closes is in none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._threads: dict[int, int] = {}
        self._begun = 0
        self._closed = False
        self._finishing = False
        self._process = os.getpid()

    def __enter__(self) -> None:
        self._require_own_process()
        thread = threading.get_ident()
        with self._lock:
            if self._may_begin():
                self._threads[thread] = self._threads.get(thread, 0) + 1
                return
        _wait_for_the_end()

    def __exit__(self, *_: object) -> None:
        thread = threading.get_ident()
        with self._lock:
            others = self._threads.pop(thread, 1) - 1
            if others:
                self._threads[thread] = others
            self._tell()

    def begin(self) -> None:
        """Count a call until ``end``, which any thread calls once.

        Raises:
            UsageError: The runtime is closed, or was opened before a fork.
        """
        self._require_own_process()
        with self._lock:
            if self._may_begin():
                self._begun += 1
                return
        _wait_for_the_end()

    def end(self, *_: object) -> None:
        """End a call that ``begin`` counted. Any arguments are ignored, so that this can be a callback."""
        with self._lock:
            self._begun -= 1
            self._tell()

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                f"the runtime was opened in process {self._process} and cannot be used in the forked process "
                f"{os.getpid()}",
                code="runtime-in-fork",
                hint="call runtimes.open in the child process",
            )

    def _may_begin(self) -> bool:
        """Return whether a call may run, or has to wait for the end of the process. The caller holds the lock."""
        if self._closed:
            raise UsageError(
                "the runtime is closed", code="runtime-closed", hint="open the artifact again with runtimes.open"
            )
        return not (self._finishing and threading.current_thread().daemon)

    def _tell(self) -> None:
        if self._closed or self._finishing:
            self._ended.notify_all()

    def _wait_for_calls(self, limit_s: float | None = None) -> None:
        """Wait for the running calls. The caller holds the lock, and is in no call."""
        self._threads.pop(threading.get_ident(), None)
        self._ended.wait_for(lambda: not self._threads and not self._begun, limit_s)

    def close(self) -> bool:
        """Refuse new calls, wait for the running ones, and return whether the model has to be freed.

        In a forked process the result is false: the model belongs to the parent process, and calls that were running
        during the fork never end in the child.
        """
        if os.getpid() != self._process:
            return False
        with self._lock:
            first, self._closed = not self._closed, True
            self._wait_for_calls()
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
            self._wait_for_calls(FINISH_LIMIT_S)


def _wait_for_the_end() -> None:
    """Wait for the end of the process."""
    threading.Event().wait()


FINISH_LIMIT_S = 60.0
"""The seconds that the end of a process waits for running calls of daemon threads."""
