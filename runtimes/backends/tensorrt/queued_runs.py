"""Runs of an engine whose outputs stay on the device, and which callers do not wait for."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from runtimes.backends.tensorrt.batch_pieces import Piece, pieces
from runtimes.backends.tensorrt.execution_context import Context, EngineModel, row_bytes, row_shape
from runtimes.backends.tensorrt.recorded_runs import RecordedRuns, RunKind
from runtimes.tensors import dlpack
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.cuda_objects import BorrowedStream, DeviceBuffer, Event, PinnedBuffer, Stream
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


class _Program:
    """A profile of the engine with memory for its largest batch, run on the stream of the queued runs."""

    def __init__(self, model: EngineModel, profile: int, stream: Stream) -> None:
        self._model = model
        self._least, self._most = model.profiles[profile].least, model.profiles[profile].most
        self._stream = stream
        self._device = {spec.name: DeviceBuffer(self._most * row_bytes(spec)) for spec in model.specs}
        self._staging: dict[str, PinnedBuffer] = {}
        self._staged = Event(timed=False)
        self._runs = RecordedRuns(model, profile, stream)

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
        addresses = {name: buffer.pointer for name, buffer in self._device.items()}

        def queue(context: Context) -> None:
            context.enqueue(self._stream)

        self._runs.run(RunKind(max(piece.count, self._least)), addresses, queue)

    def close(self) -> None:
        """Free everything. No run may be queued."""
        self._runs.close()
        for owned in (*self._device.values(), *self._staging.values(), self._staged):
            owned.close()
