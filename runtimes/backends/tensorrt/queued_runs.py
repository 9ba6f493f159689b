"""Runs of an engine whose outputs stay on the device, and which callers do not wait for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from runtimes.backends.tensorrt.batch_pieces import Piece, pieces
from runtimes.backends.tensorrt.execution_context import Context, EngineModel, row_bytes, row_shape
from runtimes.backends.tensorrt.streams import GRAPHS
from runtimes.tensors import dlpack
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.cuda import BorrowedStream, CudaGraph, DeviceBuffer, Event, PinnedBuffer, Stream
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.dlpack import DeviceTensor
from runtimes.tensors.output_memory import OutputMemory, QueuedRun, follow, mark_end
from runtimes.tensors.spec import Array, Arrays, TensorSpec


class QueuedRuns:
    """Queues runs on one stream, so that the runs of a session share memory and run one after the other.

    A run reads its inputs from memory of its own, to which they are copied on the device. Its addresses never change,
    so that batch sizes that occur again are recorded and replayed.

    Args:
        model: The engine.
        device: The number of the CUDA device, which must be current for all calls.
    """

    def __init__(self, model: EngineModel, device: int) -> None:
        self._model = model
        self._device = device
        self._lock = threading.Lock()
        self._own_stream: Stream | None = None
        self._memory = OutputMemory()
        self._programs: dict[int, _Program] = {}

    def queue(self, feeds: Arrays | Mapping[str, DeviceTensor], stream: int | None) -> dict[str, DeviceOutput]:
        """Queue a run on ``feeds``, ordered on ``stream``, and return its outputs, as ``DeviceSession.queue``."""
        specs, images = self._model.outputs, feeds[self._model.inputs[0].name].shape[0]
        with self._lock:
            self._order(feeds, stream)
            blocks = {spec.name: self._memory.take(images * row_bytes(spec), stream, self._stream) for spec in specs}
            for piece in pieces(images, self._model.profiles):
                program = self._program(piece.profile)
                program.fill(feeds, piece)
                program.run(piece)
                for spec in specs:
                    target = blocks[spec.name].buffer.pointer + piece.start * row_bytes(spec)
                    self._stream.within_device(target, program.pointer(spec), piece.count * row_bytes(spec))
            run = QueuedRun(self._device, (mark_end(self._stream, stream),), stream)
        shapes = {spec.name: (images, *row_shape(spec)) for spec in specs}
        return {spec.name: self._memory.share(spec, shapes[spec.name], blocks[spec.name], run) for spec in specs}

    @property
    def _stream(self) -> Stream:
        """The stream of all runs, which the first one creates."""
        if self._own_stream is None:
            self._own_stream = Stream()
        return self._own_stream

    def _order(self, feeds: Arrays | Mapping[str, DeviceTensor], stream: int | None) -> None:
        """Make the run wait for the caller's stream, or without a stream for the owners of the tensors."""
        if stream is not None:
            follow(self._stream, BorrowedStream(stream))
            return
        for feed in feeds.values():
            if isinstance(feed, DeviceTensor):
                dlpack.wait_for_producer(feed, self._stream.handle)

    def _program(self, profile: int) -> _Program:
        if profile not in self._programs:
            with capture_lock():  # it allocates memory
                self._programs[profile] = _Program(self._model, profile, self._stream)
        return self._programs[profile]

    def close(self) -> None:
        """Wait for queued runs and free everything but the outputs that callers keep.

        Raises:
            DeviceLostError: The device failed. Everything has been freed as far as possible.
        """
        if self._own_stream is None:
            return
        try:
            self._own_stream.synchronize()
        finally:
            for program in self._programs.values():
                program.close()
            self._programs.clear()
            self._memory.close()
            self._own_stream.close()


@dataclass(frozen=True)
class _Recorded:
    """A recorded graph, and the context it was recorded from, which must not change."""

    graph: CudaGraph
    context: Context


