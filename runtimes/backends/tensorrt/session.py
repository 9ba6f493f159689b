"""Sessions on engines of TensorRT and TensorRT-RTX."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import numpy as np

from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.streams import (
    Context,
    EngineLane,
    EngineModel,
    Piece,
    Pool,
    pieces,
    row_bytes,
    row_shape,
)
from runtimes.errors import DeviceLostError, InputError
from runtimes.protocol import Description, RunTimes
from runtimes.tensors import cuda
from runtimes.tensors.cuda import CudaGraph, DeviceBuffer, Event, PinnedBuffer, Stream
from runtimes.tensors.device_clock import time_run
from runtimes.tensors.dlpack import DeviceTensor
from runtimes.tensors.spec import Arrays, TensorSpec

CONTEXTS = 4
"""The default number of calls that run at once for each profile: enough to copy for some calls while others compute."""

_ORDINAL = 0
"""The number of the GPU among those in CUDA_VISIBLE_DEVICES."""


class EngineSession:
    """A session on an engine, as ``DeviceSession``. Many threads may run it at once.

    A batch that is too large for all profiles is run in pieces; a batch that is too small is padded.

    Args:
        library: The module ``tensorrt`` or ``tensorrt_rtx``.
        engine: The library's engine, with its weights. The session owns it.
        description: The description of what runs.
        profiles: The optimisation profiles, in the order of the engine.
        cuda_graphs: Whether batch sizes that occur again are recorded and replayed.
        inputs: The specifications of the inputs. The first dimension is the batch; the others are fixed.
        outputs: The specifications of the outputs. The first dimension is the batch; the others are fixed.
        contexts: The number of calls that may run at once for each profile. Further calls wait.
        describe_errors: Returns the library's last errors, for messages.

    Raises:
        CompatibilityError: Another dimension than the first may vary.
    """

    def __init__(
        self,
        library: ModuleType,
        engine: Any,
        description: Description,
        profiles: tuple[Profile, ...],
        cuda_graphs: bool,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        contexts: int = CONTEXTS,
        describe_errors: Callable[[], str] = lambda: "the library gave no reason",
    ) -> None:
        for spec in (*inputs, *outputs):
            row_shape(spec)
        self.inputs = inputs
        self.outputs = outputs
        self.description = description
        self._model = EngineModel(library, engine, inputs, outputs, profiles, cuda_graphs, describe_errors)
        self._profiles = profiles
        self._pools = tuple(
            Pool(functools.partial(EngineLane, self._model, number), contexts) for number in range(len(profiles))
        )
        self._bound: weakref.WeakSet[_Bound] = weakref.WeakSet()
        self._lost: DeviceLostError | None = None

    def run(self, arrays: Arrays) -> Arrays:
        """Run the engine, as ``Session.run``."""
        with self._device():
            images = len(arrays[self.inputs[0].name])
            outputs = self._empty(images)
            for piece in pieces(images, self._profiles):
                with self._pools[piece.profile].lane() as lane:
                    lane.run(arrays, outputs, piece)
        return outputs

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        """Run the engine on device tensors, as ``DeviceSession.run_tensors``.

        Raises:
            InputError: A tensor is on another GPU than the engine.
        """
        for name, tensor in tensors.items():
            if tensor.device != _ORDINAL:
                raise InputError(
                    f"the input {name} is on CUDA device {tensor.device}, but the engine is on device {_ORDINAL}",
                    code="tensor-on-other-device",
                    hint=f"pass tensor.to('cuda:{_ORDINAL}')",
                )
        with self._device():
            images = tensors[self.inputs[0].name].shape[0]
            outputs = self._empty(images)
            for piece in pieces(images, self._profiles):
                with self._pools[piece.profile].lane() as lane:
                    lane.run_tensors(tensors, outputs, piece)
        return outputs

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the engine on the arrays, as ``Session.bind``."""
        bound = self._bind(arrays)

        def run_once() -> None:
            with self._device():
                bound.run()

        return run_once

    def bind_timed(self, arrays: Arrays) -> Callable[[], RunTimes]:
        """Return a function that runs the engine and returns its times, as ``DeviceSession.bind_timed``."""
        bound = self._bind(arrays)
        with self._device():
            before, after = Event(), Event()

        def run_once() -> RunTimes:
            with self._device():
                return bound.run_timed(before, after)

        return run_once

    def close(self) -> None:
        """Free the engine and everything on the device."""
        # If the device failed, its memory is gone.
        with suppress(DeviceLostError), cuda.current(_ORDINAL):
            for bound in tuple(self._bound):
                bound.close()
            for pool in self._pools:
                pool.close()
        self._pools = ()
        del self._model  # the engine is freed last

    def _bind(self, arrays: Arrays) -> _Bound:
        with self._device():
            bound = _Bound(self._model, arrays)
        self._bound.add(bound)
        return bound

    def _empty(self, images: int) -> Arrays:
        return {spec.name: np.empty((images, *row_shape(spec)), spec.dtype) for spec in self.outputs}

    @contextmanager
    def _device(self) -> Iterator[None]:
        """Make the device current for the ``with`` block. After the device failed, raise the same error every time."""
        if self._lost is not None:
            raise DeviceLostError(
                f"the GPU failed earlier: {self._lost.what}", code="gpu-failed-earlier", hint=self._lost.hint
            )
        try:
            with cuda.current(_ORDINAL):
                yield
        except DeviceLostError as error:
            self._lost = error
            raise


class _Bound:
    """A batch on the device, with a context for each of its pieces. Only one thread at a time may run it."""

    def __init__(self, model: EngineModel, arrays: Arrays) -> None:
        self._stream = Stream()
        self._scratch = DeviceBuffer(model.engine.device_memory_size_v2)
        self._buffers: list[DeviceBuffer] = []
        self._contexts: list[Context] = []
        self._graph: CudaGraph | None = None
        for piece in pieces(len(arrays[model.inputs[0].name]), model.profiles):
            self._add(model, arrays, piece)
        self._queue()
        self._stream.synchronize()
        if model.cuda_graphs:
            self._graph = CudaGraph.capture(self._stream, self._queue)

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
        context = Context(model, piece.profile, self._stream, self._scratch)
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
        self._start()
        self._stream.synchronize()

    def run_timed(self, before: Event, after: Event) -> RunTimes:
        """Return the times of a run between the events ``before`` and ``after``, as ``time_run``."""
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
