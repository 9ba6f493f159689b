"""The lock around whatever records CUDA work in this process, or would spoil another's recording.

CUDA records the work of a stream in one of two ways. ONNX Runtime uses the global mode: while it records, a call of any
thread that allocates or frees memory fails, and ends the recording. PyTorch and the TensorRT backends use the mode of
one thread: only a call that waits for the whole device ends their recordings. Whoever records, allocates, frees or
waits for the device therefore holds this lock, and no longer than for that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from runtimes import notices
from runtimes.errors import Reason


class CaptureLock:
    """A lock that one thread may take several times. Memory that is freed meanwhile is freed when the lock is released.

    Python may collect an object in any thread at any time, also while another thread, or this one, records. ``free``
    therefore never waits and never frees during a recording.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._postponed: deque[Callable[[], object]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        self._lock.release()
        self._free_postponed()

    def free(self, act: Callable[[], object]) -> None:
        """Call ``act``, which frees a CUDA object: now, or as soon as no thread holds the lock.

        Args:
            act: Frees the object. It must not raise an error.
        """
        self._postponed.append(act)
        self._free_postponed()

    def _free_postponed(self) -> None:
        # The queue is checked after each release, so that a thread that found the lock taken can leave its object.
        while self._postponed and self._lock.acquire(blocking=False):
            try:
                if self._depth:  # held by this thread, which may be recording
                    return
                try:
                    act = self._postponed.popleft()
                except IndexError:  # freed by another thread
                    return
                act()
            finally:
                self._lock.release()


_LOCK = CaptureLock()


def capture_lock() -> CaptureLock:
    """Return the lock of this process, for a ``with`` block.

    Whoever also holds a lock of its own takes that first, and calls nothing under this lock that could take another.
    """
    return _LOCK


def warn_unrecorded(title: str, images: int, error: BaseException) -> None:
    """Log the warning that a batch size runs without a CUDA graph, because it could not be recorded.

    Args:
        title: The name of the library in sentences.
        images: The batch size.
        error: The reason.
    """
    reason = Reason(
        "graph-not-recorded",
        f"{title} runs batches of {images} without a CUDA graph, which could not be recorded: {error}",
    )
    notices.warn(reason)
