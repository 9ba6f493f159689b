"""Arrays in page-locked host memory, which the device reads and writes directly."""

from __future__ import annotations

import numpy as np

from runtimes.tensors import cuda, cuda_objects
from runtimes.tensors.spec import Array


def allocate_pinned_array(shape: tuple[int, ...], dtype: str, device: int) -> Array:
    """Return an array in page-locked memory, without initial values. The memory is freed with the last view of it.

    Args:
        shape: The shape.
        dtype: The dtype by NumPy's name.
        device: The number of the CUDA device.

    Raises:
        ResourceError: The host cannot pin so much memory.
    """
    with cuda.current(device):
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return np.asarray(_PinnedMemory(cuda_objects.PinnedBuffer(size), shape, dtype))


class _PinnedMemory:
    """Page-locked memory, as NumPy's array interface. It keeps the buffer."""

    def __init__(self, buffer: cuda_objects.PinnedBuffer, shape: tuple[int, ...], dtype: str) -> None:
        self._buffer = buffer
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "data": (buffer.pointer, False),
        }
