"""The switch between float32 and TensorFloat-32 on CUDA: settings of the process, applied to one session's kernels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

LAUNCH_LOCK = threading.Lock()
"""The lock of the process for launching, recording and compiling the kernels of a program."""


@contextmanager
def set_float32_precision(tf32: bool) -> Iterator[None]:
    """Set the precision of float32 kernels launched in the ``with`` block, and restore the previous settings after it.

    The settings belong to the process, and PyTorch reads them when it launches a kernel. Therefore sessions launch
    their kernels one after the other. This costs little: Python launches from one thread at a time anyway, and the lock
    does not wait for the device.

    Args:
        tf32: Whether float32 is computed in TensorFloat-32.
    """
    cudnn: Any = torch.backends.cudnn
    # If an app has used these settings, PyTorch does not even allow reading the older allow_tf32.
    settings = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    with LAUNCH_LOCK:
        before = [setting.fp32_precision for setting in settings]
        try:
            for setting in settings:
                setting.fp32_precision = "tf32" if tf32 else "ieee"
            yield
        finally:
            for setting, value in zip(settings, before, strict=True):
                setting.fp32_precision = value
