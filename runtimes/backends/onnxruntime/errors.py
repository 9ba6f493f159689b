"""ONNX Runtime's exceptions as rexport's errors."""

from __future__ import annotations

import re

from runtimes.artifacts.artifact import Artifact
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError, RexportError, quote
from runtimes.onnx import graph as onnxfile

_SOURCE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|/\S+\.(?:cc|h):\d+ .*?\) (?:const )?"
)
"""What stands before the sentence in ONNX Runtime's errors: their number, the file, and the place in its source."""


_VERSIONS = ("opset", "Opset", "IR version", "No Op registered")

_NO_KERNEL = re.compile(
    r"(?:Could not find an implementation for|Provider type for) (\w+)(?:\(\d+\))? node with name '(.*?)'"
)

_DEVICE = ("CUDA failure", "CUDA error", "CUDNN failure", "CUBLAS failure")
"""After these the process can seldom use the GPU again."""

_ON_PROCESSOR = "assigned to the default CPU EP"
_NOT_ALL = "graph nodes have not been"
"""The same, where its runs were to be recorded: goes on with "partitioned to" or "assigned to" the provider."""

_NO_LIBRARIES = "Please install TensorRT libraries"
_NOT_RECORDABLE = "cannot use the graph capture feature"


def translate_error(error: Exception, artifact: Artifact | None) -> RexportError:
    """The error for one that ONNX Runtime raised."""
    path = None if artifact is None else artifact.path
    text = _SOURCE.sub("", str(error).split("\n")[0])
    lower = text.lower()
    memory = "out of memory" in lower or ("memory" in lower and "alloc" in lower)
    version = type(error).__name__ == "NotImplemented" or any(word in text for word in _VERSIONS)
    text = quote(text)
    if memory:
        return ResourceError(f"ONNX Runtime ran out of memory: {text}", code="onnxruntime-out-of-memory", path=path)
    if any(word in text for word in _DEVICE):
        return ResourceError(
            f"the GPU failed under ONNX Runtime: {text}",
            code="onnxruntime-gpu-failed",
            path=path,
            hint="start the process again",
        )
    if version:
        return CompatibilityError(f"ONNX Runtime cannot run it: {text}", code="onnxruntime-cannot-run", path=path)
    return ArtifactError(f"ONNX Runtime refused it: {text}", code="onnxruntime-refused-file", path=path)


def is_unloaded(error: Exception, said: str) -> bool:
    """Whether the provider's own libraries could not be loaded: the library says so, or it would have run on the
    processor, which it was forbidden, after it ``said`` what it could not load."""
    return _NO_LIBRARIES in str(error) or bool(said and _ON_PROCESSOR in str(error))


def refusal(error: Exception, artifact: Artifact, provider: str) -> RexportError:
    """Why the artifact does not open on the provider."""
    text = str(error)
    missing = _NO_KERNEL.search(text)
    short = provider.removesuffix("ExecutionProvider")
    if missing is not None:
        operator, name = missing.groups()
        types = " and ".join(onnxfile.graph(artifact.path).arithmetic) or "these types"
        return CompatibilityError(
            f"ONNX Runtime's {short} provider has no kernel for {operator} in {types}: node {quote(name)!r}",
            code="provider-lacks-kernel",
            path=artifact.path,
            hint="export it in another precision, or name another backend",
        )
    if _ON_PROCESSOR in text or _NOT_ALL in text:
        return CompatibilityError(
            f"ONNX Runtime's {short} provider leaves some of its nodes to the processor",
            code="provider-runs-partly",
            path=artifact.path,
            hint="export it with --opset 20, or name another backend",
        )
    if _NOT_RECORDABLE in text:
        return CompatibilityError(
            f"ONNX Runtime's {short} provider cannot record its runs",
            code="provider-cannot-record",
            path=artifact.path,
            hint="open it with cuda_graphs=False",
        )
    return translate_error(error, artifact)
