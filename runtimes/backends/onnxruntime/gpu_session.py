"""Sessions of ONNX Runtime on a GPU: runs on host arrays, on device tensors, and timed by the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.onnxruntime import session_factory
from runtimes.backends.onnxruntime.bound_tensors import BoundModel, Slot, Slots, copy_outputs, run_options
from runtimes.backends.onnxruntime.errors import translate_error
from runtimes.backends.onnxruntime.providers import CudaProvider, TensorrtProvider
from runtimes.backends.onnxruntime.serialised import GPU_LOCK, SerialCalls
from runtimes.errors import BackendUnavailableError, InputError, RexportError
from runtimes.protocol import Description, Options, RunTimes
from runtimes.tensors import cuda, dlpack
from runtimes.tensors.device_clock import time_run
from runtimes.tensors.dlpack import DeviceTensor
from runtimes.tensors.spec import Arrays

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
        max_batch: As for ``OnnxRuntimeDeviceSession``.

    Raises:
        BackendUnavailableError: There is no GPU, or ONNX Runtime does not have the provider or cannot load it.
        RexportError: As for ``session_factory.open_session``.
    """
    session_factory.import_library(provider.name)
    missing = cuda.missing()
    if missing is not None:
        raise BackendUnavailableError(f"{provider.name} has no CUDA device: {missing}", code="provider-without-gpu")
    with GPU_LOCK:
        with cuda.current(provider.device_id):
            stream = cuda.Stream()
        session = session_factory.open_session(
            artifact, replace(provider, user_compute_stream=stream.handle), options.threads
        )
    model = BoundModel(session, *session_factory.specs(session), options.device, provider.device_id)
    recording = isinstance(provider, CudaProvider) and provider.enable_cuda_graph
    return OnnxRuntimeDeviceSession(model, describe(session), stream, recording, max_batch)


class OnnxRuntimeDeviceSession:
    """An ``onnxruntime.InferenceSession`` on a GPU, as ``DeviceSession``.

    Calls of all such sessions in the process run one after the other: see ``serialised.GPU_LOCK``.

    Args:
        model: The model. Its native session queues its work on ``stream``.
        description: The description of what runs.
        stream: The stream. The session owns it.
        recording: Whether the native session was opened to record runs.
        max_batch: The largest batch of one run; larger batches are run in parts. ``None`` for no limit.
    """

    def __init__(
        self,
        model: BoundModel,
        description: Description,
        stream: cuda.Stream,
        recording: bool,
        max_batch: int | None = None,
    ) -> None:
        self.inputs = model.inputs
        self.outputs = model.outputs
        self.description = description
        self._model = model
        self._stream = stream
        self._max_batch = max_batch
        self._slots = Slots(model, recording)
        self._calls = SerialCalls()

    def run(self, arrays: Arrays) -> Arrays:
        """Run the model, as ``Session.run``."""
        parts = self._parts(arrays)
        return self._call(lambda: _join_parts([self._infer(part) for part in parts]))

    def _infer(self, arrays: Arrays) -> Arrays:
        slot = self._slots.get(self._shapes(arrays))
        slot.fill(arrays)
        slot.run()
        return slot.results()

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the model on the arrays, as ``Session.bind``."""
        slots = self._fill_new_slots(arrays)
        return lambda: self._call(lambda: _run_all(slots))

    def bind_timed(self, arrays: Arrays) -> Callable[[], RunTimes]:
        """Return a function that runs the model and returns its times, as ``DeviceSession.bind_timed``.

        The first run happens in this call: it allocates memory, chooses algorithms, and records.
        """
        slots = self._fill_new_slots(arrays)
        before, after = cuda.Event(), cuda.Event()

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
        for name, tensor in tensors.items():
            if tensor.device != self._model.ordinal:
                raise InputError(
                    f"the input {name!r} is on GPU {tensor.device}, but the model is on GPU {self._model.ordinal}",
                    code="tensor-on-other-gpu",
                    hint=f"copy the tensor to GPU {self._model.ordinal}",
                )
        # In the caller's thread, because the tensor's library synchronises with that thread's current stream.
        self._calls.call_here(lambda: self._wait_for_producers(tensors))
        images = tensors[self.inputs[0].name].shape[0]
        return self._call(lambda: _join_parts([self._infer_rows(tensors, *part) for part in self._bounds(images)]))

    def _wait_for_producers(self, tensors: Mapping[str, DeviceTensor]) -> None:
        """Make the stream wait for the work that the tensors' owners queued. Only while no thread records a run."""
        for tensor in tensors.values():
            dlpack.wait_for_producer(tensor, self._stream.handle)

    def _infer_rows(self, tensors: Mapping[str, DeviceTensor], start: int, stop: int) -> Arrays:
        """Run the model on rows of device tensors, without a recording, which would keep their addresses."""
        model = self._model
        binding = model.native.io_binding()
        for spec in self.inputs:
            kind, row = np.dtype(spec.dtype), tensors[spec.name].shape[1:]
            pointer = tensors[spec.name].pointer + start * int(np.prod(row, dtype=np.int64)) * kind.itemsize
            binding.bind_input(spec.name, model.device, model.ordinal, kind.type, (stop - start, *row), pointer)
        for spec in self.outputs:
            binding.bind_output(spec.name, model.device, model.ordinal)
        model.native.run_with_iobinding(binding, run_options(None))
        return copy_outputs(binding, self.outputs)

    def close(self) -> None:
        """Free the session of the library."""
        self._calls.close()
        with GPU_LOCK:
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

    def _bounds(self, images: int) -> list[tuple[int, int]]:
        step = self._max_batch or images
        return [(start, min(start + step, images)) for start in range(0, images, step)]

    def _parts(self, arrays: Arrays) -> list[Arrays]:
        images = len(arrays[self.inputs[0].name])
        if self._max_batch is None or images <= self._max_batch:
            return [arrays]
        return [{name: array[start:stop] for name, array in arrays.items()} for start, stop in self._bounds(images)]

    def _call(self, act: Callable[[], _Result]) -> _Result:
        try:
            return self._calls.call(act)
        except RexportError:
            raise
        except Exception as error:
            raise translate_error(error, None) from error


def _run_all(slots: list[Slot]) -> None:
    for slot in slots:
        slot.run()


def _join_parts(parts: list[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
