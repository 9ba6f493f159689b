"""Lanes: each has its own stream and memory, so that several threads can run an engine at once, one in each lane.

The design follows TensorRT's rules for execution contexts:

- Only one thread at a time may use a context.
- A recording becomes invalid when its context changes. Therefore each recorded batch size has its own context.
- The contexts of a lane share the memory for intermediate results, because a lane executes one run after the other.
- A context must have run once with a shape before a run can be recorded.
- Several contexts may use the same profile (since TensorRT 10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtimes.backends.tensorrt.batch_pieces import Piece
from runtimes.backends.tensorrt.execution_context import Context, EngineModel, row_bytes, row_shape
from runtimes.backends.tensorrt.recorded_runs import RecordedRuns, RunKind
from runtimes.tensors import dlpack
from runtimes.tensors.cuda_objects import DeviceBuffer, PinnedBuffer, Stream
from runtimes.tensors.dlpack import DeviceTensor
from runtimes.tensors.spec import Arrays, TensorSpec

ALIGNMENT = 256
"""The alignment in bytes that TensorRT needs for addresses."""


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
        self._device = {spec.name: DeviceBuffer(most * row_bytes(spec)) for spec in model.specs}
        self._pinned = {spec.name: PinnedBuffer(most * row_bytes(spec)) for spec in model.specs}
        self._views = {
            spec.name: self._pinned[spec.name].array(spec.dtype, (most, *row_shape(spec))) for spec in model.specs
        }
        self._runs = RecordedRuns(model, profile, self._stream)

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
        self._run(RunKind(images), None)
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
        self._run(RunKind(images, tuple(addresses)), addresses)
        self._copy_out(outputs, piece)

    def _copy_in(self, spec: TensorSpec, source: int, count: int, images: int) -> None:
        target, row = self._device[spec.name].pointer, row_bytes(spec)
        self._stream.within_device(target, source, count * row)
        for number in range(count, images):
            self._stream.within_device(target + number * row, source + (count - 1) * row, row)

    def _run(self, kind: RunKind, inputs: Sequence[int] | None) -> None:
        """Queue a run on the device inputs at these addresses, or on the pinned inputs."""
        addresses = {name: buffer.pointer for name, buffer in self._device.items()}
        if inputs is not None:
            addresses.update(zip((spec.name for spec in self._model.inputs), inputs, strict=True))

        def queue(context: Context) -> None:
            if inputs is None:
                for spec in self._model.inputs:
                    target, source = self._device[spec.name].pointer, self._pinned[spec.name].pointer
                    self._stream.to_device(target, source, kind.images * row_bytes(spec))
            context.enqueue(self._stream)
            self._fetch(kind.images)

        self._runs.run(kind, addresses, queue)

    def _fetch(self, images: int) -> None:
        for spec in self._model.outputs:
            target, source = self._pinned[spec.name].pointer, self._device[spec.name].pointer
            self._stream.to_host(target, source, images * row_bytes(spec))

    def _copy_out(self, outputs: Arrays, piece: Piece) -> None:
        self._stream.synchronize()
        for spec in self._model.outputs:
            outputs[spec.name][piece.start : piece.start + piece.count] = self._views[spec.name][: piece.count]

    def close(self) -> None:
        """Wait for queued work and free everything.

        Raises:
            DeviceLostError: The device failed. Everything has been freed as far as possible.
        """
        try:
            self._stream.synchronize()
        finally:
            self._runs.close()
            self._views.clear()
            for owned in (*self._device.values(), *self._pinned.values(), self._stream):
                owned.close()
