"""What a call has to itself on the device, and the pool from which calls take it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from runtimes.tensors.spec import Array

Call = Callable[[Tensor], Tensor]

Pool: TypeAlias = tuple[int, int]
"""PyTorch's name for memory that recordings share."""

WARM_UPS = 3
"""Runs before one is recorded: they compile, choose algorithms and find workspaces, none of which can be recorded."""


class Staging:
    """Pinned host memory, which the device reads and writes by itself. It grows to what was needed most."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor over the memory, with whatever lies in it; the one before is overwritten with it."""
        size = math.prod(shape) * dtype.itemsize
        if self._bytes.numel() < size:
            self._bytes = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return self._bytes[:size].view(dtype).view(shape)

    def fill(self, array: Array) -> Tensor:
        """The array's values."""
        result = self.tensor(array.shape, torch.from_numpy(np.empty(0, array.dtype)).dtype)
        np.copyto(result.numpy(), array)
        return result

    def fetch(self, tensor: Tensor) -> Tensor:
        """The device tensor's values, once the current stream has come to this point."""
        return self.tensor(tuple(tensor.shape), tensor.dtype).copy_(tensor, non_blocking=True)


class TorchLane:
    """One call at a time: a stream of its own, staging for what comes and goes, and recordings by the input's shape.

    The recordings take turns on the stream, so that they share their memory.
    """

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.incoming, self.outgoing = Staging(), Staging()
        self.recordings: dict[tuple[int, ...], Recording] = {}
        self.pool: Pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def current(self) -> Iterator[None]:
        """What the thread launches meanwhile goes to the lane's stream."""
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            yield


class Recording:
    """One run of ``call`` as a CUDA graph, with the addresses of its input and output: fill ``input``, ``replay``, and
    read what that returns before the next replay on the lane. Made while the lane is current.

    Those of one ``pool`` share their memory, and the first of them must stay as long as there may be more: PyTorch
    makes none in a pool whose recordings have all gone. ``None`` is a pool of its own.

    Raises:
        RuntimeError: PyTorch's, where something in the run cannot be recorded.
    """

    def __init__(self, call: Call, example: Tensor, device: torch.device, lane: TorchLane, pool: Pool | None) -> None:
        self.input = torch.zeros(tuple(example.shape), dtype=example.dtype, device=device)
        for _ in range(WARM_UPS):
            call(self.input)
        lane.stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile, as allocating, is no part of it and no error.
        with torch.cuda.graph(
            self._graph,
            pool=pool,  # type: ignore[arg-type]  # PyTorch's own name for such a pair is private
            stream=lane.stream,
            capture_error_mode="thread_local",
        ):
            self._output = call(self.input)

    def replay(self) -> Tensor:
        """Launches the run on the current stream: its output, which the next replay overwrites."""
        self._graph.replay()
        return self._output


class Lanes:
    """Up to ``most`` lanes, made as they are needed; a thread that finds none free waits for one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made = 0
        self._free: list[TorchLane] = []
        self._changed = threading.Condition()

    @contextmanager
    def borrow(self) -> Iterator[TorchLane]:
        """A lane that no other thread has meanwhile."""
        lane = self._take_free() or self._new()
        try:
            yield lane
        finally:
            with self._changed:
                self._free.append(lane)
                self._changed.notify()

    def _take_free(self) -> TorchLane | None:
        """A free lane, the last that was used; ``None`` is the leave to make one."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._made < self._most)
            if self._free:
                return self._free.pop()
            self._made += 1
            return None

    def _new(self) -> TorchLane:
        try:
            return TorchLane()
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise
