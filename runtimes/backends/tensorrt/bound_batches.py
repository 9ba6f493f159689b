"""Batches that lie on the device, for runs without copies."""

from __future__ import annotations

import hashlib
import threading
import weakref

from runtimes.backends.tensorrt.batch_pieces import Piece, pieces
from runtimes.backends.tensorrt.execution_context import Context, EngineModel, row_bytes, row_shape
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.cuda_objects import DeviceBuffer, Event, PinnedBuffer, Stream
from runtimes.tensors.device_clock import RunTimes, time_run
from runtimes.tensors.spec import Arrays


class BoundBatches:
    """The bound batches of a session.

    They run one after the other on one stream, so that the memory for intermediate results exists once and not once a
    batch. A batch that is bound again while it is still bound is the same one. All methods may be called from many
    threads at once.

    Args:
        model: The engine.
    """

    def __init__(self, model: EngineModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._known: weakref.WeakValueDictionary[str, BoundBatch] = weakref.WeakValueDictionary()

    def bind(self, arrays: Arrays) -> BoundBatch:
        """Copy a batch to the device, or return the bound batch of equal arrays.

        Raises:
            ResourceError: Memory is lacking.
            DeviceLostError: The device failed.
        """
        key = _digest(arrays)
        with self._lock:
            batch = self._known.get(key)
            if batch is None:
                workspace = next((other.workspace for other in self._known.values()), None) or Workspace()
                with capture_lock():
                    batch = BoundBatch(self._model, arrays, workspace, self._lock)
                self._known[key] = batch
        return batch

    def close(self) -> None:
        """Free all batches. No run may be active."""
        for batch in tuple(self._known.values()):
            batch.close()


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


class Workspace:
    """The stream of the bound batches of a session, and their memory for intermediate results.

    Attributes:
        stream: The stream.
    """

    def __init__(self) -> None:
        self.stream = Stream()
        self._scratch: DeviceBuffer | None = None

    def scratch(self, size_bytes: int) -> DeviceBuffer:
        """Return memory of at least this size, the same as long as it is large enough.

        Batches that were recorded with smaller memory keep that.
        """
        if self._scratch is None or self._scratch.size_bytes < size_bytes:
            self._scratch = DeviceBuffer(size_bytes)
        return self._scratch


class BoundBatch:
    """A batch on the device, with a context for each of its pieces.

    Args:
        model: The engine.
        arrays: The inputs by name.
        workspace: The stream and memory, which are shared with other batches.
        lock: The lock of the stream.
    """

    def __init__(self, model: EngineModel, arrays: Arrays, workspace: Workspace, lock: threading.Lock) -> None:
        self.workspace = workspace
        self._lock = lock
        self._stream = workspace.stream
        self._buffers: list[DeviceBuffer] = []
        self._contexts: list[Context] = []
        images = len(arrays[model.inputs[0].name])
        for piece in pieces(images, model.profiles):
            self._add(model, arrays, piece)
        self._scratch = workspace.scratch(max(context.scratch_bytes() for context in self._contexts))
        for context in self._contexts:
            context.use_scratch(self._scratch)
        self._queue()
        self._stream.synchronize()
        self._graph = model.capture(images, self._stream, self._queue) if model.cuda_graphs else None

    def _add(self, model: EngineModel, arrays: Arrays, piece: Piece) -> None:
        images = max(piece.count, model.profiles[piece.profile].least)
        buffers = {spec.name: DeviceBuffer(images * row_bytes(spec)) for spec in model.specs}
        self._buffers += buffers.values()
        for spec in model.inputs:
            pinned = PinnedBuffer(images * row_bytes(spec))
            rows = arrays[spec.name][piece.start : piece.start + piece.count]
            view = pinned.array(spec.dtype, (images, *row_shape(spec)))
            view[: piece.count], view[piece.count :] = rows, rows[-1]
            self._stream.to_device(buffers[spec.name].pointer, pinned.pointer, pinned.size_bytes)
            self._stream.synchronize()
            pinned.close()
        context = Context(model, piece.profile, self._stream)
        context.place(images, {name: buffer.pointer for name, buffer in buffers.items()})
        self._contexts.append(context)

    def _queue(self) -> None:
        for context in self._contexts:
            context.enqueue(self._stream)

    def _start(self) -> None:
        if self._graph is None:
            self._queue()
        else:
            self._graph.launch(self._stream)

    def run(self) -> None:
        """Run the batch once and return when the device has finished."""
        with self._lock:
            self._start()
            self._stream.synchronize()

    def run_timed(self, before: Event, after: Event) -> RunTimes:
        """Return the times of a run between the events ``before`` and ``after``, as ``time_run``."""
        with self._lock:
            return time_run(
                self._start,
                lambda: before.record(self._stream),
                lambda: after.record(self._stream),
                lambda: after.elapsed_s(before),
            )

    def close(self) -> None:
        """Free everything. No run may be active."""
        if self._graph is not None:
            self._graph.close()
        self._contexts.clear()
        for owned in (*self._buffers, self._scratch, self._stream):
            owned.close()
