"""Device memory of the outputs that callers keep, allocated with the CUDA runtime and used again."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from runtimes.tensors import cuda, cuda_objects
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.spec import Array, TensorSpec
from runtimes.tensors.stream_handle import LEGACY_DEFAULT

_KEPT_BYTES = 64 << 20
"""The largest amount of memory that a session keeps for later outputs."""

_UNORDERED = 8
"""The number of blocks, read on streams that are not known any more, for which a session waits for the device."""


class QueuedRun:
    """A run that was queued on the device.

    Args:
        device: The number of the CUDA device.
        events: Events that the device reaches when the run has finished.
        stream: The handle of the caller's stream, which waits for the run already, or ``None``.
    """

    def __init__(self, device: int, events: Sequence[cuda_objects.Event], stream: int | None) -> None:
        self.device = device
        self.stream = stream
        self._events = events

    def delay(self, stream: int) -> None:
        """Make a stream wait for the run. The call does not block."""
        if stream != self.stream:
            with cuda.current(self.device):
                for event in self._events:
                    event.delay(cuda_objects.BorrowedStream(stream))

    def synchronize(self) -> None:
        """Block until the run has finished."""
        with cuda.current(self.device):
            for event in self._events:
                event.synchronize()


@dataclass(eq=False)
class OutputBlock:
    """A piece of device memory and the streams whose work may use it.

    Attributes:
        buffer: The memory.
        stream: The handle of the caller's stream that the run was ordered on, or ``None``.
        readers: The handles of the streams that readers named.
    """

    buffer: cuda_objects.DeviceBuffer
    stream: int | None
    readers: set[int] = field(default_factory=set)


class CudaOutput:
    """The memory of one output and its run, as ``OutputOwner``.

    Args:
        block: The memory.
        run: The run that writes the memory.
    """

    def __init__(self, block: OutputBlock, run: QueuedRun) -> None:
        self._block = block
        self._run = run

    def delay(self, stream: int) -> None:
        """Make a stream wait for the run, as ``OutputOwner.delay``."""
        self._block.readers.add(stream)
        if stream > 0:
            self._run.delay(stream)

    def synchronize(self) -> None:
        """Block until the run has finished."""
        self._run.synchronize()

    def copy_to(self, target: Array) -> None:
        """Copy the output to a host array, as ``OutputOwner.copy_to``."""
        self._run.synchronize()
        with cuda.current(self._run.device):
            cuda_objects.copy_to_host(target.ctypes.data, self._block.buffer.pointer, target.nbytes)


class OutputMemory:
    """The memory of a session's outputs. Blocks come back when their outputs are gone.

    A block is used again for outputs of the same size and the same stream of the caller, in the order of this stream.
    Without such a stream, the next run waits for the default stream, where most readers work. Blocks that a reader on
    another stream has seen are collected, until one wait for the device serves all of them.

    Only one thread at a time may call the methods. Outputs may go in any thread.
    """

    def __init__(self) -> None:
        self._returned: deque[OutputBlock] = deque()
        self._free: dict[tuple[int, int | None], list[OutputBlock]] = {}
        self._free_bytes = 0
        self._unordered: list[OutputBlock] = []

    def take(self, size_bytes: int, stream: int | None, run_stream: cuda_objects.Stream) -> OutputBlock:
        """Return a block of memory for an output. The device must be current.

        Args:
            size_bytes: The size.
            stream: The handle of the caller's stream, which ``run_stream`` waits for already, or ``None``.
            run_stream: The stream that the run is queued on.

        Raises:
            ResourceError: The device is out of memory.
        """
        self._collect()
        blocks = self._free.get((size_bytes, stream))
        if not blocks:
            return OutputBlock(cuda_objects.DeviceBuffer(size_bytes), stream)
        block = blocks.pop()
        self._free_bytes -= size_bytes
        if block.readers - {stream}:
            follow(run_stream, cuda_objects.BorrowedStream(LEGACY_DEFAULT))
        block.readers.clear()
        return block

    def share(self, spec: TensorSpec, shape: tuple[int, ...], block: OutputBlock, run: QueuedRun) -> DeviceOutput:
        """Return a ``block`` that ``run`` writes as the output of ``spec``, with this ``shape``."""
        owner = CudaOutput(block, run)
        weakref.finalize(owner, self._returned.append, block).atexit = False
        return DeviceOutput(block.buffer.pointer, shape, spec.dtype, run.device, owner)

    def close(self) -> None:
        """Free the memory that no output uses. Memory of outputs that still exist is freed with the last of them.

        Raises:
            DeviceLostError: The device failed.
        """
        self._collect()
        if self._free or self._unordered:
            cuda_objects.synchronize_device()
            for block in self._unordered:
                block.buffer.close()
            self._unordered.clear()
            self._free_all()

    def _collect(self) -> None:
        """Keep returned blocks for later outputs."""
        while self._returned:
            block = self._returned.popleft()
            if not block.readers <= {block.stream, LEGACY_DEFAULT} or not self._keep(block):
                self._unordered.append(block)
        unordered_bytes = sum(block.buffer.size_bytes for block in self._unordered)
        if len(self._unordered) >= _UNORDERED or unordered_bytes > _KEPT_BYTES:
            self._order()

    def _keep(self, block: OutputBlock) -> bool:
        """Keep a block, and return whether there is room for it."""
        size = block.buffer.size_bytes
        if self._free_bytes + size > _KEPT_BYTES:
            return False
        self._free.setdefault((size, block.stream), []).append(block)
        self._free_bytes += size
        return True

    def _order(self) -> None:
        """Wait for all readers of the collected blocks and keep these blocks. Those kept before make room for them."""
        cuda_objects.synchronize_device()
        self._free_all()
        for block in self._unordered:
            block.readers.clear()
            if not self._keep(block):
                block.buffer.close()
        self._unordered.clear()

    def _free_all(self) -> None:
        for blocks in self._free.values():
            for block in blocks:
                block.buffer.close()
        self._free.clear()
        self._free_bytes = 0


def follow(later: cuda_objects.BorrowedStream, earlier: cuda_objects.BorrowedStream) -> None:
    """Make work that is queued on ``later`` from now on wait for the work that is queued on ``earlier``."""
    marker = cuda_objects.Event(timed=False)
    marker.record(earlier)
    marker.delay(later)


def mark_end(run_stream: cuda_objects.Stream, stream: int | None) -> cuda_objects.Event:
    """Queue and return an event on ``run_stream``. The caller's ``stream``, if there is one, waits for it."""
    finished = cuda_objects.Event(timed=False)
    finished.record(run_stream)
    if stream is not None:
        finished.delay(cuda_objects.BorrowedStream(stream))
    return finished
