"""An opened engine: its answers to many threads, and its calls to be measured."""

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
from runtimes.protocol import Arrays, Description, TensorSpec
from runtimes.tensors import cuda
from runtimes.tensors.cuda import CudaGraph, DeviceBuffer, Event, PinnedBuffer, Stream
from runtimes.tensors.dlpack import DeviceTensor

CONTEXTS = 4
"""Calls that run at once, for each profile, unless told otherwise: enough to copy for one while another computes."""

_ORDINAL = 0
"""The device that everything is on; ``CUDA_VISIBLE_DEVICES`` chooses which one that is."""


class EngineSession:
    """Runs an engine from many threads at once. A batch that no profile takes is run in pieces, or padded.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        engine: the library's own, with its weights; the session's from now on.
        profiles: of the engine, in its order.
        cuda_graphs: whether batch sizes that come again are recorded and replayed.
        inputs, outputs: as the engine has them; the first dimension of each is the batch, the others are fixed.
        contexts: calls that may run at once, for each profile; further ones wait.
        heard: the library's last words, for messages.

    Raises:
        CompatibilityError: another dimension than the first may vary.
    """

    def __init__(
        self,
        library: ModuleType,
        engine: Any,
        about: Description,
        profiles: tuple[Profile, ...],
        cuda_graphs: bool,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        contexts: int = CONTEXTS,
        heard: Callable[[], str] = lambda: "it gave no reason",
    ) -> None:
        for spec in (*inputs, *outputs):
            row_shape(spec)
        self.inputs = inputs
        self.outputs = outputs
        self.description = about
        self._model = EngineModel(library, engine, inputs, outputs, profiles, cuda_graphs, heard)
        self._profiles = profiles
        self._pools = tuple(
            Pool(functools.partial(EngineLane, self._model, number), contexts) for number in range(len(profiles))
        )
        self._bound: weakref.WeakSet[_Bound] = weakref.WeakSet()
        self._lost: DeviceLostError | None = None

    def run(self, arrays: Arrays) -> Arrays:
        with self._device():
            images = len(arrays[self.inputs[0].name])
            outputs = self._empty(images)
            for piece in pieces(images, self._profiles):
                with self._pools[piece.profile].lane() as lane:
                    lane.run(arrays, outputs, piece)
        return outputs

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        for name, tensor in tensors.items():
            if tensor.device != _ORDINAL:
                raise InputError(
                    f"{name}: it lies on CUDA device {tensor.device}, the engine on {_ORDINAL}",
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
        bound = self._bind(arrays)

        def run_once() -> None:
            with self._device():
                bound.run()

        return run_once

    def bind_timed(self, arrays: Arrays) -> Callable[[], float]:
        bound = self._bind(arrays)
        with self._device():
            before, after = Event(), Event()

        def run_once() -> float:
            with self._device():
                return bound.run_timed(before, after)

        return run_once

    def close(self) -> None:
        # A device that failed has taken with it what is to be freed.
        with suppress(DeviceLostError), cuda.current(_ORDINAL):
            for bound in tuple(self._bound):
                bound.close()
            for pool in self._pools:
                pool.close()
        self._pools = ()
        del self._model  # the engine goes last

    def _bind(self, arrays: Arrays) -> _Bound:
        with self._device():
            bound = _Bound(self._model, arrays)
        self._bound.add(bound)
        return bound

    def _empty(self, images: int) -> Arrays:
        return {spec.name: np.empty((images, *row_shape(spec)), spec.dtype) for spec in self.outputs}

    @contextmanager
    def _device(self) -> Iterator[None]:
        """Surrounds what touches the device, which can fail for good."""
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
    """A batch on the device, with a context for each of its pieces. For one thread at a time."""

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
        """Runs once; returns when the device has finished."""
        self._start()
        self._stream.synchronize()

    def run_timed(self, before: Event, after: Event) -> float:
        """Runs once; the seconds between the two events."""
        before.record(self._stream)
        self._start()
        after.record(self._stream)
        self._stream.synchronize()
        return after.elapsed_s(before)

    def close(self) -> None:
        """Frees everything. Nothing of it runs."""
        if self._graph is not None:
            self._graph.close()
        self._contexts.clear()
        for owned in (*self._buffers, self._scratch, self._stream):
            owned.close()
