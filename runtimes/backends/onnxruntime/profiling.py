"""The steps that ONNX Runtime executes, from its own profiler. They verify the prediction of ``executed_precision``."""

from __future__ import annotations

import json
import math
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
from runtimes.onnx.graph import OnnxGraph
from runtimes.onnx.wire import is_weighted
from runtimes.protocol import Layer
from runtimes.tensors.spec import Arrays

if TYPE_CHECKING:
    import onnxruntime


def profile(artifact: Artifact, provider: Provider, threads: int, arrays: Arrays) -> tuple[Layer, ...]:
    """Run an artifact under ONNX Runtime's profiler and return the executed steps, as ``Backend.profile``.

    Args:
        artifact: The artifact.
        provider: The provider to run it on.
        threads: The number of processors that one call may use.
        arrays: The inputs by name.

    Raises:
        ResourceError: The profile cannot be written or is incomplete.
        RexportError: As for ``open_session``.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="rexport-profile-") as folder:
            session = open_session(artifact, provider, threads, f"{folder}/run")
            events = json.loads(_record_profile(session, arrays, artifact).read_bytes())
    except OSError as error:
        raise ResourceError.from_os(error, tempfile.gettempdir(), "write ONNX Runtime's profile") from error
    except ValueError as error:
        raise ResourceError(
            f"the profile that ONNX Runtime wrote is incomplete: {quote(error)}",
            code="profile-incomplete",
            hint="check the free space of the folder for temporary files",
        ) from error
    # On other devices than the CPU, the profiler measures the launch of a kernel and not the kernel.
    return layers(_median_steps(events), onnxfile.graph(artifact.path), timed=isinstance(provider, CpuProvider))


def _median_steps(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the steps of a run, each with its median duration over all runs after the first."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    steps = [event for event in events if event["name"].endswith(_KERNEL)]
    ends = (*starts[2:], math.inf)
    runs = [[step for step in steps if start <= step["ts"] < end] for start, end in zip(starts[1:], ends, strict=True)]
    return [{**same[0], "dur": statistics.median(step["dur"] for step in same)} for same in zip(*runs, strict=True)]


def _record_profile(session: onnxruntime.InferenceSession, arrays: Arrays, artifact: Artifact) -> Path:
    """Run the session several times and return the file of its profile."""
    try:
        for _ in range(1 + _PROFILED_RUNS):
            session.run(None, arrays)
    except Exception as error:
        raise translate_error(error, artifact) from error
    return Path(session.end_profiling())


_KERNEL = "_kernel_time"
"""The suffix of the profiler's events for kernels."""

_PROFILED_RUNS = 5
"""The number of profiled runs after the first."""


def layers(steps: Sequence[Mapping[str, Any]], graph: OnnxGraph, timed: bool) -> tuple[Layer, ...]:
    """Return the profiler's events of one run as layers, named after the graph's nodes.

    Args:
        steps: The profiler's events for kernels.
        graph: The graph of the model.
        timed: Whether the durations are those of the kernels.
    """
    names = [str(step["name"]).removesuffix(_KERNEL) for step in steps]
    node_names = {name for name in names if graph.find(name)}
    result = []
    for name, step in zip(names, steps, strict=True):
        operator = str(step["args"]["op_name"])
        nodes = _nodes_of(name, operator, graph, node_names)
        result.append(
            Layer(
                name=nodes[0] if nodes else name,
                nodes=nodes,
                operator=operator,
                precision=_precision_of(step["args"]),
                weighted=is_weighted(operator),
                duration_s=step["dur"] / 1e6 if timed else None,
            )
        )
    return tuple(result)


_TYPES = {"float": "float32", "double": "float64", "uint8": "int8"}
"""NumPy's names for ONNX Runtime's types. Signed and unsigned 8-bit integers are both reported as int8."""


def _precision_of(properties: Mapping[str, Any]) -> str:
    """Return the precision of a step: the type of its first tensor."""
    tensors = (*properties["input_type_shape"], *properties["output_type_shape"])
    first = next((kind for tensor in tensors for kind in tensor), "none")
    return _TYPES.get(first, first)


_DECORATIONS = re.compile(r"^InsertedPrecisionFreeCast_|_nchwc$|_token_\d+$")
"""The prefixes and suffixes that ONNX Runtime adds to the names of rewritten nodes."""


def _nodes_of(name: str, operator: str, graph: OnnxGraph, node_names: set[str]) -> tuple[str, ...]:
    """Return the names of the graph's nodes that a step executes, main node first, or none for an added step.

    ONNX Runtime decorates the name of a rewritten node, or names it after the tensor that it produces: a convolution
    with a fused activation has the name of the activation. ``node_names`` are the steps with the undecorated name of a
    node. A decorated name never stands for one of these nodes.
    """
    plain = name
    while (node := graph.find(plain)) is None and _DECORATIONS.search(plain):
        plain = _DECORATIONS.sub("", plain, count=1)
    if node is None or (plain != name and plain in node_names):
        return ()
    if is_weighted(operator):
        return tuple(step.name for step in graph.find_fused(node))
    return (node.name,) if node.name == name or node.operator in operator else ()
