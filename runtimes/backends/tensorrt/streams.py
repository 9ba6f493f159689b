"""Lanes: each has its own stream and memory, so that several threads can run an engine at once, one in each lane.

The design follows TensorRT's rules for execution contexts:

- Only one thread at a time may use a context.
- A recording becomes invalid when its context changes. Therefore each recorded batch size has its own context.
- The contexts of a lane share the memory for intermediate results, because a lane executes one run after the other.
- A context must have run once with a shape before a run can be recorded.
- Several contexts may use the same profile (since TensorRT 10).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from runtimes.backends.tensorrt.batch_pieces import Piece
from runtimes.backends.tensorrt.execution_context import Context, EngineModel, row_bytes, row_shape
from runtimes.errors import ResourceError
from runtimes.tensors import dlpack
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.cuda import CudaGraph, DeviceBuffer, PinnedBuffer, Stream
from runtimes.tensors.dlpack import DeviceTensor
from runtimes.tensors.spec import Arrays, TensorSpec

GRAPHS = 8
"""The largest number of recordings of a lane. The recording used least recently is dropped."""

ALIGNMENT = 256
"""The alignment in bytes that TensorRT needs for addresses."""


@dataclass(frozen=True)
class _Run:
    """The batch size and the inputs that a recording is made for.

    Attributes:
        images: The batch size.
        inputs: The device address of each input, or ``None`` for inputs that are copied from the pinned memory.
    """

    images: int
    inputs: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Recorded:
    """A recorded graph, and the context it was recorded from, which must not change."""

    graph: CudaGraph
    context: Context


class EngineLane:
    """Everything that one call at a time needs, allocated once for the largest batch of a profile.

    A lane has a stream, memory for intermediate results, and for each input and output device memory and pinned host
    memory.

    Args:
        model: The engine.
        profile: The number of the profile.

    Raises:
        ResourceError: Memory is lacking.
    """

    def __init__(self, model: EngineModel, profile: int) -> None:
        most = model.profiles[profile].most
        self._model = model
        self._profile = profile
        self._least = model.profiles[profile].least
        self._stream = Stream()
        self._scratch = DeviceBuffer(model.engine.get_device_memory_size_for_profile_v2(profile))
        self._device = {spec.name: DeviceBuffer(most * row_bytes(spec)) for spec in model.specs}
        self._pinned = {spec.name: PinnedBuffer(most * row_bytes(spec)) for spec in model.specs}
        self._views = {
            spec.name: self._pinned[spec.name].array(spec.dtype, (most, *row_shape(spec))) for spec in model.specs
        }
        self._context: Context | None = self._new_context()
        self._recorded: OrderedDict[_Run, _Recorded] = OrderedDict()
        self._seen: OrderedDict[_Run, None] = OrderedDict()
        self._unrecordable: set[int] = set()

    def run(self, arrays: Arrays, outputs: Arrays, piece: Piece) -> None:
        """Run a piece of a batch from host arrays to host arrays, and wait for the result.

        Args:
            arrays: The inputs of the whole batch, by name.
            outputs: The outputs of the whole batch, by name. The rows of the piece are written.
            piece: The piece to run.
        """
        images = max(piece.count, self._least)
        for spec in self._model.inputs:
            rows, view = arrays[spec.name][piece.start : piece.start + piece.count], self._views[spec.name]
            view[: piece.count] = rows
            view[piece.count : images] = rows[-1]  # padded with the last image to the smallest batch of the profile
        self._run(_Run(images))
        self._copy_out(outputs, piece)

    def run_tensors(self, tensors: Mapping[str, DeviceTensor], outputs: Arrays, piece: Piece) -> None:
        """Run a piece of a batch from device tensors to host arrays, and wait for the result.

        The tensors are read in place if the address is aligned and no padding is needed. Otherwise they are copied on
        the device. A run on addresses that came before is recorded, like a batch size on the host.

        Args:
            tensors: The inputs of the whole batch, by name.
            outputs: The outputs of the whole batch, by name. The rows of the piece are written.
            piece: The piece to run.

        Raises:
            InputError: The library of a tensor does not share it. No work was queued.
        """
        images = max(piece.count, self._least)
        for spec in self._model.inputs:
            dlpack.wait_for_producer(tensors[spec.name], self._stream.handle)
        addresses = []
        for spec in self._model.inputs:
            start = tensors[spec.name].pointer + piece.start * row_bytes(spec)
            if images != piece.count or start % ALIGNMENT:
                self._copy_in(spec, start, piece.count, images)
                start = self._device[spec.name].pointer
            addresses.append(start)
        self._run(_Run(images, tuple(addresses)))
        self._copy_out(outputs, piece)

    def _copy_in(self, spec: TensorSpec, source: int, count: int, images: int) -> None:
        target, row = self._device[spec.name].pointer, row_bytes(spec)
        self._stream.within_device(target, source, count * row)
        for number in range(count, images):
            self._stream.within_device(target + number * row, source + (count - 1) * row, row)

    def _run(self, run: _Run) -> None:
        """Queue a run. The second run of the same kind is recorded, later runs are replayed."""
        recorded = self._recorded.get(run)
        if recorded is not None:
            self._recorded.move_to_end(run)
            recorded.graph.launch(self._stream)
        elif not self._model.cuda_graphs or run.images in self._unrecordable:
            self._run_plain(run)
        else:
            with capture_lock():  # the library may allocate memory in the first runs
                if run in self._seen:
                    self._record(run)
                else:
                    self._run_plain(run)
                    self._seen[run] = None
                    if len(self._seen) > GRAPHS:
                        self._seen.popitem(last=False)

    def _run_plain(self, run: _Run) -> None:
        context = self._plain_context()
        self._place(context, run)
        self._queue(context, run)

    def _record(self, run: _Run) -> None:
        """Run in a new context and then record the same run. Afterwards the recording has run once or is given up."""
        del self._seen[run]
        context = self._new_context()
        self._place(context, run)
        self._queue(context, run)
        self._stream.synchronize()
        graph = self._model.capture(run.images, self._stream, lambda: self._queue(context, run))
        if graph is None:
            self._unrecordable.add(run.images)
            return
        self._recorded[run] = _Recorded(graph, context)
        if len(self._recorded) > GRAPHS:
            self._recorded.popitem(last=False)[1].graph.close()

    def _new_context(self) -> Context:
        context = Context(self._model, self._profile, self._stream)
        context.use_scratch(self._scratch)
        return context

    def _place(self, context: Context, run: _Run) -> None:
        addresses = {name: buffer.pointer for name, buffer in self._device.items()}
        if run.inputs is not None:
            addresses.update(zip((spec.name for spec in self._model.inputs), run.inputs, strict=True))
        context.place(run.images, addresses)

    def _queue(self, context: Context, run: _Run) -> None:
        if run.inputs is None:
            for spec in self._model.inputs:
                target, source = self._device[spec.name].pointer, self._pinned[spec.name].pointer
                self._stream.to_device(target, source, run.images * row_bytes(spec))
        context.enqueue(self._stream)
        self._fetch(run.images)

    def _fetch(self, images: int) -> None:
        for spec in self._model.outputs:
            target, source = self._pinned[spec.name].pointer, self._device[spec.name].pointer
            self._stream.to_host(target, source, images * row_bytes(spec))

    def _copy_out(self, outputs: Arrays, piece: Piece) -> None:
        self._stream.synchronize()
        for spec in self._model.outputs:
            outputs[spec.name][piece.start : piece.start + piece.count] = self._views[spec.name][: piece.count]

    def _plain_context(self) -> Context:
        if self._context is None:
            raise ResourceError("the session of the engine is closed", code="lane-closed")
        return self._context

    def close(self) -> None:
        """Wait for queued work and free everything.

        Raises:
            DeviceLostError: The device failed. Everything has been freed as far as possible.
        """
        try:
            self._stream.synchronize()
        finally:
            for recorded in self._recorded.values():
                recorded.graph.close()
            self._recorded.clear()
            self._context = None
            self._views.clear()
            for owned in (*self._device.values(), *self._pinned.values(), self._scratch, self._stream):
                owned.close()
