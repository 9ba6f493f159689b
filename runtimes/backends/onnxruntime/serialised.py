"""Serial execution of ONNX Runtime's GPU calls: one at a time in the process, and in at most two threads a session."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")

GPU_LOCK = threading.Lock()
"""The lock for all work of ONNX Runtime on a GPU, including opening and closing sessions.

While the library records a run, CUDA allows no allocations or waits in other threads: a thread that tries makes the
recording fail. This lock prevents that for ONNX Runtime. The recordings and allocations of the other backends are kept
apart by ``runtimes.tensors.capture``. Other libraries of an app take neither lock: their allocations in another thread
may fail, or end the recording, and the session then runs that shape without one.
"""


class SerialCalls:
    """Serial execution of one session's calls, in at most two threads.

    ONNX Runtime keeps recordings and handles of CUDA libraries for each thread that calls a session, until the session
    is closed. Therefore only the first calling thread calls the session directly. The calls of all other threads run in
    one thread of this class.
    """

    def __init__(self) -> None:
        self._lock = GPU_LOCK
        self._first: threading.Thread | None = None
        self._executor = ThreadPoolExecutor(1, "rexport-onnxruntime")

    def call(self, act: Callable[[], _Result]) -> _Result:
        """Call ``act`` under the lock and return its result or raise its error."""
        current = threading.current_thread()
        if self._first is None:
            with self._lock:
                self._first = self._first or current
        return self._locked(act) if self._first is current else self._executor.submit(self._locked, act).result()

    def call_here(self, act: Callable[[], _Result]) -> _Result:
        """Call ``act`` under the lock in the caller's thread. Only for work that does not run the session."""
        return self._locked(act)

    def _locked(self, act: Callable[[], _Result]) -> _Result:
        with self._lock:
            return act()

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown()
