"""A double of what TensorRT does with a finished engine, for machines without a GPU, over the double of CUDA.

Parsing and building need no GPU, and are TensorRT-RTX's own here. Deserialising and running do: ``Runtime``,
``ICudaEngine``, ``IExecutionContext`` and what refits and inspects engines are replaced by classes with the true ones'
names alone (a test holds them to it), which answer as ``runtimes.backends.fake`` does. What TensorRT leaves undefined
is a fault in ``Recorder.faults``: a context that two threads use at once, one that is changed while a graph still holds
what was recorded from it, a recording before the context has run in that shape, memory for activations that two streams
share, addresses that are not aligned.

    recorder = double.installed(monkeypatch)                        # TensorRT 11, and a GPU
    path.write_bytes(double.plan(double.NETWORK))                   # an engine that it takes
    session = double.session(recorder)                              # one opened already
    assert recorder.faults == []
"""

from __future__ import annotations

import importlib.machinery
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import tensorrt_rtx

from runtimes import codec
from runtimes.backends.tensorrt.session import EngineSession
from runtimes.errors import ArtifactError
from runtimes.protocol import Description
from tests.runtimes.backends.tensorrt.cudadouble import Recorder, Work, holds_capture_lock
from tests.runtimes.backends.tensorrt.devicememory import ALIGNMENT
from tests.runtimes.backends.tensorrt.driverdouble import install
from tests.runtimes.backends.tensorrt.networks import NETWORK as NETWORK
from tests.runtimes.backends.tensorrt.networks import Network as Network
from tests.runtimes.backends.tensorrt.networks import compute, use_scratch
from tests.runtimes.backends.tensorrt.networks import plan as plan

VERSION = "11.4.0.106"
"""Of the TensorRT that the double says it is."""

_RTX_ALONE = ("ComputeCapability", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy", "IRuntimeCache")


@dataclass
class Library:
    """What the classes of one installed double share. ``network`` is what a plan stands for that the real builder
    made, which the double cannot read; without one it refuses such a plan."""

    recorder: Recorder
    rtx: bool
    network: Network | None = None


def installed(
    patch: pytest.MonkeyPatch, flavor: Literal["tensorrt", "rtx"] = "tensorrt", network: Network | None = None
) -> Recorder:
    """Puts the doubles of CUDA and of the flavor in place of the true modules until the test ends.

    ``network`` is what every plan of the real builder deserialises to. With ``rtx`` the true ``tensorrt_rtx`` stays
    and only what runs engines is replaced; with ``tensorrt`` there is a module of that name, whose builder is
    TensorRT-RTX's.
    """
    recorder = install(patch, Recorder())
    library = Library(recorder, flavor == "rtx", network)
    module: ModuleType = tensorrt_rtx
    if flavor == "tensorrt":
        module = ModuleType("tensorrt")
        module.__dict__.update({name: item for name, item in vars(tensorrt_rtx).items() if name not in _RTX_ALONE})
        module.__dict__.update(__name__="tensorrt", __version__=VERSION, Builder=Builder)
        module.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
        patch.setitem(sys.modules, "tensorrt", module)
        _keep_times(patch)
    for kind in (Runtime, Refitter, OnnxParserRefitter):
        patch.setattr(module, kind.__name__, type(kind.__name__, (kind,), {"_library": library}))
    return recorder


def _keep_times(patch: pytest.MonkeyPatch) -> None:
    """Makes TensorRT-RTX take back the timing caches that it gave, without its warnings: it times nothing."""
    config, cache, given = tensorrt_rtx.IBuilderConfig, tensorrt_rtx.ITimingCache, set[bytes]()

    def quietly(call: Callable[..., Any]) -> Callable[..., Any]:
        def quiet(*arguments: Any) -> Any:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*Timing cache operations are no-ops", DeprecationWarning)
                return call(*arguments)

        return quiet

    create, serialise = quietly(config.create_timing_cache), quietly(cache.serialize)

    def create_timing_cache(self: Any, serialized_timing_cache: bytes) -> Any:
        return create(self, b"" if serialized_timing_cache in given else serialized_timing_cache)

    def serialize(self: Any) -> Any:
        content = serialise(self)
        given.add(bytes(content))
        return content

    patch.setattr(config, "create_timing_cache", create_timing_cache)
    patch.setattr(cache, "serialize", serialize)
    for kind, name in ((config, "set_timing_cache"), (config, "get_timing_cache"), (cache, "combine")):
        patch.setattr(kind, name, quietly(getattr(kind, name)))


def session(
    recorder: Recorder, network: Network = NETWORK, contexts: int = 4, cuda_graphs: bool = True
) -> EngineSession:
    """A session on an engine of the double's, which must be installed."""
    library = sys.modules.get("tensorrt", tensorrt_rtx)
    about = Description("tensorrt", VERSION, "cuda", "double", "float32", 1)
    log = _Log()
    return EngineSession(
        library=library,
        engine=ICudaEngine(Library(recorder, "tensorrt" not in sys.modules), network, log),
        description=about,
        profiles=network.profiles,
        cuda_graphs=cuda_graphs,
        inputs=network.inputs,
        outputs=network.outputs,
        contexts=contexts,
        describe_errors=lambda: log.last,
    )


class _Log:
    """Stands for a logger of the library's."""

    last = "nothing"

    def log(self, severity: Any, msg: str) -> None:  # noqa: ARG002
        self.last = msg


class Builder(tensorrt_rtx.Builder):  # type: ignore[misc]
    """The real one, but what it makes begins as TensorRT's own plans do."""

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        made = super().build_serialized_network(network, config)
        return None if made is None else b"ftrt" + bytes(made)[4:]

    def __del__(self) -> None:
        """In place of the bindings' own, which Python calls for a subclass alone, and which fails then."""


class Runtime:
    """Deserialises plans that ``plan`` made, and those of the real builder if it was told what they stand for."""

    _library: Library

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes | bytearray | memoryview) -> ICudaEngine | None:
        data = bytes(serialized_engine)
        self._library.recorder.deserialised.append(data)
        network: Network | None
        try:
            network = codec.loads(Network, data[4:])
        except ArtifactError:
            network = self._library.network
        if network is None:
            self.logger.log(tensorrt_rtx.ILogger.Severity.ERROR, "IRuntime::deserializeCudaEngine: no such plan")
            return None
        return ICudaEngine(self._library, network, self.logger)


