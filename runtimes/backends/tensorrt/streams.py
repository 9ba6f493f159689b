"""The lanes in which an engine runs: each has a stream and memory of its own, so that one thread at a time may use it.

TensorRT's rules for execution contexts shape what stands here. A context is for one thread at a time. A graph that was
recorded from a context is void as soon as the context changes, so that every recorded batch size has a context of its
own; what the contexts of a lane compute in between lies in one piece of memory, since a lane runs one thing after the
other. A context must have run once in its shape before it is recorded. Several contexts may have the same profile
since TensorRT 10.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from runtimes.artifacts.manifest import Profile
from runtimes.errors import CompatibilityError, DeviceLostError, ResourceError
from runtimes.protocol import Arrays, TensorSpec
from runtimes.tensors import dlpack
from runtimes.tensors.cuda import CudaGraph, DeviceBuffer, PinnedBuffer, Stream
from runtimes.tensors.dlpack import DeviceTensor

GRAPHS = 8
"""Batch sizes that one lane keeps recorded; the one that was used longest ago makes room."""

ALIGNMENT = 256
"""What TensorRT wants of every address, in bytes."""


class CompiledKernels:
    """TensorRT-RTX's kernels, which it compiles when they are first needed: all contexts of an engine share them."""

    def __init__(self) -> None:
        self._cache: Any = None

    def shared_by(self, runtime_config: Any) -> None:
        """Has the contexts of the library's runtime configuration take and leave their kernels here."""
        if self._cache is None:
            self._cache = runtime_config.create_runtime_cache()
        if not runtime_config.set_runtime_cache(self._cache):
            raise ResourceError("TensorRT-RTX took no cache of kernels", code="kernel-cache-refused")


@dataclass(frozen=True)
class EngineModel:
    """What all lanes of an engine share. ``heard`` gives the library's last words, for messages."""

    library: ModuleType
    engine: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    cuda_graphs: bool
    heard: Callable[[], str]
    compiled: CompiledKernels = field(default_factory=lambda: CompiledKernels())

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Inputs and outputs."""
        return (*self.inputs, *self.outputs)


@dataclass(frozen=True)
class Piece:
    """A part of a batch: ``count`` images from ``start`` on, run with the profile of that number."""

    start: int
    count: int
    profile: int


def pieces(images: int, profiles: tuple[Profile, ...]) -> tuple[Piece, ...]:
    """A batch, as it is run: whole if a profile takes it, else in pieces of the largest one's most.

    Each piece goes to the profile that computes the fewest images for it, and of those to the narrowest.
    """
    largest = max(row.most for row in profiles)
    found = []
    for start in range(0, images, largest):
        count = min(largest, images - start)
        able = [number for number, row in enumerate(profiles) if count <= row.most]
        best = min(able, key=lambda number: (max(count, profiles[number].least), profiles[number].most))
        found.append(Piece(start, count, best))
    return tuple(found)


def row_shape(spec: TensorSpec) -> tuple[int, ...]:
    """Of one image.

    Raises:
        CompatibilityError: another dimension than the batch may vary.
    """
    sizes = tuple(size for size in spec.shape[1:] if isinstance(size, int))
    if not spec.shape or len(sizes) != len(spec.shape) - 1:
        raise CompatibilityError(
            f"{spec}: an engine's first dimension is the batch, and the others are fixed", code="engine-dimensions-vary"
        )
    return sizes


def row_bytes(spec: TensorSpec) -> int:
    """Of one image."""
    return int(np.prod(row_shape(spec), dtype=np.int64)) * np.dtype(spec.dtype).itemsize


class Context:
    """An execution context of one profile, with memory for activations that it may share with others of its lane."""

    def __init__(self, model: EngineModel, profile: int, stream: Stream, scratch: DeviceBuffer) -> None:
        self._model = model
        self._native = _native_context(model)
        # The engine keeps all names for the inspector; naming every kernel as it is launched costs time in each run.
        self._native.nvtx_verbosity = model.library.ProfilingVerbosity.NONE
        if profile != self._native.active_optimization_profile:
            if not self._native.set_optimization_profile_async(profile, stream.handle):
                raise self._refusal(f"select profile {profile}")
            stream.synchronize()
        self._native.set_device_memory(scratch.pointer, scratch.size_bytes)

    def place(self, images: int, addresses: Mapping[str, int]) -> None:
        """Sets the batch, and where each input and output lies."""
        for spec in self._model.inputs:
            if not self._native.set_input_shape(spec.name, (images, *row_shape(spec))):
                raise self._refusal(f"take a batch of {images}")
        for spec in self._model.outputs:
            shape = tuple(self._native.get_tensor_shape(spec.name))
            if shape != (images, *row_shape(spec)):
                raise CompatibilityError(
                    f"{spec}: the engine gives {shape} for {images} images", code="engine-output-shape"
                )
        for name, address in addresses.items():
            if not self._native.set_tensor_address(name, address):
                raise self._refusal(f"use the memory of {name}")

    def enqueue(self, stream: Stream) -> None:
        """Queues a run."""
        if not self._native.execute_async_v3(stream.handle):
            raise self._refusal("run it")

    def _refusal(self, doing: str) -> ResourceError:
        return ResourceError(
            f"{self._model.library.__name__} could not {doing}: {self._model.heard()}", code="engine-call-failed"
        )


_MAKING = threading.Lock()


def _native_context(model: EngineModel) -> Any:
    """The library's own context, which brings no memory for activations."""
    managed = model.library.ExecutionContextAllocationStrategy.USER_MANAGED
    kernels = getattr(model.library, "DynamicShapesKernelSpecializationStrategy", None)
    with _MAKING:
        if kernels is None:
            made = model.engine.create_execution_context(managed)
        else:
            # TensorRT-RTX compiles kernels for a shape while it runs others in their place: those would be recorded.
            config = model.engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(managed)
            config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER
            model.compiled.shared_by(config)
            made = model.engine.create_execution_context(config)
    if made is None:
        raise ResourceError(
            f"{model.library.__name__} could not make an execution context: {model.heard()}", code="context-not-made"
        )
    return made


