"""Whether CUDA computes float32 in TensorFloat-32: settings of the whole process, made for one session's kernels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

TURN = threading.Lock()
"""Held while kernels of a program are launched or recorded, and while it is compiled: by one thread of the process."""


@contextmanager
def float32(tf32: bool) -> Iterator[None]:
    """What is launched while it lasts computes float32 in TensorFloat-32, or exactly; the settings from before are back
    afterwards.

    PyTorch has these settings once a process, and looks at them when it launches a kernel: sessions that differ take
    turns. That costs little, as Python launches from one thread at a time anyway; the device is not waited for.
    """
    cudnn: Any = torch.backends.cudnn
    # The older switches, allow_tf32, cannot even be read where an app has used these.
    places = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    with TURN:
        before = [place.fp32_precision for place in places]
        try:
            for place in places:
                place.fp32_precision = "tf32" if tf32 else "ieee"
            yield
        finally:
            for place, value in zip(places, before, strict=True):
                place.fp32_precision = value