class ICudaEngine:
    """An engine."""

    def __init__(self, library: Library, network: Network, logger: Any) -> None:
        self._library = library
        self._network = network
        self._logger = logger
        self._specs = {spec.name: spec for spec in (*network.inputs, *network.outputs)}
        self._refitted = False
        self.num_io_tensors = len(self._specs)
        self.num_optimization_profiles = len(network.profiles)
        self.num_layers = len(network.layers)
        self.refittable = network.stripped or network.refittable
        self.name = "double"
        self.profiling_verbosity = tensorrt_rtx.ProfilingVerbosity.DETAILED

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return self._network.scratch_for(self._network.profiles[profile_index].most)

    def get_tensor_name(self, index: int) -> str:
        return tuple(self._specs)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = tensorrt_rtx.TensorIOMode
        return mode.INPUT if self._specs[name] in self._network.inputs else mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return _DTYPES[self._specs[name].dtype]

    def get_tensor_shape(self, name: str) -> Any:
        return tensorrt_rtx.Dims([size if isinstance(size, int) else -1 for size in self._specs[name].shape])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        row, spec = self._network.profiles[profile_index], self._specs[name]
        return [tensorrt_rtx.Dims((count, *spec.shape[1:])) for count in (row.least, row.best, row.most)]

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def create_serialization_config(self) -> ISerializationConfig:
        return ISerializationConfig()

    def serialize_with_config(self, arg0: ISerializationConfig) -> bytes | None:
        self._library.recorder.calls.append("serialize_with_config")
        if tensorrt_rtx.SerializationFlag.INCLUDE_REFIT not in arg0._flags:
            self._library.recorder.fault("serialised-for-good")
        return plan(self._network) if self._refitted else None

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig(self._library.recorder)

    def create_execution_context(self, strategy: Any = None) -> IExecutionContext | None:
        """As both of its overloads: ``strategy`` may be a runtime config."""
        self._library.recorder.calls.append("create_execution_context")
        if not holds_capture_lock():
            self._library.recorder.fault("context-made-without-lock")
        if self._library.recorder.cuda._capturing():
            self._library.recorder.fault("context-made-during-recording")
        if isinstance(strategy, IRuntimeConfig):
            strategy = strategy.get_execution_context_allocation_strategy()
        return IExecutionContext(self, strategy or tensorrt_rtx.ExecutionContextAllocationStrategy.STATIC)


