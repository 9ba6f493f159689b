"""OpenVINO: ``.onnx`` on Intel and AMD processors.

What it computes in follows the graph and never its own defaults, which take bfloat16 for float32 on processors that
have it, and for float16 on those without. A graph in a narrow float that the processor lacks is computed in float32.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from runtimes.artifacts.artifact import Artifact
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError, RexportError, quote
from runtimes.libraries import importing, missing_library
from runtimes.onnx import graph as onnxfile
from runtimes.onnx.graph import OnnxGraph
from runtimes.protocol import Backend, Description, Layer, Options
from runtimes.tensors.spec import Arrays, TensorSpec

if TYPE_CHECKING:
    import openvino


class OpenVinoSession:
    """A compiled model, ``native``, and a stack of infer requests, each used by one thread at a time."""

    def __init__(self, compiled: openvino.CompiledModel, types: tuple[str, ...], version: str) -> None:
        self.native = compiled
        self._idle: list[openvino.InferRequest] = []
        self._lock = threading.Lock()
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self.outputs = tuple(_spec(port) for port in compiled.outputs)
        self.description = Description(
            backend=BACKEND.name,
            version=version,
            device="cpu",
            provider=" ".join(compiled.get_property("EXECUTION_DEVICES")),
            precision=_precision(compiled, types),
            threads=compiled.get_property("INFERENCE_NUM_THREADS"),
        )

    @contextlib.contextmanager
    def _request(self) -> Iterator[openvino.InferRequest]:
        with self._lock:
            request = self._idle.pop() if self._idle else self.native.create_infer_request()
        try:
            with _translating():
                yield request
        finally:
            with self._lock:
                self._idle.append(request)

    def run(self, arrays: Arrays) -> Arrays:
        with self._request() as request:
            request.infer(arrays, share_inputs=True, share_outputs=True)
            return {spec.name: request.get_output_tensor(index).data.copy() for index, spec in enumerate(self.outputs)}

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        # Shared here too: a new request whose inputs are copied may be given memory that another one has shared, and
        # then writes into the array of that one's caller (OpenVINO 2026.4, dynamic batch).
        request = self.native.create_infer_request()
        request.infer(arrays, share_inputs=True)

        def run_once() -> None:
            with _translating():
                request.infer(share_outputs=True)

        return run_once

    def close(self) -> None:
        self._idle.clear()
        del self.native


def _spec(port: openvino.ConstOutput) -> TensorSpec:
    kind = port.get_element_type()
    name = kind.get_type_name()
    if name == "bf16":  # NumPy has no such type, and OpenVINO would call it float16
        raise CompatibilityError(
            f"{quote(port.get_any_name())} has the type {name}, which no runtime here takes",
            code="tensor-type-unsupported",
        )
    shape = tuple(
        size.get_length() if size.is_static else f"dim{axis}" for axis, size in enumerate(port.get_partial_shape())
    )
    return TensorSpec(port.get_any_name(), kind.to_dtype().name, shape)


@contextlib.contextmanager
def _translating(artifact: Artifact | None = None) -> Iterator[None]:
    """OpenVINO's exceptions become rexport's: RuntimeErrors mostly, a UnicodeDecodeError where one quotes the file."""
    try:
        yield
    except RexportError:
        raise
    except Exception as error:
        raise _translate_error(error, artifact) from error


def _translate_error(error: Exception, artifact: Artifact | None) -> RexportError:
    path = None if artifact is None else artifact.path
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    text = quote(lines[-1] if lines else error)
    if "memory" in text.lower() and "alloc" in text.lower():
        return ResourceError(f"OpenVINO ran out of memory: {text}", code="openvino-out-of-memory", path=path)
    if "not supported" in text or "unsupported" in text.lower():
        return CompatibilityError(f"OpenVINO cannot run it: {text}", code="openvino-cannot-run", path=path)
    return ArtifactError(f"OpenVINO refused it: {text}", code="openvino-refused-file", path=path)


_NEWEST_IR, _NEWEST_OPSET = 14, 28
"""Of the ONNX standard when this was written. OpenVINO takes files beyond for the newest that it knows."""


def _check_versions(artifact: Artifact) -> None:
    file = onnxfile.read(artifact.path)
    if file.ir_version > _NEWEST_IR or file.opset > _NEWEST_OPSET:
        raise CompatibilityError(
            f"it is of IR version {file.ir_version} and opset {file.opset}; OpenVINO is trusted with "
            f"{_NEWEST_IR} and {_NEWEST_OPSET} at most",
            code="openvino-version-unknown",
            path=artifact.path,
            hint="export it with an older opset",
        )


_CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}
"""Narrow floats that a graph can be typed in, and what OpenVINO calls a processor's having them."""

_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "f64": "float64"} | dict.fromkeys(
    ("i8", "u8", "I8", "U8"), "int8"
)
"""OpenVINO's names for types in NumPy's. Signed or not, a quantised layer is one of 8-bit integers."""


