"""Lanes: the stream, staging memory and recordings of one call at a time, and the pool of lanes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from runtimes.tensors.capture import capture_lock
from runtimes.tensors.spec import Array

if TYPE_CHECKING:
    from runtimes.backends.pytorch.session import Call, Outputs

Pool: TypeAlias = tuple[int, int]
"""PyTorch's handle of memory that recordings share."""

WARM_UPS = 3
"""The number of runs before a recording. They compile, choose algorithms and allocate, which cannot be recorded."""


class Staging:
    """Pinned host memory, which the device reads and writes directly. It grows when needed and never shrinks."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor of this ``shape`` and ``dtype`` in the memory.

        The tensor is valid until the next call of any method.
        """
        size = math.prod(shape) * dtype.itemsize
        if self._bytes.numel() < size:
            with capture_lock():
                self._bytes = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return self._bytes[:size].view(dtype).view(shape)

    def fill(self, array: Array) -> Tensor:
        """Copy an array to the memory and return it as a tensor, valid until the next call of any method."""
        result = self.tensor(array.shape, torch.from_numpy(np.empty(0, array.dtype)).dtype)
        np.copyto(result.numpy(), array)
        return result

    def fetch(self, tensor: Tensor) -> Tensor:
        """Queue a copy of a device tensor to the memory on the current stream, and return the host tensor.

        The values are valid once the stream reaches this point, until the next call of any method.
        """
        return self.tensor(tuple(tensor.shape), tensor.dtype).copy_(tensor, non_blocking=True)


_IDLE_STREAMS: dict[int, list[torch.cuda.Stream]] = {}
"""The streams of closed lanes, by GPU."""


def _take_stream() -> torch.cuda.Stream:
    """Return a stream of the current device that no other lane uses.

    PyTorch gives out 32 streams of a device in turn, and the 33rd is the first one again. Lanes therefore use the
    streams of closed lanes before new ones.
    """
    idle = _IDLE_STREAMS.get(torch.cuda.current_device())
    try:
        return idle.pop() if idle else torch.cuda.Stream()  # type: ignore[no-untyped-call]
    except IndexError:  # another thread took the last one
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]


class TorchLane:
    """A stream with staging memory for input and output, and recordings by the shape of the input.

    A lane serves one call at a time. Its recordings run one after the other on the stream, so they share one pool of
    memory for their intermediate results.

    Attributes:
        launched: The shapes of the inputs that have run. PyTorch allocates no memory for them any more.
        has_queued_work: Whether the last call on the lane did not wait for its run.
    """

    def __init__(self) -> None:
        self.stream = _take_stream()
        self.incoming, self.outgoing = Staging(), Staging()
        self.recordings: dict[tuple[int, ...], Recording | None] = {}
        self.launched: set[tuple[int, ...]] = set()
        self._pool: Pool = torch.cuda.graph_pool_handle()
        self._anchor: torch.cuda.CUDAGraph | None = None
        self.has_queued_work = False

    def stage(self, array: Array) -> Tensor:
        """Copy an array to the staging memory, as ``Staging.fill``, when no queued run reads the memory any more."""
        self.synchronize()
        return self.incoming.fill(array)

    def synchronize(self) -> None:
        """Wait for a run that was queued without waiting."""
        if self.has_queued_work:
            self.stream.synchronize()
            self.has_queued_work = False

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the lane's stream current in the calling thread for the ``with`` block."""
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            yield

    def record(self, call: Callable[[], Outputs], device: torch.device) -> tuple[torch.cuda.CUDAGraph, Outputs]:
        """Return the recorded work of ``call`` on ``device`` and its outputs. The lane must be current.

        Args:
            call: The work, which returns its outputs.
            device: The CUDA device.

        Raises:
            NotRecordedError: PyTorch cannot record the work, or another thread ended the recording.
        """
        try:
            # PyTorch first waits for the whole device, which would end the recordings of other threads.
            with capture_lock():
                if self._anchor is None:
                    # PyTorch records nothing more in a pool whose recordings have all gone. This one stays.
                    self._anchor, _ = self._capture(lambda: torch.zeros(1, device=device))
                return self._capture(call)
        except RuntimeError as error:
            # PyTorch up to 2.12 leaves a pool whose recording failed in the state of recording, and then refuses it.
            self._anchor, self._pool = None, torch.cuda.graph_pool_handle()
            raise NotRecordedError(str(error)) from error

    def _capture(self, call: Callable[[], Outputs]) -> tuple[torch.cuda.CUDAGraph, Outputs]:
        graph = torch.cuda.CUDAGraph()
        # With thread_local, other threads may for example allocate memory during the recording.
        with torch.cuda.graph(
            graph,
            pool=self._pool,  # type: ignore[arg-type]  # PyTorch's own type of the handle is private
            stream=self.stream,
            capture_error_mode="thread_local",
        ):
            outputs = call()
        return graph, outputs


class NotRecordedError(Exception):
    """A run could not be recorded, though it had succeeded before."""


class Recording:
    """One run of a program as a CUDA graph, with fixed addresses of input and output.

    To run it: copy values to ``input``, call ``replay``, and read its result before the next replay on the lane. The
    lane must be current when a recording is created.

    Args:
        call: Runs the program on a tensor.
        example: A tensor with the shape and dtype of the input.
        device: The CUDA device.
        lane: The lane. Its recordings share the memory of intermediate results, but for inputs and outputs.

    Attributes:
        input: The input tensor on the device.

    Raises:
        NotRecordedError: PyTorch cannot record a part of the run, or another thread ended the recording.
        RuntimeError: The run itself failed.
    """

    def __init__(self, call: Call, example: Tensor, device: torch.device, lane: TorchLane) -> None:
        self.input = torch.zeros(tuple(example.shape), dtype=example.dtype, device=device)
        for _ in range(WARM_UPS):
            call(self.input)
        lane.stream.synchronize()
        self._graph, self._output = lane.record(lambda: call(self.input), device)

    def replay(self) -> Outputs:
        """Launch the run on the current stream and return its outputs, which the next replay overwrites."""
        self._graph.replay()
        return self._output


class Lanes:
    """A pool of lanes, which are created when needed. A thread waits if all lanes are in use.

    Args:
        limit: The largest number of lanes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._free: list[TorchLane] = []
        self._changed = threading.Condition()

    @contextmanager
    def borrow(self) -> Iterator[TorchLane]:
        """Yield a lane that no other thread uses during the ``with`` block."""
        lane = self._take_free() or self._new()
        try:
            yield lane
        finally:
            with self._changed:
                self._free.append(lane)
                self._changed.notify()

    def close(self) -> None:
        """Wait for the queued work of all lanes, and give up their streams. No lane may be in use, now or later."""
        with self._changed:
            for lane in self._free:
                lane.synchronize()
            _IDLE_STREAMS.setdefault(torch.cuda.current_device(), []).extend(lane.stream for lane in self._free)
            self._free.clear()

    def _take_free(self) -> TorchLane | None:
        """Return the free lane used last, or ``None`` if the caller has to create one."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._count < self._limit)
            if self._free:
                return self._free.pop()
            self._count += 1
            return None

    def _new(self) -> TorchLane:
        try:
            return TorchLane()
        except BaseException:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            raise
