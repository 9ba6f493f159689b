"""Sessions of ONNX Runtime on a GPU: runs on host arrays, on device tensors, and timed by the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.onnxruntime import batches, releases, session_factory
from runtimes.backends.onnxruntime.bound_tensors import BoundModel, Slot, Slots, copy_outputs, run_options
from runtimes.backends.onnxruntime.errors import translate_error
from runtimes.backends.onnxruntime.kept_outputs import OutputWriter
from runtimes.backends.onnxruntime.providers import CudaProvider, TensorrtProvider
from runtimes.backends.onnxruntime.serialised import GPU_LOCK, SerialCalls
from runtimes.errors import BackendUnavailableError, InputError, RexportError
from runtimes.onnx import graph as onnxfile
from runtimes.protocol import Description, Options, RunTimes
from runtimes.tensors import cuda, cuda_objects, dlpack
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.device_clock import time_run
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.dlpack import DeviceTensor
from runtimes.tensors.output_memory import OutputMemory, follow
from runtimes.tensors.pinned import allocate_pinned_array
from runtimes.tensors.spec import Array, Arrays

if TYPE_CHECKING:
    import onnxruntime

_Result = TypeVar("_Result")


def open_on_gpu(
    artifact: Artifact,
    options: Options,
    provider: CudaProvider | TensorrtProvider,
    describe: Callable[[onnxruntime.InferenceSession], Description],
    max_batch: int | None = None,
) -> OnnxRuntimeDeviceSession:
    """Open a session on the provider's GPU, with its own stream. Calls of other GPU sessions wait meanwhile.

    Args:
        artifact: The artifact.
        options: The options of the user.
        provider: The provider with its options.
        describe: Returns the description of a session.
        max_batch: As for ``Running``.

    Raises:
        BackendUnavailableError: There is no GPU, or ONNX Runtime does not have the provider or cannot load it.
        RexportError: As for ``session_factory.open_session``.
    """
    session_factory.import_library(provider.name)
    missing = cuda.missing()
    if missing is not None:
        raise BackendUnavailableError(f"{provider.name} has no CUDA device: {missing}", code="provider-without-gpu")
    # The library makes its GPU current and does not restore the caller's. Its provider for CUDA waits for the whole
    # device when it is made, which would end the recordings of others.
    alone = capture_lock() if isinstance(provider, CudaProvider) else nullcontext()
    with GPU_LOCK, alone, cuda.current(provider.device_id):
        stream = cuda_objects.Stream()
        session = session_factory.open_session(
            artifact, replace(provider, user_compute_stream=stream.handle), options.threads
        )
    model = BoundModel(session, *session_factory.specs(session), options.device, provider.device_id)
    recording = isinstance(provider, CudaProvider) and provider.enable_cuda_graph
    description = describe(session)
    kinds = onnxfile.graph(artifact.path).arithmetic
    return OnnxRuntimeDeviceSession(
        model,
        replace(description, notes=releases.notes(provider, description.version, kinds)),
        stream,
        Running(recording, releases.queues_runs(provider, description.version), max_batch),
    )


@dataclass(frozen=True)
class Running:
    """How a session runs.

    Attributes:
        recording: Whether the native session was opened to record runs.
        queues: Whether a run can be queued without waiting for the device, as ``releases.queues_runs``.
        max_batch: The largest batch of one run; larger batches are run in parts. ``None`` for no limit.
    """

    recording: bool
    queues: bool = True
    max_batch: int | None = None


class OnnxRuntimeDeviceSession:
    """An ``onnxruntime.InferenceSession`` on a GPU, as ``DeviceSession``.

    Calls of all such sessions in the process run one after the other: see ``serialised.GPU_LOCK``.

    Args:
        model: The model. Its native session queues its work on ``stream``.
        description: The description of what runs.
        stream: The stream. The session owns it.
        running: How the session runs.
    """

    def __init__(
        self,
        model: BoundModel,
        description: Description,
        stream: cuda_objects.Stream,
        running: Running,
    ) -> None:
        self.inputs = model.inputs
        self.outputs = model.outputs
        self._description = description
        self._unrecorded = model.unrecorded
        self._model = model
        self._ordinal = model.ordinal
        self._stream = stream
        self._max_batch = running.max_batch
        self._queues = running.queues
        self._recording = running.recording
        self._slots = Slots(model, running.recording)
        self._calls = SerialCalls()
        self._memory = OutputMemory()
        self._has_queued_work = False

    @property
    def description(self) -> Description:
        """The description of what runs, with the batch sizes that could not be recorded so far."""
        return replace(self._description, unrecorded_batches=tuple(sorted(self._unrecorded)))

    def run(self, arrays: Arrays) -> Arrays:
        """Run the model, as ``Session.run``."""
        parts = self._parts(arrays)
        return self._call(lambda: batches.join([self._infer(part) for part in parts]))

    def _infer(self, arrays: Arrays) -> Arrays:
        slot = self._slots.get(self._shapes(arrays))
        self._fill(slot, arrays)
        slot.run()
        return slot.results()

    def _fill(self, slot: Slot, arrays: Arrays) -> None:
        """Copy arrays to a shared slot, when no queued run reads it any more."""
        if self._has_queued_work:
            self._stream.synchronize()
            self._has_queued_work = False
        slot.fill(arrays)

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the model on the arrays, as ``Session.bind``."""
        slots = self._fill_new_slots(arrays)
        return lambda: self._call(lambda: _run_all(slots))

    def bind_timed(self, arrays: Arrays) -> Callable[[], RunTimes] | None:
        """Return a function that runs the model and returns its times, as ``DeviceSession.bind_timed``.

        The result is ``None`` if this release of the library waits for the device in each run. The first run happens in
        this call: it allocates memory, chooses algorithms, and records.
        """
        if not self._queues:
            return None
        slots = self._fill_new_slots(arrays)
        with cuda.current(self._ordinal):
            before, after = cuda_objects.Event(), cuda_objects.Event()

        def queue_all() -> None:
            for slot in slots:
                slot.queue()

        def run_timed() -> RunTimes:
            return time_run(
                queue_all,
                lambda: before.record(self._stream),
                lambda: after.record(self._stream),
                lambda: after.elapsed_s(before),
            )

        self._call(lambda: _run_all(slots))
        return lambda: self._call(run_timed)

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        """Run the model on device tensors, as ``DeviceSession.run_tensors``.

        Raises:
            InputError: A tensor is on another GPU than the model.
        """
        self._check_device(tensors)
        # In the caller's thread, because the tensor's library synchronises with that thread's current stream.
        self._calls.call_here(self._on_device(lambda: self._wait_for_producers(tensors)))
        images = tensors[self.inputs[0].name].shape[0]
        return self._call(
            lambda: batches.join([self._infer_rows(tensors, *part) for part in batches.bounds(images, self._max_batch)])
        )

    def _check_device(self, tensors: Mapping[str, DeviceTensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.device != self._model.ordinal:
                raise InputError(
                    f"the input {name!r} is on GPU {tensor.device}, but the model is on GPU {self._model.ordinal}",
                    code="tensor-on-other-gpu",
                    hint=f"copy the tensor to GPU {self._model.ordinal}",
                )

    def _wait_for_producers(self, tensors: Mapping[str, DeviceTensor]) -> None:
        """Make the stream wait for the work that the tensors' owners queued. Only while no thread records a run."""
        for tensor in tensors.values():
            dlpack.wait_for_producer(tensor, self._stream.handle)

    def _infer_rows(self, tensors: Mapping[str, DeviceTensor], start: int, stop: int) -> Arrays:
        """Run the model on rows of device tensors.

        A recording reads its own inputs, to which the rows are copied on the device. Without a recording, the rows are
        read in place.
        """
        if self._recording:
            slot = self._slot_of_rows(tensors, start, stop)
            slot.run()
            return slot.results()
        model = self._model
        binding = model.native.io_binding()
        pointers = self._pointers(tensors, start)
        for spec in self.inputs:
            kind, shape = np.dtype(spec.dtype).type, (stop - start, *tensors[spec.name].shape[1:])
            binding.bind_input(spec.name, model.device, model.ordinal, kind, shape, pointers[spec.name])
        for spec in self.outputs:
            binding.bind_output(spec.name, model.device, model.ordinal)
        model.native.run_with_iobinding(binding, run_options(None))
        return copy_outputs(binding, self.outputs)

    def _slot_of_rows(self, tensors: Mapping[str, DeviceTensor], start: int, stop: int) -> Slot:
        """Return a shared slot, to which rows of device tensors are copied on the device."""
        slot = self._slots.get(tuple((stop - start, *tensors[spec.name].shape[1:]) for spec in self.inputs))
        slot.fill_from_device(self._pointers(tensors, start), self._stream)
        return slot

    def _pointers(self, tensors: Mapping[str, DeviceTensor], start: int) -> dict[str, int]:
        """Return the addresses of the rows from ``start`` on, by the name of the input."""
        pointers = {}
        for spec in self.inputs:
            tensor = tensors[spec.name]
            row_bytes = int(np.prod(tensor.shape[1:], dtype=np.int64)) * np.dtype(spec.dtype).itemsize
            pointers[spec.name] = tensor.pointer + start * row_bytes
        return pointers

    def queue(self, feeds: Arrays | Mapping[str, DeviceTensor], stream: int | None) -> dict[str, DeviceOutput]:
        """Queue a run of the model on ``feeds``, ordered on ``stream``, as ``DeviceSession.queue``.

        ONNX Runtime may wait for the device all the same: the TensorRT provider always does, and the CUDA provider of
        older versions does when it replays a recording.

        Raises:
            InputError: A tensor is on another GPU than the model.
        """
        tensors = {name: feed for name, feed in feeds.items() if isinstance(feed, DeviceTensor)}
        self._check_device(tensors)
        if stream is None:
            self._calls.call_here(self._on_device(lambda: self._wait_for_producers(tensors)))
        arrays = {name: feed for name, feed in feeds.items() if not isinstance(feed, DeviceTensor)}
        return self._call(lambda: self._queue(arrays, tensors, stream))

    def _queue(
        self, arrays: Arrays, tensors: Mapping[str, DeviceTensor], stream: int | None
    ) -> dict[str, DeviceOutput]:
        images = (tensors or arrays)[self.inputs[0].name].shape[0]
        with cuda.current(self._model.ordinal):
            if stream is not None:
                follow(self._stream, cuda_objects.BorrowedStream(stream))
            writer = OutputWriter(self.outputs, images, self._memory, self._stream, stream)
            for start, stop in batches.bounds(images, self._max_batch):
                if tensors:
                    slot = self._slot_of_rows(tensors, start, stop)
                else:
                    part = {name: array[start:stop] for name, array in arrays.items()}
                    slot = self._slots.get(self._shapes(part))
                    self._fill(slot, part)
                slot.queue()
                self._has_queued_work = True
                writer.write(slot.outputs(), start, stop)
            return writer.share(self._model.ordinal)

    def empty_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array of ``shape`` and ``dtype`` in page-locked memory, as ``DeviceSession.empty_array``."""
        return self._calls.call_here(lambda: allocate_pinned_array(shape, dtype, self._model.ordinal))

    def close(self) -> None:
        """Free the session of the library, after queued runs have finished."""
        self._calls.close()
        with GPU_LOCK, capture_lock(), cuda.current(self._ordinal):
            if self._has_queued_work:
                self._stream.synchronize()
            self._memory.close()
            # Bound functions may still hold the native session. The stream is freed with the last of them.
            del self._slots, self._model

    def _fill_new_slots(self, arrays: Arrays) -> list[Slot]:
        def fill_slots() -> list[Slot]:
            slots = []
            for part in self._parts(arrays):
                slots.append(self._slots.make(self._shapes(part)))
                slots[-1].fill(part)
            return slots

        return self._call(fill_slots)

    def _shapes(self, arrays: Arrays) -> tuple[tuple[int, ...], ...]:
        return tuple(arrays[spec.name].shape for spec in self.inputs)

    def _parts(self, arrays: Arrays) -> list[Arrays]:
        return batches.split(arrays, len(arrays[self.inputs[0].name]), self._max_batch)

    def _on_device(self, act: Callable[[], _Result]) -> Callable[[], _Result]:
        """Return the function for the model's GPU. The calling thread has its own current GPU again afterwards."""
        ordinal = self._ordinal

        def act_on_device() -> _Result:
            with cuda.current(ordinal):
                return act()

        return act_on_device

    def _call(self, act: Callable[[], _Result]) -> _Result:
        try:
            return self._calls.call(self._on_device(act))
        except RexportError:
            raise
        except Exception as error:
            raise translate_error(error, None) from error


def _run_all(slots: list[Slot]) -> None:
    for slot in slots:
        slot.run()