def precision_hint(types: tuple[str, ...], capabilities: list[str]) -> str:
    """The precision to ask for, as OpenVINO names it, for layers of these types; it is one for all the floats.

    ``capabilities`` are the processor's ``OPTIMIZATION_CAPABILITIES``.
    """
    floats = [kind for kind in types if kind != "int8"]
    narrow = len(floats) == 1 and _CAPABILITIES.get(floats[0]) in capabilities
    return next(name for name, kind in _TYPES.items() if kind == (floats[0] if narrow else "float32"))


def _precision(compiled: openvino.CompiledModel, types: tuple[str, ...]) -> str:
    """What the compiled model answers for its floats, and int8 where the graph has quantised layers."""
    name = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    floats = {_TYPES.get(name, name)} if types != ("int8",) else set()
    return " ".join(sorted(floats | {"int8"}.intersection(types)))


def _compile(
    artifact: Artifact, options: Options, types: tuple[str, ...], more: Mapping[str, object]
) -> openvino.CompiledModel:
    with importing("openvino", "openvino"):
        import openvino

    _check_versions(artifact)
    with _translating(artifact):
        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": precision_hint(types, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": options.threads,
        }
        return core.compile_model(core.read_model(os.fspath(artifact.path)), "CPU", settings | dict(more))


def _open(artifact: Artifact, options: Options) -> OpenVinoSession:
    types = onnxfile.graph(artifact.path).arithmetic
    compiled = _compile(artifact, options, types, {})
    import openvino

    with _translating(artifact):
        session = OpenVinoSession(compiled, types, openvino.__version__.split("-")[0])
    if session.description.threads != options.threads:
        raise CompatibilityError(
            f"{options.threads} threads were asked for, OpenVINO took {session.description.threads}",
            code="openvino-threads-differ",
            hint=f"ask for {session.description.threads} or fewer",
        )
    return session


def _profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    graph = onnxfile.graph(artifact.path)
    compiled = _compile(artifact, options, graph.arithmetic, {"PERF_COUNT": True})
    with _translating(artifact):
        request = compiled.create_infer_request()
        request.infer(arrays, share_inputs=True)
        first = _steps(compiled)
        for _ in range(_RUNS):
            request.infer(arrays, share_inputs=True)
        steps = _steps(compiled)
    # It tells the mean time of all runs, and the first one, which packs weights and finds memory, is not to count.
    durations_us = [
        max(0.0, ((_RUNS + 1) * _mean_us(warm) - _mean_us(cold)) / _RUNS)
        for cold, warm in zip(first, steps, strict=True)
    ]
    return tuple(
        _layer(step, graph, duration_us / 1e6)
        for step, duration_us in zip(steps, durations_us, strict=True)
        if _mean_us(step) or step["layerType"] in _WEIGHTED
    )


_RUNS = 4


def _mean_us(step: Mapping[str, str]) -> int:
    """The mean time of a step's runs, 0 below a microsecond: OpenVINO then says of it what it says of constants."""
    return 0 if step["execTimeMcs"] == "not_executed" else int(step["execTimeMcs"])


def _steps(compiled: openvino.CompiledModel) -> list[dict[str, str]]:
    """What the compiled model tells of its steps, in the order in which they run."""
    steps = []
    for step in compiled.get_runtime_model().get_ordered_ops():
        about = {key: value if isinstance(value, str) else value.astype(str) for key, value in step.rt_info.items()}
        steps.append(about | {"name": step.friendly_name})
    return sorted(steps, key=lambda about: int(about["execOrder"]))


_WEIGHTED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


def _layer(step: Mapping[str, str], graph: OnnxGraph, duration_s: float) -> Layer:
    """A step of the compiled model, named after the graph's nodes. OpenVINO gives the names of nodes or of the tensor
    that the last one makes, and decorates a convolution's."""
    originals = (name.removesuffix("/WithoutBiases") for name in step["originalLayersNames"].split(","))
    nodes = list(dict.fromkeys(node for name in originals if (node := graph.find(name)) is not None))
    weighted = step["layerType"] in _WEIGHTED
    if weighted and nodes and not any(node.weighted for node in nodes):
        nodes = [*graph.find_fused(nodes[0]), *nodes[1:]]
    chosen = next((node for node in nodes if node.weighted == weighted), next(iter(nodes), None))
    kind = step["primitiveType"].rpartition("_")[2]
    return Layer(
        name=step["name"] if chosen is None else chosen.name,
        nodes=tuple(node.name for node in nodes),
        operator=step["layerType"],
        precision=_TYPES.get(kind) or _TYPES.get(step["runtimePrecision"], step["runtimePrecision"]),
        weighted=weighted,
        duration_s=duration_s,
    )


BACKEND = Backend(
    name="openvino",
    title="OpenVINO",
    formats=("onnx",),
    devices=("cpu",),
    priority=20,
    missing=lambda: missing_library("openvino", "openvino"),
    open=_open,
    profile=_profile,
    aliases=("ov",),
)
