"""ONNX Runtime: ``.onnx`` on the CPU, or on CUDA where onnxruntime-gpu is installed in its place."""

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
    """An ``onnxruntime.InferenceSession``, ``native``, whose ``run`` is safe to call from many threads."""

    def __init__(self, session: onnxruntime.InferenceSession, about: Description) -> None:
        self.native = session
        self.inputs, self.outputs = session_factory.specs(session)
        self.description = about
        self._names = [spec.name for spec in self.outputs]

    def run(self, arrays: Arrays) -> Arrays:
        try:
            results = self.native.run(self._names, arrays)
        except Exception as error:
            raise translate_error(error, None) from error
        return dict(zip(self._names, results, strict=True))

    def bind(self, arrays: Arrays) -> Callable[[], None]:
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
        del self.native


def _open(artifact: Artifact, options: Options) -> OnnxRuntimeSession | OnnxRuntimeDeviceSession:
    if options.device != "cpu":
        from runtimes.backends.onnxruntime.gpu_session import open_on_gpu

        graph = onnxfile.graph(artifact.path)
        about = _describe(list_arithmetic(graph, options.device, artifact.allows_tf32), options)
        return open_on_gpu(artifact, options, _cuda(artifact, graph, options), about)
    session = session_factory.open_session(artifact, CpuProvider(), options.threads)
    about = _describe(list_arithmetic(onnxfile.graph(artifact.path), options.device), options)
    return OnnxRuntimeSession(session, about(session))


def _describe(precisions: tuple[str, ...], options: Options) -> Callable[[onnxruntime.InferenceSession], Description]:
    words = " ".join(precisions) or "as in the graph"
    return lambda session: session_factory.describe_session(session, BACKEND.name, options.device, words)


def _cuda(artifact: Artifact, graph: OnnxGraph, options: Options) -> CudaProvider:
    """What the artifact asks of the provider: tensor cores take half precision with channels last alone, and what
    branches or loops is not recorded."""
    branches = any(node.operator in _BRANCHES for node in graph.nodes)
    return CudaProvider(
        use_tf32=artifact.allows_tf32,
        prefer_nhwc="float16" in graph.arithmetic,
        enable_cuda_graph=options.cuda_graphs and not branches,
    )


_BRANCHES = ("If", "Loop", "Scan")


def _profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    from runtimes.backends.onnxruntime import profiling
    from runtimes.backends.onnxruntime.serialised import TURN

    graph = onnxfile.graph(artifact.path)
    if options.device == "cpu":
        return profiling.profile(artifact, CpuProvider(), options.threads, arrays)
    with TURN:
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
)
