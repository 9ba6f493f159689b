"""ONNX Runtime: ``.onnx`` on the CPU, or on CUDA where onnxruntime-gpu is installed in its place.

A graph's types are not always what it computes in: where its CPU provider has no kernels of half precision, it puts
casts around a convolution and computes it in float32; a quantised convolution that is not followed as it wants it, and
any on CUDA, is the float one between its Q/DQ nodes. ``computed`` has these rules; ``profile`` is the proof.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from runtimes.onnxfile import DEQUANTISE, QUANTISE, Graph, Node, is_weighted
from runtimes.protocol import Arrays, Backend, Description, Layer, Options, TensorSpec

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

_NO_KERNEL = re.compile(r"Could not find an implementation for (\w+)\(\d+\) node with name '(.*)'")


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


def _refusal(error: Exception, artifact: Artifact, device: str) -> RexportError:
    """Why the artifact does not open."""
    missing = _NO_KERNEL.search(str(error))
    if missing is None:
        return _translated(error, artifact)
    operator, name = missing.groups()
    types = " and ".join(onnxfile.graph(artifact.path).arithmetic) or "these types"
    return CompatibilityError(
        f"ONNX Runtime's {device.upper()} provider has no kernel for {operator} in {types}: node {quoted(name)!r}",
        path=artifact.path,
        hint="export it in another precision, or name another backend",
    )


def _native(artifact: Artifact, options: Options, profile: str | None = None) -> onnxruntime.InferenceSession:
    """The library's own session. ``profile`` is the path, without its end, of a file that its profiler writes."""
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
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profile
    extra: dict[str, str] = {}
    if options.device != "cpu":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        extra["use_tf32"] = "0"
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(artifact.path), settings, providers=[(provider, extra)] if extra else [provider]
        )
    except Exception as error:
        raise _refusal(error, artifact, options.device) from error
    if session.get_providers()[0] != provider:
        raise BackendUnavailableError(
            f"{provider} was asked for, ONNX Runtime gave {session.get_providers()[0]}",
            hint="its GPU libraries could not be loaded: pip install 'rexport[gpu]'",
        )
    return session


def _open(artifact: Artifact, options: Options) -> OnnxRuntimeSession:
    session = _native(artifact, options)
    import onnxruntime

    precision = computed(onnxfile.graph(artifact.path), options.device)
    return OnnxRuntimeSession(session, options, onnxruntime.__version__, " ".join(precision) or "as in the graph")


def computed(graph: Graph, device: str) -> tuple[str, ...]:
    """In what the graph's convolutions and matrix products are computed, sorted: ONNX Runtime does not tell it."""
    if device != "cpu":
        return tuple(sorted({"float32" if kind == "int8" else kind for kind in graph.arithmetic}))
    half = "float32" if platform.machine() in _WITHOUT_HALF else "float16"
    kinds = [
        "float32" if kind == "int8" and not _runs_in_integers(node, graph) else kind
        for node, kind in graph.weighted.items()
    ]
    return tuple(sorted({half if kind == "float16" else kind for kind in kinds or graph.arithmetic}))


_WITHOUT_HALF = ("x86_64", "AMD64")
"""Machines for which the CPU provider has no kernels of half precision, whatever the processor can."""


def _runs_in_integers(node: Node, graph: Graph) -> bool:
    """Whether what is around a quantised node is as the CPU provider wants it; else it computes it in float32.

    The output must be quantised: at once, or behind a ReLU that is dropped because the integers are unsigned and hold
    nothing below 0. A matrix product's may also go on as float, to one other node, if its bias is quantised.
    """
    if DEQUANTISE not in (source.operator for name in node.inputs if (source := graph.producers.get(name))):
        return True  # an operator of integers
    behind = graph.consumers.get(node.outputs[0], [])
    relu = len(behind) == 1 and behind[0].operator in ("Relu", "Clip")
    if relu:
        behind = graph.consumers.get(behind[0].outputs[0], [])
    if len(behind) == 1 and behind[0].operator == QUANTISE:
        return not relu or len(behind[0].inputs) < 3 or graph.types.get(behind[0].inputs[2]) == "uint8"
    bias = graph.producers.get(node.inputs[2]) if len(node.inputs) > 2 else None
    plain = len(node.inputs) < 3 or (bias is not None and bias.operator == DEQUANTISE)
    return node.operator != "Conv" and not relu and len(behind) < 2 and plain