@dataclass(frozen=True)
class _Recorded:
    """A graph and the context that it was recorded from, which must stay as it was."""

    graph: CudaGraph
    context: Context


class EngineLane:
    """All that one call at a time needs, for batches up to its profile's most: made once, then only filled.

    Memory on the device and pinned memory on the host for each input and output, memory for activations, a stream.
    """

    def __init__(self, model: EngineModel, profile: int) -> None:
        most = model.profiles[profile].most
        self._model = model
        self._profile = profile
        self._least = model.profiles[profile].least
        self._stream = Stream()
        self._scratch = DeviceBuffer(model.engine.device_memory_size_v2)
        self._device = {spec.name: DeviceBuffer(most * row_bytes(spec)) for spec in model.specs}
        self._pinned = {spec.name: PinnedBuffer(most * row_bytes(spec)) for spec in model.specs}
        self._views = {
            spec.name: self._pinned[spec.name].array(spec.dtype, (most, *row_shape(spec))) for spec in model.specs
        }
        self._context: Context | None = Context(model, profile, self._stream, self._scratch)
        self._recorded: OrderedDict[int, _Recorded | None] = OrderedDict()

    def run(self, arrays: Arrays, outputs: Arrays, piece: Piece) -> None:
        """Host to host: the piece of the inputs into the same piece of the outputs."""
        images = max(piece.count, self._least)
        for spec in self._model.inputs:
            rows, view = arrays[spec.name][piece.start : piece.start + piece.count], self._views[spec.name]
            view[: piece.count] = rows
            view[piece.count : images] = rows[-1]  # fewer than the profile takes: the last one again
        self._run(images)
        self._copy_out(outputs, piece)

    def run_tensors(self, tensors: Mapping[str, DeviceTensor], outputs: Arrays, piece: Piece) -> None:
        """As ``run`` for inputs on the device. They are read where they lie, if TensorRT can: at an aligned address,
        and as many as the profile takes; else they are copied on the device."""
        images = max(piece.count, self._least)
        addresses = {name: buffer.pointer for name, buffer in self._device.items()}
        for spec in self._model.inputs:
            tensor = tensors[spec.name]
            dlpack.wait_for_producer(tensor, self._stream.handle)
            start = tensor.pointer + piece.start * row_bytes(spec)
            if images == piece.count and start % ALIGNMENT == 0:
                addresses[spec.name] = start
            else:
                self._copy_in(spec, start, piece.count, images)
        context = self._plain_context()
        context.place(images, addresses)
        context.enqueue(self._stream)
        self._fetch(images)
        self._copy_out(outputs, piece)

    def _copy_in(self, spec: TensorSpec, source: int, count: int, images: int) -> None:
        target, row = self._device[spec.name].pointer, row_bytes(spec)
        self._stream.within_device(target, source, count * row)
        for number in range(count, images):
            self._stream.within_device(target + number * row, source + (count - 1) * row, row)

    def _run(self, images: int) -> None:
        """Runs what lies in the pinned memory: a batch size that comes again is recorded, and replayed from then on."""
        recorded = self._recorded.get(images)
        if recorded is not None:
            self._recorded.move_to_end(images)
            recorded.graph.launch(self._stream)
        elif images in self._recorded:
            self._recorded[images] = self._record(images)
        else:
            context = self._plain_context()
            self._place(context, images)
            self._queue(context, images)
            if self._model.cuda_graphs:
                self._recorded[images] = None
                if len(self._recorded) > GRAPHS:
                    self._drop(self._recorded.popitem(last=False)[1])

    def _record(self, images: int) -> _Recorded:
        """Runs in a new context, which is recorded then."""
        context = Context(self._model, self._profile, self._stream, self._scratch)
        self._place(context, images)
        self._queue(context, images)
        self._stream.synchronize()
        return _Recorded(CudaGraph.capture(self._stream, lambda: self._queue(context, images)), context)

    def _place(self, context: Context, images: int) -> None:
        context.place(images, {name: buffer.pointer for name, buffer in self._device.items()})

    def _queue(self, context: Context, images: int) -> None:
        for spec in self._model.inputs:
            target, source = self._device[spec.name].pointer, self._pinned[spec.name].pointer
            self._stream.to_device(target, source, images * row_bytes(spec))
        context.enqueue(self._stream)
        self._fetch(images)

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
            raise ResourceError("this lane is closed", code="lane-closed")
        return self._context

    @staticmethod
    def _drop(recorded: _Recorded | None) -> None:
        if recorded is not None:
            recorded.graph.close()

    def close(self) -> None:
        """Frees everything, after what still runs.

        Raises:
            DeviceLostError: the device has failed; what could be freed has been.
        """
        try:
            self._stream.synchronize()
        finally:
            for recorded in self._recorded.values():
                self._drop(recorded)
            self._recorded.clear()
            self._context = None
            self._views.clear()
            for owned in (*self._device.values(), *self._pinned.values(), self._scratch, self._stream):
                owned.close()


