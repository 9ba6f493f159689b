"""The backend for ONNX Runtime: ONNX files on the CPU, or on CUDA with the package onnxruntime-gpu."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.onnxruntime import session_factory
from runtimes.backends.onnxruntime.errors import translate_error
from runtimes.backends.onnxruntime.executed_precision import list_arithmetic
from runtimes.backends.onnxruntime.providers import CpuProvider, CudaProvider
from runtimes.libraries import missing_library
from runtimes.onnx import graph as onnxfile
from runtimes.onnx.graph import OnnxGraph
from runtimes.protocol import Backend, Description, Layer, Options
from runtimes.tensors.spec import Arrays

if TYPE_CHECKING:
    import onnxruntime

    from runtimes.backends.onnxruntime.gpu_session import OnnxRuntimeDeviceSession


class OnnxRuntimeSession:
    """An ``onnxruntime.InferenceSession`` on the CPU. Its ``run`` may be called from many threads at once.

    Args:
        session: The session of the library.
        description: The description of what runs.

    Attributes:
        native: The session of the library.
    """

    def __init__(self, session: onnxruntime.InferenceSession, description: Description) -> None:
        self.native = session
        self.inputs, self.outputs = session_factory.specs(session)
        self.description = description
        self._names = [spec.name for spec in self.outputs]

    def run(self, arrays: Arrays) -> Arrays:
        """Run the model, as ``Session.run``."""
        try:
            results = self.native.run(self._names, arrays)
        except Exception as error:
            raise translate_error(error, None) from error
        return dict(zip(self._names, results, strict=True))

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the model on the arrays, as ``Session.bind``."""
        import onnxruntime

        binding = self.native.io_binding()
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name in self._names:
            binding.bind_output(name)

        def run_once() -> None:
            try:
                self.native.run_with_iobinding(binding)
            except Exception as error:
                raise translate_error(error, None) from error

        return run_once

    def close(self) -> None:
        """Free the session of the library."""
        del self.native


def _open(artifact: Artifact, options: Options) -> OnnxRuntimeSession | OnnxRuntimeDeviceSession:
    if options.device != "cpu":
        from runtimes.backends.onnxruntime.gpu_session import open_on_gpu

        graph = onnxfile.graph(artifact.path)
        describe = _describe(list_arithmetic(graph, options.device, artifact.allows_tf32), options)
        return open_on_gpu(artifact, options, _cuda(artifact, graph, options), describe)
    session = session_factory.open_session(artifact, CpuProvider(), options.threads)
    describe = _describe(list_arithmetic(onnxfile.graph(artifact.path), options.device), options)
    return OnnxRuntimeSession(session, describe(session))


def _describe(precisions: tuple[str, ...], options: Options) -> Callable[[onnxruntime.InferenceSession], Description]:
    precision = " ".join(precisions) or "as in the graph"
    return lambda session: session_factory.describe_session(session, BACKEND.name, options, precision)


def _cuda(artifact: Artifact, graph: OnnxGraph, options: Options) -> CudaProvider:
    """Return the options of the CUDA provider for an artifact.

    Tensor cores take half precision only with channels last. A graph with branches or loops cannot be recorded.
    """
    branches = any(node.operator in _BRANCHES for node in graph.nodes)
    return CudaProvider(
        device_id=options.device_index,
        gpu_mem_limit=options.gpu_mem_limit,
        use_tf32=artifact.allows_tf32,
        prefer_nhwc="float16" in graph.arithmetic,
        enable_cuda_graph=options.cuda_graphs and not branches,
    )


_BRANCHES = ("If", "Loop", "Scan")


def _profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    from runtimes.backends.onnxruntime import profiling
    from runtimes.backends.onnxruntime.serialised import GPU_LOCK
    from runtimes.tensors import cuda
    from runtimes.tensors.capture import capture_lock

    graph = onnxfile.graph(artifact.path)
    if options.device == "cpu":
        return profiling.profile(artifact, CpuProvider(), options.threads, arrays)
    with GPU_LOCK, capture_lock(), cuda.current(options.device_index):
        return profiling.profile(artifact, _cuda(artifact, graph, options), options.threads, arrays)


BACKEND = Backend(
    name="onnxruntime",
    title="ONNX Runtime",
    formats=("onnx",),
    devices=("cpu", "cuda"),
    priority=10,
    missing=lambda: missing_library("onnxruntime", "cpu"),
    open=_open,
    profile=_profile,
    check_gpu=lambda: session_factory.import_library(CudaProvider.name),
    aliases=("ort",),
    prepares_batches=("cuda",),
)
