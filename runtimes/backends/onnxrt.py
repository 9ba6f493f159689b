"""ONNX Runtime: ``.onnx`` on the CPU, or on CUDA where onnxruntime-gpu is installed in its place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from runtimes import onnxfile
from runtimes.artifact import Artifact
from runtimes.backends import importing, missing_library
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    ResourceError,
    RexportError,
    quoted,
)
from runtimes.protocol import Arrays, Backend, Description, Options, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeSession:
    """An ``onnxruntime.InferenceSession``, ``native``, whose ``run`` is safe to call from many threads."""

    def __init__(self, session: onnxruntime.InferenceSession, options: Options, version: str, precision: str) -> None:
        self.native = session
        self._device = options.device
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        self.description = Description(
            backend=BACKEND.name,
            version=version,
            device=options.device,
            provider=session.get_providers()[0],
            precision=precision,
            threads=session.get_session_options().intra_op_num_threads,
        )

    def run(self, arrays: Arrays) -> Arrays:
        try:
            results = self.native.run(self._names, arrays)
        except Exception as error:
            raise _translated(error, None) from error
        return dict(zip(self._names, results, strict=True))

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        import onnxruntime

        binding = self.native.io_binding()
        held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device) for name, array in arrays.items()}
        for name, value in held.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._names:
            binding.bind_output(name, self._device)

        def run_once() -> None:
            try:
                self.native.run_with_iobinding(binding)
                binding.synchronize_outputs()
            except Exception as error:
                raise _translated(error, None) from error

        return run_once

    def close(self) -> None:
        del self.native


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise CompatibilityError(f"{quoted(node.name)} has the type {quoted(node.type)}, which no runtime here takes")
    shape = tuple(size if isinstance(size, int) else str(size or f"dim{axis}") for axis, size in enumerate(node.shape))
    return TensorSpec(node.name, dtype, shape)


_SOURCE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|/\S+\.(?:cc|h):\d+ .*?\) (?:const )?"
)
"""What stands before the sentence in ONNX Runtime's errors: their number, the file, and the place in its source."""


_VERSIONS = ("opset", "Opset", "IR version", "No Op registered")


def _translated(error: Exception, artifact: Artifact | None) -> RexportError:
    path = None if artifact is None else artifact.path
    text = _SOURCE.sub("", str(error).split("\n")[0])
    memory = "memory" in text.lower() and "alloc" in text.lower()
    version = type(error).__name__ == "NotImplemented" or any(word in text for word in _VERSIONS)
    text = quoted(text)
    if memory:
        return ResourceError(f"ONNX Runtime ran out of memory: {text}", path=path)
    if version:
        return CompatibilityError(f"ONNX Runtime cannot run it: {text}", path=path)
    return ArtifactError(f"ONNX Runtime refused it: {text}", path=path)


def _open(artifact: Artifact, options: Options) -> OnnxRuntimeSession:
    # The official builds report to their maker over the network unless told not to before they are imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with importing("onnxruntime", "cpu"):
        import onnxruntime

    provider = PROVIDERS[options.device]
    if provider not in onnxruntime.get_available_providers():
        raise BackendUnavailableError(
            f"this onnxruntime has no {provider}",
            hint="pip uninstall onnxruntime, then pip install 'rexport[gpu]'",
        )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    extra: dict[str, str] = {}
    if options.device != "cpu":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        extra["use_tf32"] = "0"
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(artifact.path), settings, providers=[(provider, extra)] if extra else [provider]
        )
    except Exception as error:
        raise _translated(error, artifact) from error
    if session.get_providers()[0] != provider:
        raise BackendUnavailableError(
            f"{provider} was asked for, ONNX Runtime gave {session.get_providers()[0]}",
            hint="its GPU libraries could not be loaded: pip install 'rexport[gpu]'",
        )
    # ONNX Runtime computes in the types of the graph and does not tell them.
    precisions = onnxfile.read(artifact.path).precisions
    return OnnxRuntimeSession(session, options, onnxruntime.__version__, " ".join(precisions) or "as in the graph")


BACKEND = Backend(
    name="onnxruntime",
    formats=("onnx",),
    devices=("cpu", "cuda"),
    priority=10,
    missing=lambda: missing_library("onnxruntime", "cpu"),
    open=_open,
)
