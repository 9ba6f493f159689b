"""What ONNX Runtime computes in, said before a run and proved by its profiler.

A graph's types are not always what it computes in: where its CPU provider has no kernels of half precision, it puts
casts around a convolution and computes it in float32; a quantised convolution that is not followed as it wants it, and
any on CUDA, is the float one between its Q/DQ nodes. ``list_arithmetic`` has these rules; ``profile`` is the proof.
"""

from __future__ import annotations

import json
import math
import platform
import re
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.onnxruntime.errors import translate_error
from runtimes.backends.onnxruntime.providers import CpuProvider, Provider
from runtimes.backends.onnxruntime.session_factory import open_session
from runtimes.errors import ResourceError, quote
from runtimes.onnx import graph as onnxfile
from runtimes.onnx.graph import DEQUANTISE, QUANTISE, OnnxGraph
from runtimes.onnx.wire import Node, is_weighted
from runtimes.protocol import Arrays, Layer

if TYPE_CHECKING:
    import onnxruntime


def list_arithmetic(graph: OnnxGraph, device: str, tf32: bool = False) -> tuple[str, ...]:
    """In what the graph's convolutions and matrix products are computed, sorted: ONNX Runtime does not tell it.

    ``tf32`` is whether float32 may be computed in TensorFloat-32 there, on a GPU.
    """
    if device != "cpu":
        wide = "tfloat32" if tf32 else "float32"
        return tuple(sorted({wide if kind in ("int8", "float32") else kind for kind in graph.arithmetic}))
    half = "float32" if platform.machine() in _WITHOUT_HALF else "float16"
    kinds = [
        "float32" if kind == "int8" and not _runs_in_integers(node, graph) else kind
        for node, kind in graph.weighted.items()
    ]
    return tuple(sorted({half if kind == "float16" else kind for kind in kinds or graph.arithmetic}))


_WITHOUT_HALF = ("x86_64", "AMD64")
"""Machines for which the CPU provider has no kernels of half precision, whatever the processor can."""


def _runs_in_integers(node: Node, graph: OnnxGraph) -> bool:
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


def profile(artifact: Artifact, provider: Provider, threads: int, arrays: Arrays) -> tuple[Layer, ...]:
    """The steps that the provider takes, as ``Backend.profile`` gives them."""
    try:
        with tempfile.TemporaryDirectory(prefix="rexport-profile-") as folder:
            session = open_session(artifact, provider, threads, f"{folder}/run")
            events = json.loads(_record_profile(session, arrays, artifact).read_bytes())
    except OSError as error:
        raise ResourceError.from_os(error, tempfile.gettempdir(), "write ONNX Runtime's profile") from error
    except ValueError as error:
        raise ResourceError(
            f"ONNX Runtime's profile was not written whole: {quote(error)}", code="profile-incomplete"
        ) from error
    # On another device than the processor it times the launch of a kernel, not the kernel.
    return layers(_typical(events), onnxfile.graph(artifact.path), timed=isinstance(provider, CpuProvider))


def _typical(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The steps of a run, each with its median duration over all runs but the first, which finds its memory."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    steps = [event for event in events if event["name"].endswith(_KERNEL)]
    ends = (*starts[2:], math.inf)
    runs = [[step for step in steps if start <= step["ts"] < end] for start, end in zip(starts[1:], ends, strict=True)]
    return [{**same[0], "dur": statistics.median(step["dur"] for step in same)} for same in zip(*runs, strict=True)]


def _record_profile(session: onnxruntime.InferenceSession, arrays: Arrays, artifact: Artifact) -> Path:
    """The profile of some runs."""
    try:
        for _ in range(1 + _PROFILED_RUNS):
            session.run(None, arrays)
    except Exception as error:
        raise translate_error(error, artifact) from error
    return Path(session.end_profiling())


_KERNEL = "_kernel_time"
_PROFILED_RUNS = 5


def layers(steps: Sequence[Mapping[str, Any]], graph: OnnxGraph, timed: bool) -> tuple[Layer, ...]:
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


def _nodes_of(name: str, operator: str, graph: OnnxGraph, taken: set[str]) -> tuple[str, ...]:
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
        return tuple(step.name for step in graph.find_fused(node))
    return (node.name,) if node.name == name or node.operator in operator else ()
