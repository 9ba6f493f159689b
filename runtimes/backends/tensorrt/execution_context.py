"""Execution contexts of an engine, and everything that its contexts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from runtimes.artifacts.manifest import Profile
from runtimes.errors import CompatibilityError, DeviceLostError, ResourceError
from runtimes.tensors.capture import capture_lock, warn_unrecorded
from runtimes.tensors.cuda_objects import CudaGraph, DeviceBuffer, Stream
from runtimes.tensors.spec import TensorSpec


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
        unrecorded: The batch sizes that could not be recorded.
    """

    library: ModuleType
    engine: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    cuda_graphs: bool
    describe_errors: Callable[[], str]
    compiled: CompiledKernels = field(default_factory=lambda: CompiledKernels())
    unrecorded: set[int] = field(default_factory=set)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The specifications of the inputs and outputs."""
        return (*self.inputs, *self.outputs)

    def capture(self, images: int, stream: Stream, work: Callable[[], None]) -> CudaGraph | None:
        """Record the work that ``work`` queues on the stream, or return ``None`` if it cannot be recorded.

        A batch size that cannot be recorded is a warning for each session, not an error: the caller goes on without a
        graph.

        Args:
            images: The batch size, for the warning.
            stream: The stream, which has no work left.
            work: Queues a run that has succeeded before.

        Raises:
            DeviceLostError: The device failed.
        """
        try:
            return CudaGraph.capture(stream, work)
        except DeviceLostError:
            raise
        except ResourceError as error:
            if images not in self.unrecorded:
                self.unrecorded.add(images)
                warn_unrecorded(self.library.__name__, images, error)
            return None


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

    Raises:
        ResourceError: The library cannot create the context or select the profile.
    """

    def __init__(self, model: EngineModel, profile: int, stream: Stream) -> None:
        self._model = model
        self._native = _native_context(model)
        # The engine keeps the names of layers for the inspector. Marking kernels with names would slow down each run.
        self._native.nvtx_verbosity = model.library.ProfilingVerbosity.NONE
        if profile != self._native.active_optimization_profile:
            if not self._native.set_optimization_profile_async(profile, stream.handle):
                raise self._error(f"select profile {profile}")
            stream.synchronize()

    def scratch_bytes(self) -> int:
        """Return the memory that the context needs for intermediate results, for the batch size that ``place`` set."""
        return int(self._native.update_device_memory_size_for_shapes())

    def use_scratch(self, scratch: DeviceBuffer) -> None:
        """Set the memory for intermediate results. Contexts that run one after the other may share it."""
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


def _native_context(model: EngineModel) -> Any:
    """Create the library's context, without memory for intermediate results."""
    managed = model.library.ExecutionContextAllocationStrategy.USER_MANAGED
    kernels = getattr(model.library, "DynamicShapesKernelSpecializationStrategy", None)
    with capture_lock():  # the library allocates memory, and one thread at a time may create contexts
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
