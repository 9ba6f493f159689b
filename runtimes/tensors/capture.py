"""The lock around whatever records CUDA work in this process, or would spoil another's recording."""

from __future__ import annotations

import threading

_LOCK = threading.RLock()


def capture_lock() -> threading.RLock:
    """Return the lock of this process.

    ONNX Runtime records in CUDA's global mode: while it does, a call of another thread that allocates memory on the
    device or pins it on the host fails, and ends the recording. A call that waits for the whole device ends those of
    all libraries.
    """
    return _LOCK
