"""Whether another process has room beside the open ones: in the memory of the machine and of its GPU."""

from __future__ import annotations

from benchmarks.machine.gpu_monitor import GpuMemory
from runtimes.errors import Reason
from runtimes.memory import available_bytes

SPARE_BYTES = 1 << 30
"""The memory that stays free beside the largest process so far before another one is opened."""

GPU_SPARE_BYTES = 1 << 30
"""The same of the memory of a GPU."""

GPU_UNKNOWN_BYTES = 2 << 30
"""The memory of a GPU that a process is assumed to need if the driver does not report it."""


class Room:
    """The memory that open processes use, and what they leave for another one."""

    def __init__(self) -> None:
        self._largest_bytes = 0.0
        self._gpu_largest_bytes = 0
        self._gpu_reserved_bytes = 0
        self._gpu_free_bytes: int | None = None
        self._exclusive = False

    def add(self, resident_bytes: float, gpu: GpuMemory | None) -> None:
        """Add a process that has opened its model.

        Args:
            resident_bytes: The largest resident memory of the process.
            gpu: The memory of its GPU; ``None`` for a processor.
        """
        self._largest_bytes = max(self._largest_bytes, resident_bytes)
        if gpu is None:
            return
        own_bytes = GPU_UNKNOWN_BYTES if gpu.own_bytes is None else gpu.own_bytes
        self._gpu_largest_bytes = max(self._gpu_largest_bytes, own_bytes + gpu.growth_bytes)
        self._gpu_reserved_bytes += gpu.growth_bytes
        self._gpu_free_bytes = gpu.free_bytes
        self._exclusive = self._exclusive or gpu.exclusive

    def find_shortage(self) -> Reason | None:
        """Return why there is no room for another process as large as the largest one so far, or ``None``."""
        available = available_bytes()
        if available is not None and available <= self._largest_bytes + SPARE_BYTES:
            return Reason(
                "memory-short",
                f"no room beside the others: {_gigabytes(available)} of memory were free, and a process needs up to "
                f"{_gigabytes(self._largest_bytes)}; {_gigabytes(SPARE_BYTES)} stay free",
            )
        if self._exclusive:
            return Reason(
                "gpu-one-process", "no room beside the others: the compute mode of the GPU allows one process at a time"
            )
        if self._gpu_free_bytes is None:
            return None
        left = max(0, self._gpu_free_bytes - self._gpu_reserved_bytes)
        if left <= self._gpu_largest_bytes + GPU_SPARE_BYTES:
            return Reason(
                "gpu-memory-short",
                f"no room beside the others: {_gigabytes(left)} of GPU memory were free, and a process needs up to "
                f"{_gigabytes(self._gpu_largest_bytes)}; {_gigabytes(GPU_SPARE_BYTES)} stay free",
            )
        return None


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