class Pool:
    """The lanes of one profile: made when they are needed, up to ``most``; then a thread waits for one."""

    def __init__(self, make: Callable[[], EngineLane], most: int) -> None:
        self._make = make
        self._most = most
        self._idle: list[EngineLane] = []
        self._made = 0
        self._changed = threading.Condition()

    @contextmanager
    def lane(self) -> Iterator[EngineLane]:
        """A lane that is the caller's alone meanwhile. One in which something failed is not used again.

        Raises:
            ResourceError: there is no memory for the first one. For another than the first, the thread waits.
        """
        lane = self._take_idle()
        try:
            yield lane
        except BaseException as error:
            self._count(-1)
            try:
                lane.close()
            except DeviceLostError as lost:
                raise lost from error
            raise
        with self._changed:
            self._idle.append(lane)
            self._changed.notify()

    def _take_idle(self) -> EngineLane:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._idle or self._made < self._most)
                if self._idle:
                    return self._idle.pop()  # the one used last, whose memory is warm
                self._made += 1
            try:
                return self._make()
            except BaseException as error:
                if not self._spare(error):
                    raise

    def _spare(self, error: BaseException) -> bool:
        """After a lane could not be made: whether there are others, which are to do."""
        lost = isinstance(error, DeviceLostError)
        with self._changed:
            self._made -= 1
            enough = isinstance(error, ResourceError) and not lost and self._made > 0
            if enough:
                self._most = self._made
            self._changed.notify()
        return enough

    def _count(self, change: int) -> None:
        with self._changed:
            self._made += change
            self._changed.notify()

    def close(self) -> None:
        """Frees the lanes. None is in use."""
        with self._changed:
            idle, self._idle = self._idle, []
        for lane in idle:
            lane.close()