def _profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    try:
        with tempfile.TemporaryDirectory(prefix="rexport-profile-") as folder:
            session = _native(artifact, options, f"{folder}/run")
            events = json.loads(_profiled(session, arrays, artifact).read_bytes())
    except OSError as error:
        raise ResourceError.from_os(error, tempfile.gettempdir(), "write ONNX Runtime's profile") from error
    except ValueError as error:
        raise ResourceError(f"ONNX Runtime's profile was not written whole: {quoted(error)}") from error
    # On another device than the processor it times the launch of a kernel, not the kernel.
    return layers(_typical(events), onnxfile.graph(artifact.path), timed=options.device == "cpu")


def _typical(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The steps of a run, each with its median duration over all runs but the first, which finds its memory."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    steps = [event for event in events if event["name"].endswith(_KERNEL)]
    ends = (*starts[2:], math.inf)
    runs = [[step for step in steps if start <= step["ts"] < end] for start, end in zip(starts[1:], ends, strict=True)]
    return [{**same[0], "dur": statistics.median(step["dur"] for step in same)} for same in zip(*runs, strict=True)]


def _profiled(session: onnxruntime.InferenceSession, arrays: Arrays, artifact: Artifact) -> Path:
    """The profile of some runs."""
    try:
        for _ in range(1 + _PROFILED_RUNS):
            session.run(None, arrays)
    except Exception as error:
        raise _translated(error, artifact) from error
    return Path(session.end_profiling())


_KERNEL = "_kernel_time"
_PROFILED_RUNS = 5


def layers(steps: Sequence[Mapping[str, Any]], graph: Graph, timed: bool) -> tuple[Layer, ...]:
    """The profiler's events of one run as layers, named after the graph's nodes."""
    names = [str(step["name"]).removesuffix(_KERNEL) for step in steps]
    taken = {name for name in names if graph.find(name)}
    found = []
    for name, step in zip(names, steps, strict=True):
        about, operator = step["args"], str(step["args"]["op_name"])
        nodes = _nodes_of(name, operator, graph, taken)
        found.append(
            Layer(
                name=nodes[0] if nodes else name,
                nodes=nodes,
                operator=operator,
                precision=_precision_of(about),
                weighted=is_weighted(operator),
                duration_s=step["dur"] / 1e6 if timed else None,
            )
        )
    return tuple(found)


_TYPES = {"float": "float32", "double": "float64", "uint8": "int8"}
"""ONNX Runtime's names where they are not NumPy's. Signed or not, a quantised layer is one of 8-bit integers."""


def _precision_of(about: Mapping[str, Any]) -> str:
    """Of a step: the type of its first tensor."""
    tensors = (*about["input_type_shape"], *about["output_type_shape"])
    first = next((kind for tensor in tensors for kind in tensor), "none")
    return _TYPES.get(first, first)


_DECORATIONS = re.compile(r"^InsertedPrecisionFreeCast_|_nchwc$|_token_\d+$")
"""What ONNX Runtime puts around the names of what it rewrites."""


def _nodes_of(name: str, operator: str, graph: Graph, taken: set[str]) -> tuple[str, ...]:
    """Names of the graph's nodes that a step stands for, first the one that it is the step of; none if the library
    added it.

    A rewritten node has a decorated name, or that of the tensor which it makes now: where an activation was fused into
    a convolution, the activation's. ``taken`` are names that steps have undecorated, so that no other can be meant.
    """
    plain = name
    while (node := graph.find(plain)) is None and _DECORATIONS.search(plain):
        plain = _DECORATIONS.sub("", plain, count=1)
    if node is None or (plain != name and plain in taken):
        return ()
    if is_weighted(operator):
        return tuple(step.name for step in graph.fused(node))
    return (node.name,) if node.name == name or node.operator in operator else ()


BACKEND = Backend(
    name="onnxruntime",
    formats=("onnx",),
    devices=("cpu", "cuda"),
    priority=10,
    missing=lambda: missing_library("onnxruntime", "cpu"),
    open=_open,
    profile=_profile,
)
