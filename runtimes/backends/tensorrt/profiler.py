"""How long each layer of an engine takes, as the library's own profiler tells."""

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
from runtimes.protocol import Array, Arrays, TensorSpec
from runtimes.tensors.cuda import DeviceBuffer, PinnedBuffer, Stream

_RUNS = 5


def context_for(loaded: LoadedEngine, inputs: tuple[TensorSpec, ...], profiles: tuple[Profile, ...], batch: int) -> Any:
    """A new execution context for batches of that size, which one of the profiles takes.

    Raises:
        CompatibilityError: the engine does not take what its profiles say.
        ResourceError: the GPU's memory does not hold it.
    """
    context = loaded.engine.create_execution_context()
    if context is None:
        raise ResourceError(
            f"the GPU's memory does not hold an execution context: {loaded.log.describe_errors()}",
            code="context-exceeds-memory",
        )
    index = next(index for index, row in enumerate(profiles) if row.least <= batch <= row.most)
    stream = Stream()
    taken = index == 0 or context.set_optimization_profile_async(index, stream.handle)
    stream.synchronize()
    for spec in inputs:
        taken = taken and context.set_input_shape(spec.name, (batch, *(int(size) for size in spec.shape[1:])))
    if not taken:
        raise CompatibilityError(
            f"the engine does not take a batch of {batch}: {loaded.log.describe_errors()}", code="engine-batch-refused"
        )
    return context


def durations(
    loaded: LoadedEngine,
    specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
    profiles: tuple[Profile, ...],
    arrays: Arrays,
    graph: OnnxGraph | None,
) -> tuple[tuple[EngineLayer, ...], dict[str, float]]:
    """The layers as they run a batch, and the seconds that each takes by its ``title``: the median of some runs after
    the first.

    ``arrays`` are cut or repeated to a batch that a profile takes.

    Raises:
        RexportError: as ``context_for``; CompatibilityError where the library refuses to run.
    """
    inputs, outputs = specs
    batch = _batch(profiles, len(next(iter(arrays.values()))))
    context = context_for(loaded, inputs, profiles, batch)
    rows = inspector.layers(loaded, context, graph)
    taken: dict[str, list[float]] = defaultdict(list)
    profiler = _profiler(loaded.library, taken)
    context.profiler = profiler  # which the library does not keep alive
    _run(loaded, context, {name: _repeat_to_batch(array, batch) for name, array in arrays.items()}, outputs)
    return rows, {title: statistics.median(times[1:] or times) for title, times in taken.items()}


def _batch(profiles: tuple[Profile, ...], images: int) -> int:
    """The number of images nearest to this one that a profile takes."""
    nearest = [min(max(images, row.least), row.most) for row in profiles]
    return min(nearest, key=lambda batch: abs(batch - images))


def _repeat_to_batch(array: Array, batch: int) -> Array:
    sized: Array = array[np.arange(batch) % len(array)]
    return sized


def _run(loaded: LoadedEngine, context: Any, arrays: Arrays, outputs: tuple[TensorSpec, ...]) -> None:
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
    placed = all(context.set_tensor_address(name, buffer.pointer) for name, buffer in buffers.items())
    for _ in range(1 + _RUNS):
        if not placed or not context.execute_async_v3(stream.handle):
            raise CompatibilityError(
                f"the engine does not run: {loaded.log.describe_errors()}", code="engine-cannot-run"
            )
        stream.synchronize()


def _profiler(library: ModuleType, taken: dict[str, list[float]]) -> object:
    """Appends to ``taken`` the seconds that each layer took, by its name."""

    class Profiler(library.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            taken[layer_name].append(ms / 1e3)

    return Profiler()
