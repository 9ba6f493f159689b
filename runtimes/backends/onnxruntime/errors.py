"""Translation of ONNX Runtime's exceptions to rexport's errors."""

from __future__ import annotations

import os
import re

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError, RexportError, quote
from runtimes.onnx import graph as onnxfile

_SOURCE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|/\S+\.(?:cc|h):\d+ .*?\) (?:const )?"
)
"""The prefix of ONNX Runtime's messages: the error number, the file, and the line of the source code."""

_VERSIONS = ("opset", "Opset", "IR version", "No Op registered")

_NO_KERNEL = re.compile(
    r"(?:Could not find an implementation for|Provider type for) (\w+)(?:\(\d+\))? node with name '(.*?)'"
)

_SYSTEM_ERROR = re.compile(r"(?:system error number|SystemError :) (\d+)")
"""The messages of ONNX Runtime if a call of the system fails while it reads the file, or one with weights beside it."""

_DEVICE = ("CUDA failure", "CUDA error", "CUDNN failure", "CUBLAS failure")
"""Errors after which the process can usually not use the GPU any more."""

_ON_PROCESSOR = "assigned to the default CPU EP"
"""The message for nodes that the provider does not run."""

_NOT_ALL = "graph nodes have not been"
"""The message for the same with recording: "partitioned to" or "assigned to" the provider follows."""

_LOWER_OPSET = ", or export the model with the option --opset 20 of rexport"
"""The remedy for kernels that exist only for lower opsets. bfloat16 needs opset 22 for its convolutions."""

_NO_LIBRARIES = "Please install TensorRT libraries"
_NOT_RECORDABLE = "cannot use the graph capture feature"


def message_of(error: Exception) -> str:
    """Return the first line of a message of ONNX Runtime, without the places in its source code."""
    return _SOURCE.sub("", str(error).split("\n")[0])


def translate_error(error: Exception, artifact: Artifact | None) -> RexportError:
    """Return rexport's error for an exception of ONNX Runtime. ``artifact`` is the artifact being opened, if any."""
    path = None if artifact is None else artifact.path
    text = message_of(error)
    lower = text.lower()
    memory = "out of memory" in lower or ("memory" in lower and "alloc" in lower)
    version = type(error).__name__ == "NotImplemented" or any(word in text for word in _VERSIONS)
    text = quote(text)
    if memory:
        return ResourceError(f"ONNX Runtime ran out of memory: {text}", code="onnxruntime-out-of-memory", path=path)
    if (found := _SYSTEM_ERROR.search(text)) and path is not None:
        number = int(found[1])
        return ResourceError.from_os(OSError(number, os.strerror(number)), path, "read")
    if any(word in text for word in _DEVICE):
        return ResourceError(
            f"the GPU failed in ONNX Runtime: {text}",
            code="onnxruntime-gpu-failed",
            path=path,
            hint="restart the process",
        )
    if version:
        return CompatibilityError(
            f"ONNX Runtime cannot run the model: {text}", code="onnxruntime-cannot-run", path=path
        )
    if path is not None and (failure := files.find_read_failure(path)) is not None:
        return failure
    return ArtifactError(f"ONNX Runtime cannot read the model: {text}", code="onnxruntime-refused-file", path=path)


_REQUIRED = re.compile(r"\blib(?:cublas|cublasLt|cudart|cudnn|curand)\.so\b")
"""The libraries without which no provider for CUDA works. Others, as cuFFT and NVRTC, serve single operators."""


def is_not_loaded(error: Exception, load_failures: tuple[str, ...]) -> bool:
    """Return whether an error means that the provider's own libraries could not be loaded.

    ONNX Runtime says so itself, or complains about nodes on the CPU after failing to load a required library.

    Args:
        error: The exception of ONNX Runtime.
        load_failures: The messages about libraries that could not be loaded.
    """
    required = any(_REQUIRED.search(line) for line in load_failures)
    return _NO_LIBRARIES in str(error) or (required and _ON_PROCESSOR in str(error))


def check_tf32(artifact: Artifact, provider: str) -> tuple[str, ...]:
    """Return the types of a graph, for a provider that always computes float32 in TensorFloat-32.

    Args:
        artifact: The artifact.
        provider: The name of the provider in sentences.

    Raises:
        CompatibilityError: The graph is in float32, and the artifact does not allow TensorFloat-32.
    """
    kinds = onnxfile.graph(artifact.path).arithmetic
    if kinds == ("float32",) and not artifact.allows_tf32:
        raise CompatibilityError(
            f"{provider} computes float32 in TensorFloat-32, which this artifact does not allow",
            code="provider-needs-tf32",
            path=artifact.path,
            hint="choose another backend, or export the model with the option --precision tf32 of rexport",
        )
    return kinds


def translate_opening_error(error: Exception, artifact: Artifact, provider: str) -> RexportError:
    """Return rexport's error for an artifact that cannot be opened on a provider.

    Args:
        error: The exception of ONNX Runtime.
        artifact: The artifact.
        provider: ONNX Runtime's name of the provider.
    """
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
            hint="choose another backend, or export the model in another precision",
        )
    if _ON_PROCESSOR in text or _NOT_ALL in text:
        bfloat16 = "bfloat16" in onnxfile.graph(artifact.path).arithmetic
        return CompatibilityError(
            f"ONNX Runtime's {short} provider would run some nodes of the model on the CPU",
            code="provider-runs-partly",
            path=artifact.path,
            hint="choose another backend" + ("" if bfloat16 else _LOWER_OPSET),
        )
    if _NOT_RECORDABLE in text:
        return CompatibilityError(
            f"ONNX Runtime's {short} provider cannot record runs of the model",
            code="provider-cannot-record",
            path=artifact.path,
            hint="open the artifact with cuda_graphs=False",
        )
    return translate_error(error, artifact)