_DTYPES = {
    "float32": tensorrt_rtx.DataType.FLOAT,
    "float16": tensorrt_rtx.DataType.HALF,
    "int8": tensorrt_rtx.DataType.INT8,
    "int32": tensorrt_rtx.DataType.INT32,
    "int64": tensorrt_rtx.DataType.INT64,
    "bool": tensorrt_rtx.DataType.BOOL,
    "uint8": tensorrt_rtx.DataType.UINT8,
}


class IRuntimeConfig:
    """How a context is to be made. TensorRT proper has the strategy of its memory alone."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._strategy: Any = tensorrt_rtx.ExecutionContextAllocationStrategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy: Any = None
        self.cuda_graph_strategy: Any = None
        self._cache: object = None

    def create_runtime_cache(self) -> object:
        self._recorder.calls.append("create_runtime_cache")
        return object()

    def set_runtime_cache(self, cache: object) -> bool:
        self._cache = cache
        return cache is not None

    def get_runtime_cache(self) -> object:
        return self._cache

    def get_execution_context_allocation_strategy(self) -> Any:
        return self._strategy

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self._strategy = strategy


class ISerializationConfig:
    """What is written of an engine."""

    def __init__(self) -> None:
        self._flags: set[Any] = set()

    def set_flag(self, flag: Any) -> bool:
        self._flags.add(flag)
        return True


class EngineInspector:
    """Says what the network was told to say."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: Any = None

    def get_engine_information(self, format: Any) -> str:  # noqa: ARG002
        return self._engine._network.information


class Refitter:
    """Gives a stripped engine its weights back."""

    _library: Library

    def __init__(self, engine: ICudaEngine, logger: Any) -> None:  # noqa: ARG002
        self._engine = engine
        self._filled = False

    def get_missing_weights(self) -> list[str]:
        return [] if self._filled else ["conv1.weight"]

    def refit_cuda_engine(self) -> bool:
        self._engine._refitted = self._filled
        return self._filled


class OnnxParserRefitter:
    """Takes any ONNX file that is there. A test that wants one refused passes a path that is not."""

    _library: Library

    def __init__(self, refitter: Refitter, logger: Any) -> None:
        self._refitter = refitter
        self._logger = logger
        self.num_errors = 0

    def refit_from_file(self, model: str) -> bool:
        self._library.recorder.calls.append("refit_from_file")
        self._refitter._filled = Path(model).is_file()
        return self._refitter._filled

    def get_error(self, index: int) -> Any:
        raise IndexError(index)


