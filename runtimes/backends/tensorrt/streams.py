"""Lanes: each has its own stream and memory, so that several threads can run an engine at once, one in each lane.

The design follows TensorRT's rules for execution contexts:

- Only one thread at a time may use a context.
- A recording becomes invalid when its context changes. Therefore each recorded batch size has its own context.
- The contexts of a lane share the memory for intermediate results, because a lane executes one run after the other.
- A context must have run once with a shape before a run can be recorded.
- Several contexts may use the same profile (since TensorRT 10).
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
from runtimes.tensors import dlpack
from runtimes.tensors.cuda import CudaGraph, DeviceBuffer, PinnedBuffer, Stream
from runtimes.tensors.dlpack import DeviceTensor
from runtimes.tensors.spec import Arrays, TensorSpec

GRAPHS = 8
"""The largest number of recorded batch sizes of a lane. The batch size used least recently is dropped."""

ALIGNMENT = 256
"""The alignment in bytes that TensorRT needs for addresses."""


class CompiledKernels:
    """The kernels that TensorRT-RTX compiles on first use. All contexts of an engine share them."""

    def __init__(self) -> None:
        self._cache: Any = None

    def shared_by(self, runtime_config: Any) -> None:
        """Make the contexts of a runtime configuration of the library use these kernels.

        Raises:
            ResourceError: The library does not accept the cache.
        """
        if self._cache is None:
            self._cache = runtime_config.create_runtime_cache()
        if not runtime_config.set_runtime_cache(self._cache):
            raise ResourceError(
                "TensorRT-RTX did not accept its own cache of compiled kernels", code="kernel-cache-refused"
            )


@dataclass(frozen=True)
class EngineModel:
    """The engine and everything that its lanes share.

    Attributes:
        library: The module of the library.
        engine: The library's engine.
        inputs: The specifications of the inputs.
        outputs: The specifications of the outputs.
        profiles: The optimisation profiles, in the order of the engine.
        cuda_graphs: Whether runs are recorded.
        describe_errors: Returns the library's last errors, for messages.
        compiled: The compiled kernels of TensorRT-RTX.
    """

    library: ModuleType
    engine: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    cuda_graphs: bool
    describe_errors: Callable[[], str]
    compiled: CompiledKernels = field(default_factory=lambda: CompiledKernels())

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The specifications of the inputs and outputs."""
        return (*self.inputs, *self.outputs)


@dataclass(frozen=True)
class Piece:
    """A part of a batch.

    Attributes:
        start: The number of the first image.
        count: The number of images.
        profile: The number of the profile that runs the piece.
    """

    start: int
    count: int
    profile: int


def pieces(images: int, profiles: tuple[Profile, ...]) -> tuple[Piece, ...]:
    """Return the pieces in which a batch is run.

    There is one piece if a profile allows the batch, and otherwise pieces of the largest batch of all profiles. Each
    piece is run with the profile that needs the least padding, and among those with the one of the smallest maximum.

    Args:
        images: The batch size.
        profiles: The optimisation profiles.
    """
    largest = max(row.most for row in profiles)
    result = []
    for start in range(0, images, largest):
        count = min(largest, images - start)
        able = [number for number, row in enumerate(profiles) if count <= row.most]
        best = min(able, key=lambda number: (max(count, profiles[number].least), profiles[number].most))
        result.append(Piece(start, count, best))
    return tuple(result)


