"""The memory of the double's device, which is the host's, and tensors in it."""

from __future__ import annotations

import bisect
import ctypes
from collections.abc import Callable
from importlib import import_module

import numpy as np

from runtimes.protocol import Array
from runtimes.tensors import dlpack

ALIGNMENT = 256
"""Of every block, as on a device."""


class Memory:
    """Blocks that can be told apart from what was freed or never allocated."""

    def __init__(self, fault: Callable[[str], None]) -> None:
        self._fault = fault
        self._kept: list[object] = []
        self._blocks: dict[int, tuple[int, str]] = {}
        self._starts: list[int] = []
        self.used_bytes = 0

    def take(self, size: int, kind: str) -> int:
        """The address of a new block of ``device`` or ``host`` memory, full of garbage."""
        memory = ctypes.create_string_buffer(b"\xdd" * (size + ALIGNMENT))
        start = -(-ctypes.addressof(memory) // ALIGNMENT) * ALIGNMENT
        self._kept.append(memory)  # for ever, so that no address comes twice
        self._blocks[start] = (size, kind)
        bisect.insort(self._starts, start)
        self.used_bytes += size if kind == "device" else 0
        return start

    def give(self, start: int, kind: str) -> None:
        """Frees a block."""
        size, found = self._blocks.pop(start, (0, "nothing"))
        if found != kind:
            self._fault(f"memory-freed-wrongly: {kind} at {start:#x} is {found}")
            return
        self._starts.remove(start)
        self.used_bytes -= size if kind == "device" else 0
        ctypes.memset(start, 0xDD, size)

    def __len__(self) -> int:
        return len(self._blocks)

    def holds(self, address: int, size: int, kind: str) -> bool:
        """Whether these bytes lie in a live block; a fault if not."""
        place = bisect.bisect_right(self._starts, address) - 1
        start = self._starts[place] if place >= 0 else 0
        length, found = self._blocks.get(start, (0, "nothing"))
        if found == kind and address + size <= start + length:
            return True
        self._fault(f"memory-unknown: {size} bytes of {kind} at {address:#x}")
        return False

    def read(self, address: int, dtype: str, shape: tuple[int, ...]) -> Array:
        """A copy of a tensor on the device; zeros where there is none."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not self.holds(address, size, "device"):
            return np.zeros(shape, dtype)
        return np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape)

    def write(self, address: int, array: Array) -> None:
        """Puts a tensor on the device."""
        if self.holds(address, array.nbytes, "device"):
            ctypes.memmove(address, np.ascontiguousarray(array).tobytes(), array.nbytes)


class DeviceArray:
    """A tensor on the double's device, as PyTorch's would be: it is handed over by DLPack, while its GPU is current.
    ``asked`` are the streams that were to wait for it."""

    def __init__(self, memory: Memory, array: Array, offset_bytes: int = 0, ordinal: int = 0) -> None:
        self.pointer = memory.take(array.nbytes + offset_bytes, "device") + offset_bytes
        memory.write(self.pointer, array)
        self.asked: list[int | None] = []
        self._ordinal = ordinal
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._ordinal

    def __dlpack__(self, *, stream: int | None = None) -> object:
        if import_module("cuda.bindings.runtime").cudaGetDevice()[1] not in (self._ordinal, None):
            raise BufferError("Can't export tensors on a different CUDA device index")
        self.asked.append(stream)
        found, held = self._array, dlpack._Managed()
        held.tensor.data, held.tensor.device_type, held.tensor.device_id = self.pointer, dlpack.CUDA, self._ordinal
        held.tensor.code, held.tensor.bits, held.tensor.lanes = _CODES[found.dtype.kind], found.itemsize * 8, 1
        self._shape = (ctypes.c_int64 * found.ndim)(*found.shape)
        held.tensor.ndim = found.ndim
        held.tensor.shape = ctypes.cast(self._shape, ctypes.POINTER(ctypes.c_int64))
        self._held = held
        return _capsule(ctypes.addressof(held), b"dltensor", None)


_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