class IExecutionContext:
    """Runs the network on the double's device. ``_generation`` counts its changes, which make recorded graphs void."""

    def __init__(self, engine: ICudaEngine, strategy: Any) -> None:
        self.engine = engine
        self.name = ""
        self.active_optimization_profile = 0
        self.nvtx_verbosity = tensorrt_rtx.ProfilingVerbosity.DETAILED
        self.enqueue_emits_profile = True
        self.profiler: Any = None
        self._recorder = engine._library.recorder
        self._own_memory = strategy != tensorrt_rtx.ExecutionContextAllocationStrategy.USER_MANAGED
        self._memory: tuple[int, int] | None = None
        self._addresses: dict[str, int] = {}
        self._images: int | None = None
        self._generation = 0
        self._ran_at = -1
        self._pending = 0
        self._thread: int | None = None
        self._inside: int | None = None

    def _touched(self, changes: bool) -> None:
        """Called by everything that a thread does to it."""
        thread = threading.get_ident()
        if self._pending and self._thread != thread:
            self._recorder.fault("context-shared-by-threads")
        if self._pending and changes:
            self._recorder.fault("context-changed-busy")
        self._thread = thread
        self._generation += changes

    def _refused(self, words: str) -> bool:
        self.engine._logger.log(tensorrt_rtx.ILogger.Severity.ERROR, words)
        return False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._touched(changes=True)
        if not 0 <= profile_index < self.engine.num_optimization_profiles:
            return self._refused(f"no profile {profile_index}")
        self.active_optimization_profile = profile_index
        self._images = None
        self._recorder.cuda.queue(stream_handle, Work(lambda: None, 0.0))
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        self._touched(changes=True)
        if memory % ALIGNMENT or self._own_memory:
            self._recorder.fault("activations-memory-wrong")
        self._memory = (memory, size)

    def update_device_memory_size_for_shapes(self) -> int:
        if self._own_memory:
            self._recorder.fault("activations-memory-wrong")
        return self.engine._network.scratch_for(self._images)

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        self._touched(changes=True)
        row, spec = self.engine._network.profiles[self.active_optimization_profile], self.engine._specs[name]
        if tuple(shape[1:]) != spec.shape[1:] or not row.least <= shape[0] <= row.most:
            return self._refused(f"{name}: shape {tuple(shape)} does not satisfy the profile")
        self._images = int(shape[0])
        return True

    def get_tensor_shape(self, name: str) -> Any:
        spec = self.engine._specs[name]
        first = spec.shape[0] if isinstance(spec.shape[0], int) else (self._images or -1)
        return tensorrt_rtx.Dims((first, *spec.shape[1:]))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._touched(changes=True)
        if name not in self.engine._specs:
            return self._refused(f"no tensor {name}")
        if memory % ALIGNMENT:
            self._recorder.fault(f"address-not-aligned: {name}")
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        dynamic = any(isinstance(spec.shape[0], str) for spec in self.engine._network.inputs)
        return [spec.name for spec in self.engine._network.inputs] if dynamic and self._images is None else []

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._touched(changes=False)
        inside, self._inside = self._inside, threading.get_ident()
        if inside is not None:
            self._recorder.fault("context-shared-by-threads")
        self._recorder.calls.append("execute_async_v3")
        try:
            return self._enqueue(stream_handle)
        finally:
            self._inside = None

    def _enqueue(self, stream: int) -> bool:
        if self._recorder.refuse_runs:
            return self._refused("IExecutionContext::enqueueV3: the double was told to refuse")
        if self.infer_shapes() or set(self._addresses) != set(self.engine._specs):
            return self._refused("IExecutionContext::enqueueV3: an input's shape or a tensor's address is missing")
        if not self._own_memory and self._memory is None:
            return self._refused("IExecutionContext::enqueueV3: no memory for activations")
        if self._memory is not None and self._memory[1] < self.engine._network.scratch_for(self._images):
            self._recorder.fault("activations-memory-small")
        if self.engine._network.stripped and not self.engine._refitted:
            return self._refused("IExecutionContext::enqueueV3: the engine has no weights")
        if stream == 0:
            self._recorder.fault("run-on-default-stream")
        cuda = self._recorder.cuda
        capturing = cuda.is_capturing(stream)
        if capturing and self._ran_at != self._generation:
            self._recorder.fault("recorded-before-first-run")
        cuda.queue(stream, self._work(stream, counted=not capturing))
        if not capturing:
            self._pending += 1
            self._ran_at = self._generation
        return True

    def _work(self, stream: int, counted: bool) -> Work:
        """What is done later with the addresses and shapes of now. It does not keep the context: neither does CUDA."""
        myself, generation, recorder = weakref.ref(self), self._generation, self._recorder
        network, addresses, memory = self.engine._network, dict(self._addresses), self._memory
        images = self._images if self._images is not None else network.profiles[0].most

        def run() -> None:
            found = myself()
            if found is None:
                recorder.fault("context-freed-busy")
                return
            found._pending -= counted
            compute(recorder, network, addresses, images)
            if memory is not None:
                use_scratch(recorder, memory, stream)
            for layer in network.layers if found.profiler is not None else ():
                found.profiler.report_layer_time(layer, recorder.run_s * 1e3 / len(network.layers))

        def check() -> str | None:
            found = myself()
            if found is None:
                return "graph-context-freed"
            return None if found._generation == generation else "graph-context-changed"

        return Work(run, recorder.run_s, check)
