"""ONNX Runtime's runs on a GPU: from the host and back, on tensors that lie there, and timed by the device."""

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
from runtimes.backends.onnxruntime.serialised import TURN, Turns
from runtimes.errors import BackendUnavailableError, InputError, RexportError
from runtimes.protocol import Arrays, Description, Options
from runtimes.tensors import cuda, dlpack
from runtimes.tensors.dlpack import DeviceTensor

if TYPE_CHECKING:
    import onnxruntime

_Result = TypeVar("_Result")


def open_on_gpu(
    artifact: Artifact,
    options: Options,
    provider: CudaProvider | TensorrtProvider,
    describe: Callable[[onnxruntime.InferenceSession], Description],
    most: int | None = None,
) -> OnnxRuntimeDeviceSession:
    """A session on the provider's GPU, with a stream of its own. ``most`` as the session's. Meanwhile the calls of all
    other sessions on GPUs wait.

    Raises:
        BackendUnavailableError: there is no GPU, or this ONNX Runtime has no such provider or cannot load it.
        RexportError: as ``native.open_session``.
    """
    session_factory.import_library(provider.name)
    missing = cuda.missing()
    if missing is not None:
        raise BackendUnavailableError(
            f"{provider.name} finds no CUDA device", code="provider-without-gpu", hint=missing.sentence
        )
    with TURN:
        with cuda.current(provider.device_id):
            stream = cuda.Stream()
        session = session_factory.open_session(
            artifact, replace(provider, user_compute_stream=stream.handle), options.threads
        )
    model = BoundModel(session, *session_factory.specs(session), options.device, provider.device_id)
    recording = isinstance(provider, CudaProvider) and provider.enable_cuda_graph
    return OnnxRuntimeDeviceSession(model, describe(session), stream, recording, most)


class OnnxRuntimeDeviceSession:
    """An ``onnxruntime.InferenceSession`` on a GPU. Calls from many threads take turns, those of other such
    sessions among them: see ``runtimes.backends.onnxruntime.serialised.TURN``.

    Args:
        model: whose native session queues its work on ``stream``.
        about: as ``description``.
        stream: of the GPU.
        recording: whether the session was opened to record its runs.
        most: images of the largest batch that one run takes; larger ones are run in parts. ``None`` for any.
    """

    def __init__(
        self, model: BoundModel, about: Description, stream: cuda.Stream, recording: bool, most: int | None = None
    ) -> None:
        self.inputs = model.inputs
        self.outputs = model.outputs
        self.description = about
        self._model = model
        self._stream = stream
        self._most = most
        self._slots = Slots(model, recording)
        self._turns = Turns()

    def run(self, arrays: Arrays) -> Arrays:
        parts = self._parts(arrays)
        return self._turn(lambda: _join_parts([self._infer(part) for part in parts]))

    def _infer(self, arrays: Arrays) -> Arrays:
        slot = self._slots.get(self._shapes(arrays))
        slot.fill(arrays)
        slot.run()
        return slot.results()

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        slots = self._bound(arrays)
        return lambda: self._turn(lambda: _run_all(slots))

    def bind_timed(self, arrays: Arrays) -> Callable[[], float]:
        """As ``DeviceSession.bind_timed``. The first run is made now: it finds memory and algorithms, and records."""
        slots = self._bound(arrays)
        before, after = cuda.Event(), cuda.Event()

        def run_timed() -> float:
            before.record(self._stream)
            for slot in slots:
                slot.queue()
            after.record(self._stream)
            return after.elapsed_s(before)

        self._turn(lambda: _run_all(slots))
        return lambda: self._turn(run_timed)

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        for name, tensor in tensors.items():
            if tensor.device != self._model.ordinal:
                raise InputError(
                    f"{name!r} lies on GPU {tensor.device}, the model on GPU {self._model.ordinal}",
                    code="tensor-on-other-gpu",
                )
        self._turns.call_here(lambda: self._order(tensors))  # in the caller's thread, whose own queue is meant
        images = tensors[self.inputs[0].name].shape[0]
        return self._turn(lambda: _join_parts([self._infer_rows(tensors, *part) for part in self._bounds(images)]))

    def _order(self, tensors: Mapping[str, DeviceTensor]) -> None:
        """The stream waits for what their owners have queued. Not while a run on it is recorded, by another thread."""
        for tensor in tensors.values():
            dlpack.wait_for_producer(tensor, self._stream.handle)

    def _infer_rows(self, tensors: Mapping[str, DeviceTensor], start: int, stop: int) -> Arrays:
        """Of these rows, without a record, which would keep their addresses."""
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
        self._turns.close()
        with TURN:
            # Bound calls may still hold the native session, so that the stream is freed with the last of them.
            del self._slots, self._model

    def _bound(self, arrays: Arrays) -> list[Slot]:
        def fill_slots() -> list[Slot]:
            slots = []
            for part in self._parts(arrays):
                slots.append(self._slots.make(self._shapes(part)))
                slots[-1].fill(part)
            return slots

        return self._turn(fill_slots)

    def _shapes(self, arrays: Arrays) -> tuple[tuple[int, ...], ...]:
        return tuple(arrays[spec.name].shape for spec in self.inputs)

    def _bounds(self, images: int) -> list[tuple[int, int]]:
        step = self._most or images
        return [(start, min(start + step, images)) for start in range(0, images, step)]

    def _parts(self, arrays: Arrays) -> list[Arrays]:
        images = len(arrays[self.inputs[0].name])
        if self._most is None or images <= self._most:
            return [arrays]
        return [{name: array[start:stop] for name, array in arrays.items()} for start, stop in self._bounds(images)]

    def _turn(self, act: Callable[[], _Result]) -> _Result:
        try:
            return self._turns.call(act)
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