class _Program:
    """A profile of the engine with memory for its largest batch, run on the stream of the queued runs."""

    def __init__(self, model: EngineModel, profile: int, stream: Stream) -> None:
        self._model = model
        self._profile = profile
        self._least, self._most = model.profiles[profile].least, model.profiles[profile].most
        self._stream = stream
        self._scratch = DeviceBuffer(model.engine.get_device_memory_size_for_profile_v2(profile))
        self._device = {spec.name: DeviceBuffer(self._most * row_bytes(spec)) for spec in model.specs}
        self._staging: dict[str, PinnedBuffer] = {}
        self._staged = Event(timed=False)
        self._context = self._new_context()
        self._placed: int | None = None
        self._recorded: OrderedDict[int, _Recorded] = OrderedDict()
        self._seen: set[int] = set()
        self._unrecordable: set[int] = set()

    def pointer(self, spec: TensorSpec) -> int:
        """Return the address of an output of the last run."""
        return self._device[spec.name].pointer

    def fill(self, feeds: Arrays | Mapping[str, DeviceTensor], piece: Piece) -> None:
        """Queue the copies of the inputs of a piece. The last image is repeated to the smallest batch."""
        images = max(piece.count, self._least)
        arrays = {name: feed for name, feed in feeds.items() if isinstance(feed, np.ndarray)}
        if arrays:
            self._staged.synchronize()  # earlier copies from the staging memory
        for spec in self._model.inputs:
            feed = feeds[spec.name]
            if isinstance(feed, DeviceTensor):
                self._copy_tensor(spec, feed, piece, images)
            else:
                self._copy_array(spec, feed[piece.start : piece.start + piece.count], images)
        if arrays:
            self._staged.record(self._stream)

    def _copy_tensor(self, spec: TensorSpec, tensor: DeviceTensor, piece: Piece, images: int) -> None:
        target, row = self._device[spec.name].pointer, row_bytes(spec)
        source = tensor.pointer + piece.start * row
        self._stream.within_device(target, source, piece.count * row)
        for number in range(piece.count, images):
            self._stream.within_device(target + number * row, source + (piece.count - 1) * row, row)

    def _copy_array(self, spec: TensorSpec, rows: Array, images: int) -> None:
        if spec.name not in self._staging:
            self._staging[spec.name] = PinnedBuffer(self._most * row_bytes(spec))
        view = self._staging[spec.name].array(spec.dtype, (images, *row_shape(spec)))
        view[: len(rows)], view[len(rows) :] = rows, rows[-1]
        source = self._staging[spec.name].pointer
        self._stream.to_device(self._device[spec.name].pointer, source, images * row_bytes(spec))

    def run(self, piece: Piece) -> None:
        """Queue a run on the copied inputs. The second run of a batch size is recorded, later runs are replayed."""
        images = max(piece.count, self._least)
        recorded = self._recorded.get(images)
        if recorded is not None:
            self._recorded.move_to_end(images)
            recorded.graph.launch(self._stream)
        elif not self._model.cuda_graphs or images in self._unrecordable:
            self._run_plain(images)
        else:
            with capture_lock():  # the library may allocate memory in the first runs
                if images in self._seen:
                    self._record(images)
                else:
                    self._run_plain(images)
                    self._seen.add(images)

    def _run_plain(self, images: int) -> None:
        if self._placed != images:
            self._stream.synchronize()  # a context must not change while it runs
            self._place(self._context, images)
            self._placed = images
        self._context.enqueue(self._stream)

    def _record(self, images: int) -> None:
        """Run in a new context and then record the same run. Afterwards the recording has run once or is given up."""
        context = self._new_context()
        self._place(context, images)
        context.enqueue(self._stream)
        self._stream.synchronize()
        graph = self._model.capture(images, self._stream, lambda: context.enqueue(self._stream))
        if graph is None:
            self._unrecordable.add(images)
            return
        self._recorded[images] = _Recorded(graph, context)
        if len(self._recorded) > GRAPHS:
            self._seen.discard(next(iter(self._recorded)))
            self._recorded.popitem(last=False)[1].graph.close()

    def _new_context(self) -> Context:
        context = Context(self._model, self._profile, self._stream)
        context.use_scratch(self._scratch)
        return context

    def _place(self, context: Context, images: int) -> None:
        context.place(images, {name: buffer.pointer for name, buffer in self._device.items()})

    def close(self) -> None:
        """Free everything. No run may be queued."""
        for recorded in self._recorded.values():
            recorded.graph.close()
        self._recorded.clear()
        del self._context
        for owned in (*self._device.values(), *self._staging.values(), self._scratch, self._staged):
            owned.close()
