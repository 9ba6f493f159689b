"""The times of an engine's layers, measured by the library's profiler."""

from __future__ import annotations

import statistics
from collections import defaultdict
from types import ModuleType
from typing import Any

import numpy as np

from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt import inspector
from runtimes.backends.tensorrt.engine import LoadedEngine
from runtimes.backends.tensorrt.inspector import EngineLayer
from runtimes.errors import CompatibilityError, ResourceError
from runtimes.onnx.graph import OnnxGraph
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.cuda_objects import DeviceBuffer, PinnedBuffer, Stream
from runtimes.tensors.spec import Array, Arrays, TensorSpec

_WARM_RUNS = 5
"""The number of profiled runs after the first."""


def context_for(loaded: LoadedEngine, inputs: tuple[TensorSpec, ...], profiles: tuple[Profile, ...], batch: int) -> Any:
    """Return a new execution context for a batch size.

    Args:
        loaded: The engine.
        inputs: The specifications of the inputs.
        profiles: The optimisation profiles of the engine.
        batch: The batch size, which one of the profiles must allow.

    Raises:
        CompatibilityError: The engine does not accept the batch size.
        ResourceError: The GPU does not have enough memory.
    """
    with capture_lock():  # it allocates memory
        context = loaded.engine.create_execution_context()
    if context is None:
        raise ResourceError(
            f"the GPU does not have enough memory for an execution context: {loaded.log.describe_errors()}",
            code="context-exceeds-memory",
        )
    index = next(index for index, row in enumerate(profiles) if row.least <= batch <= row.most)
    stream = Stream()
    accepted = index == 0 or context.set_optimization_profile_async(index, stream.handle)
    stream.synchronize()
    for spec in inputs:
        accepted = accepted and context.set_input_shape(spec.name, (batch, *(int(size) for size in spec.shape[1:])))
    if not accepted:
        raise CompatibilityError(
            f"the engine does not accept a batch of {batch}: {loaded.log.describe_errors()}",
            code="engine-batch-refused",
        )
    return context


def durations(
    loaded: LoadedEngine,
    specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
    profiles: tuple[Profile, ...],
    arrays: Arrays,
    graph: OnnxGraph | None,
) -> tuple[tuple[EngineLayer, ...], dict[str, float]]:
    """Run an engine under the profiler and return its layers and their times.

    Args:
        loaded: The engine.
        specs: The specifications of the inputs and of the outputs.
        profiles: The optimisation profiles of the engine.
        arrays: The inputs by name. They are cut or repeated to a batch size that a profile allows.
        graph: The graph of the ONNX file that the engine was built from, for the names of nodes.

    Returns:
        The layers, and the seconds of each layer by its ``title``: the median of the runs after the first.

    Raises:
        CompatibilityError: The engine cannot run the batch.
        RexportError: As for ``context_for``.
    """
    inputs, outputs = specs
    batch = _batch(profiles, len(next(iter(arrays.values()))))
    context = context_for(loaded, inputs, profiles, batch)
    rows = inspector.layers(loaded, context, graph)
    repeated = {name: _repeat_to_batch(array, batch) for name, array in arrays.items()}
    times = time_layers(loaded, context, repeated, outputs, _WARM_RUNS)
    return rows, {title: statistics.median(runs) for title, runs in times.items()}


def time_layers(
    loaded: LoadedEngine, context: Any, arrays: Arrays, outputs: tuple[TensorSpec, ...], runs: int
) -> dict[str, list[float]]:
    """Run an engine under the profiler and return the seconds of each layer in each run, by the layer's title.

    Args:
        loaded: The engine.
        context: The context, as from ``context_for``. It keeps the profiler.
        arrays: The inputs by name, of the context's batch size.
        outputs: The specifications of the outputs.
        runs: The number of runs after a first one, which is not counted.

    Raises:
        CompatibilityError: The engine cannot run the batch.
    """
    times: dict[str, list[float]] = defaultdict(list)
    profiler = _profiler(loaded.library, times)
    context.profiler = profiler  # the library does not keep it alive
    _run(loaded, context, arrays, outputs, runs)
    return {title: seconds[1:] or seconds for title, seconds in times.items()}


def _batch(profiles: tuple[Profile, ...], images: int) -> int:
    """Return the batch size nearest to ``images`` that a profile allows."""
    nearest = [min(max(images, row.least), row.most) for row in profiles]
    return min(nearest, key=lambda batch: abs(batch - images))


def _repeat_to_batch(array: Array, batch: int) -> Array:
    repeated: Array = array[np.arange(batch) % len(array)]
    return repeated


def _run(loaded: LoadedEngine, context: Any, arrays: Arrays, outputs: tuple[TensorSpec, ...], runs: int) -> None:
    stream = Stream()
    buffers = {name: DeviceBuffer(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        pinned = PinnedBuffer(array.nbytes)
        pinned.array(array.dtype.name, array.shape)[:] = array
        stream.to_device(buffers[name].pointer, pinned.pointer, array.nbytes)
        stream.synchronize()
        pinned.close()
    for spec in outputs:
        size = int(np.prod(context.get_tensor_shape(spec.name))) * np.dtype(spec.dtype).itemsize
        buffers[spec.name] = DeviceBuffer(size)
    addresses_set = all(context.set_tensor_address(name, buffer.pointer) for name, buffer in buffers.items())
    for _ in range(1 + runs):
        if not addresses_set or not context.execute_async_v3(stream.handle):
            raise CompatibilityError(
                f"the engine cannot run the batch: {loaded.log.describe_errors()}", code="engine-cannot-run"
            )
        stream.synchronize()


def _profiler(library: ModuleType, times: dict[str, list[float]]) -> object:
    """Return a profiler that appends the seconds of each layer to ``times``, by the layer's name."""

    class Profiler(library.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times[layer_name].append(ms / 1e3)

    return Profiler()
