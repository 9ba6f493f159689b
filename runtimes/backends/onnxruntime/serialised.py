"""One call at a time in the whole process, and those of one session in two threads at most."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")

TURN = threading.Lock()
"""Held by who has ONNX Runtime do anything on a GPU, opening and closing too: by one thread of the process.

While the library records a run, CUDA takes no other thread's allocations or waits, and the one that tries spoils the
recording. What is done under this lock is kept from that. What other libraries do on their own is not: as PyTorch's
allocations in other threads, which may fail, or spoil a session's first run on a new shape.
"""


class Turns:
    """Gives each call its turn. A class for runs that are recorded, since ONNX Runtime keeps what it records, and the
    handles of CUDA's libraries with it, for each thread that it meets and for as long as the session is open.

    The first thread that comes calls as it is, without a detour; the calls of all others are made in one of our own.
    """

    def __init__(self) -> None:
        self._turn = TURN
        self._first: threading.Thread | None = None
        self._other = ThreadPoolExecutor(1, "rexport-onnxruntime")

    def call(self, act: Callable[[], _Result]) -> _Result:
        """What ``act`` returns or raises."""
        me = threading.current_thread()
        if self._first is None:
            with self._turn:
                self._first = self._first or me
        return self._alone(act) if self._first is me else self._other.submit(self._alone, act).result()

    def call_here(self, act: Callable[[], _Result]) -> _Result:
        """As ``call``, in the caller's own thread, whichever it is: for what runs nothing."""
        return self._alone(act)

    def _alone(self, act: Callable[[], _Result]) -> _Result:
        with self._turn:
            return act()

    def close(self) -> None:
        """Ends the thread."""
        self._other.shutdown()