def row_shape(spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of one image: all dimensions but the batch.

    Raises:
        CompatibilityError: Another dimension than the batch may vary.
    """
    sizes = tuple(size for size in spec.shape[1:] if isinstance(size, int))
    if not spec.shape or len(sizes) != len(spec.shape) - 1:
        raise CompatibilityError(
            f"{spec}: in an engine, only the first dimension, the batch, may vary", code="engine-dimensions-vary"
        )
    return sizes


def row_bytes(spec: TensorSpec) -> int:
    """Return the size of one image in bytes."""
    return int(np.prod(row_shape(spec), dtype=np.int64)) * np.dtype(spec.dtype).itemsize


class Context:
    """An execution context for one profile.

    Args:
        model: The engine.
        profile: The number of the profile.
        stream: The stream for selecting the profile.
        scratch: The memory for intermediate results, which the contexts of a lane may share.

    Raises:
        ResourceError: The library cannot create the context or select the profile.
    """

    def __init__(self, model: EngineModel, profile: int, stream: Stream, scratch: DeviceBuffer) -> None:
        self._model = model
        self._native = _native_context(model)
        # The engine keeps the names of layers for the inspector. Marking kernels with names would slow down each run.
        self._native.nvtx_verbosity = model.library.ProfilingVerbosity.NONE
        if profile != self._native.active_optimization_profile:
            if not self._native.set_optimization_profile_async(profile, stream.handle):
                raise self._error(f"select profile {profile}")
            stream.synchronize()
        self._native.set_device_memory(scratch.pointer, scratch.size_bytes)

    def place(self, images: int, addresses: Mapping[str, int]) -> None:
        """Set the batch size and the address of each input and output.

        Args:
            images: The batch size.
            addresses: The device address of each input and output, by name.

        Raises:
            CompatibilityError: An output has another shape than specified.
            ResourceError: The library does not accept the batch size or an address.
        """
        for spec in self._model.inputs:
            if not self._native.set_input_shape(spec.name, (images, *row_shape(spec))):
                raise self._error(f"set a batch of {images}")
        for spec in self._model.outputs:
            shape = tuple(self._native.get_tensor_shape(spec.name))
            if shape != (images, *row_shape(spec)):
                raise CompatibilityError(
                    f"the output {spec} has the shape {shape} for a batch of {images}", code="engine-output-shape"
                )
        for name, address in addresses.items():
            if not self._native.set_tensor_address(name, address):
                raise self._error(f"set the address of {name}")

    def enqueue(self, stream: Stream) -> None:
        """Queue a run on the stream.

        Raises:
            ResourceError: The library cannot queue the run.
        """
        if not self._native.execute_async_v3(stream.handle):
            raise self._error("queue a run")

    def _error(self, doing: str) -> ResourceError:
        return ResourceError(
            f"{self._model.library.__name__} cannot {doing}: {self._model.describe_errors()}",
            code="engine-call-failed",
        )


_CONTEXT_LOCK = threading.Lock()
"""The lock for creating contexts."""


def _native_context(model: EngineModel) -> Any:
    """Create the library's context, without memory for intermediate results."""
    managed = model.library.ExecutionContextAllocationStrategy.USER_MANAGED
    kernels = getattr(model.library, "DynamicShapesKernelSpecializationStrategy", None)
    with _CONTEXT_LOCK:
        if kernels is None:
            context = model.engine.create_execution_context(managed)
        else:
            # By default, TensorRT-RTX runs general kernels while it compiles those for a shape. The general kernels
            # would be recorded.
            config = model.engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(managed)
            config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER
            model.compiled.shared_by(config)
            context = model.engine.create_execution_context(config)
    if context is None:
        raise ResourceError(
            f"{model.library.__name__} cannot create an execution context: {model.describe_errors()}",
            code="context-not-made",
        )
    return context


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
        self._scratch = DeviceBuffer(model.engine.device_memory_size_v2)
        self._device = {spec.name: DeviceBuffer(most * row_bytes(spec)) for spec in model.specs}
        self._pinned = {spec.name: PinnedBuffer(most * row_bytes(spec)) for spec in model.specs}
        self._views = {
            spec.name: self._pinned[spec.name].array(spec.dtype, (most, *row_shape(spec))) for spec in model.specs
        }
        self._context: Context | None = Context(model, profile, self._stream, self._scratch)
        self._recorded: OrderedDict[int, _Recorded | None] = OrderedDict()

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
        self._run(images)
        self._copy_out(outputs, piece)

    def run_tensors(self, tensors: Mapping[str, DeviceTensor], outputs: Arrays, piece: Piece) -> None:
        """Run a piece of a batch from device tensors to host arrays, and wait for the result.

        The tensors are read in place if the address is aligned and no padding is needed. Otherwise they are copied on
        the device.

        Args:
            tensors: The inputs of the whole batch, by name.
            outputs: The outputs of the whole batch, by name. The rows of the piece are written.
            piece: The piece to run.
        """
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
        """Queue a run on the pinned inputs. The second run of a batch size is recorded, later runs are replayed."""
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
        """Run in a new context and then record the same run."""
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
            raise ResourceError("the session of the engine is closed", code="lane-closed")
        return self._context

    @staticmethod
    def _drop(recorded: _Recorded | None) -> None:
        if recorded is not None:
            recorded.graph.close()

    def close(self) -> None:
        """Wait for queued work and free everything.

        Raises:
            DeviceLostError: The device failed. Everything has been freed as far as possible.
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
    """The lanes of one profile, which are created when needed. A thread waits if all lanes are in use.

    Args:
        make: Creates a lane.
        limit: The largest number of lanes.
    """

    def __init__(self, make: Callable[[], EngineLane], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._idle: list[EngineLane] = []
        self._count = 0
        self._changed = threading.Condition()

    @contextmanager
    def lane(self) -> Iterator[EngineLane]:
        """Yield a lane that no other thread uses during the ``with`` block. After an error, the lane is freed.

        If there is not enough memory for another lane, the thread waits for an existing one.

        Raises:
            ResourceError: There is not enough memory for the first lane.
            DeviceLostError: The device failed.
        """
        lane = self._take_idle()
        try:
            yield lane
        except BaseException as error:
            self._add_to_count(-1)
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
                self._changed.wait_for(lambda: self._idle or self._count < self._limit)
                if self._idle:
                    return self._idle.pop()  # the lane used last, whose memory is likely in caches
                self._count += 1
            try:
                return self._make()
            except BaseException as error:
                if not self._lower_limit(error):
                    raise

    def _lower_limit(self, error: BaseException) -> bool:
        """After a lane could not be created, return whether the existing lanes are enough, which become the limit."""
        lost = isinstance(error, DeviceLostError)
        with self._changed:
            self._count -= 1
            enough = isinstance(error, ResourceError) and not lost and self._count > 0
            if enough:
                self._limit = self._count
            self._changed.notify()
        return enough

    def _add_to_count(self, change: int) -> None:
        with self._changed:
            self._count += change
            self._changed.notify()

    def close(self) -> None:
        """Free the lanes. No lane may be in use."""
        with self._changed:
            idle, self._idle = self._idle, []
        for lane in idle:
            lane.close()
