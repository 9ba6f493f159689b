"""The backend for OpenVINO: ONNX files on Intel and AMD processors.

The precision follows the graph, not OpenVINO's defaults. By default, OpenVINO would compute float32 in bfloat16 on
processors that support it, and float16 in float32 on processors that do not support float16. A graph in a narrow float
type that the processor does not support is computed in float32.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.compiled_models import discard_compiled, path_of_compiled, read_compiled, write_compiled
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError, RexportError, quote
from runtimes.libraries import importing, missing_library
from runtimes.onnx import graph as onnxfile
from runtimes.onnx.graph import OnnxGraph
from runtimes.protocol import Backend, Description, Layer, Options
from runtimes.tensors.spec import Arrays, TensorSpec

if TYPE_CHECKING:
    import openvino


class OpenVinoSession:
    """A compiled OpenVINO model with a stack of infer requests. Each request serves one thread at a time.

    Args:
        compiled: The compiled model. The session owns it.
        types: The types of the convolutions and matrix products in the graph.
        version: The version of OpenVINO.
        kept: The file of the compiled model in a cache, or ``None``.

    Attributes:
        native: The compiled model.
    """

    def __init__(
        self, compiled: openvino.CompiledModel, types: tuple[str, ...], version: str, kept: _Kept | None = None
    ) -> None:
        self.native = compiled
        self._kept = kept
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
            compiled=None if kept is None else os.fspath(kept.path),
        )

    @contextlib.contextmanager
    def _request(self) -> Iterator[openvino.InferRequest]:
        with self._lock:
            request = self._idle.pop() if self._idle else self.native.create_infer_request()
        try:
            with _translate_errors():
                yield request
        finally:
            with self._lock:
                self._idle.append(request)

    def run(self, arrays: Arrays) -> Arrays:
        """Run the model, as ``Session.run``."""
        with self._request() as request:
            request.infer(arrays, share_inputs=True, share_outputs=True)
            return {spec.name: request.get_output_tensor(index).data.copy() for index, spec in enumerate(self.outputs)}

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the model on the arrays, as ``Session.bind``."""
        # Inputs are shared, not copied: a new request that copies may receive memory that another request shares, and
        # then overwrites the array of that request's caller (OpenVINO 2026.4, dynamic batch).
        request = self.native.create_infer_request()
        request.infer(arrays, share_inputs=True)

        def run_once() -> None:
            with _translate_errors():
                request.infer(share_outputs=True)

        return run_once

    def close(self) -> None:
        """Free the model."""
        self._idle.clear()
        del self.native
        self._kept = None


def _spec(port: openvino.ConstOutput) -> TensorSpec:
    kind = port.get_element_type()
    name = kind.get_type_name()
    if name == "bf16":  # NumPy has no such type, and OpenVINO would call it float16
        raise CompatibilityError(
            f"the type {name} of {quote(port.get_any_name())} is not supported",
            code="tensor-type-unsupported",
        )
    shape = tuple(
        size.get_length() if size.is_static else f"dim{axis}" for axis, size in enumerate(port.get_partial_shape())
    )
    return TensorSpec(port.get_any_name(), kind.to_dtype().name, shape)


@contextlib.contextmanager
def _translate_errors(artifact: Artifact | None = None) -> Iterator[None]:
    """Translate OpenVINO's exceptions in the ``with`` block to those of rexport.

    Most are RuntimeError. A UnicodeDecodeError arises where OpenVINO quotes the bytes of a file.
    """
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
        return CompatibilityError(f"OpenVINO cannot run the model: {text}", code="openvino-cannot-run", path=path)
    if path is not None and "Could not open the file" in text:
        return ResourceError.from_os(OSError("OpenVINO could not open the file"), path, "read")
    if path is not None and (failure := files.find_read_failure(path)) is not None:
        return failure
    return ArtifactError(f"OpenVINO cannot read the model: {text}", code="openvino-refused-file", path=path)


_NEWEST_IR, _NEWEST_OPSET = 14, 28
"""The newest versions of the ONNX standard that were tested. OpenVINO reads newer files as the newest it knows."""


def _check_versions(artifact: Artifact) -> None:
    file = onnxfile.read(artifact.path)
    if file.ir_version > _NEWEST_IR or file.opset > _NEWEST_OPSET:
        raise CompatibilityError(
            f"the model has IR version {file.ir_version} and opset {file.opset}; backend openvino supports at most IR "
            f"version {_NEWEST_IR} and opset {_NEWEST_OPSET}",
            code="openvino-version-unknown",
            path=artifact.path,
            hint="export the model with an older opset, or choose another backend",
        )


_CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}
"""OpenVINO's names for the processor's support of narrow float types."""

_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "f64": "float64"} | dict.fromkeys(
    ("i8", "u8", "I8", "U8"), "int8"
)
"""NumPy's names for OpenVINO's types. Signed and unsigned 8-bit integers are both reported as int8."""


def precision_hint(types: tuple[str, ...], capabilities: list[str]) -> str:
    """Return OpenVINO's name of the precision to request. One precision applies to all float layers.

    Args:
        types: The types of the layers.
        capabilities: The processor's ``OPTIMIZATION_CAPABILITIES``.
    """
    floats = [kind for kind in types if kind != "int8"]
    narrow = len(floats) == 1 and _CAPABILITIES.get(floats[0]) in capabilities
    return next(name for name, kind in _TYPES.items() if kind == (floats[0] if narrow else "float32"))


def _precision(compiled: openvino.CompiledModel, types: tuple[str, ...]) -> str:
    """Return the precision that the compiled model reports for floats, and int8 if the graph has quantised layers."""
    name = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    floats = {_TYPES.get(name, name)} if types != ("int8",) else set()
    return " ".join(sorted(floats | {"int8"}.intersection(types)))


def _compile(
    artifact: Artifact, options: Options, types: tuple[str, ...], more: Mapping[str, object]
) -> tuple[openvino.CompiledModel, _Kept | None]:
    with importing("openvino", "openvino"):
        import openvino

    _check_versions(artifact)
    with _translate_errors(artifact):
        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": precision_hint(types, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": options.streams,
            "INFERENCE_NUM_THREADS": options.threads,
        }
        if options.model_cache is not None:
            return _compile_once(core, artifact, settings | dict(more), options.model_cache)
        return core.compile_model(core.read_model(os.fspath(artifact.path)), "CPU", settings | dict(more)), None


def _compile_once(
    core: openvino.Core, artifact: Artifact, settings: Mapping[str, object], folder: Path
) -> tuple[openvino.CompiledModel, _Kept | None]:
    """Take a compiled model from a cache, or compile it and write it there.

    OpenVINO's own cache knows a model by its path, size and date, reads damaged files, and grows without a limit.
    """
    import openvino

    path = path_of_compiled(
        folder,
        {
            "model": _digest(artifact),
            "openvino": openvino.__version__,
            "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
            "capabilities": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
            "settings": dict(settings),
        },
    )
    content = read_compiled(path)
    if content is not None:
        try:
            tensor = openvino.Tensor(content, shared_memory=True)
            return core.import_model(tensor, "CPU", dict(settings)), _Kept(path, content)
        except Exception as error:  # a processor or a build that differs in what its name does not tell
            discard_compiled(path, error)
    compiled = core.compile_model(core.read_model(os.fspath(artifact.path)), "CPU", dict(settings))
    written = write_compiled(path, compiled.export_model().getbuffer())
    return compiled, _Kept(path) if written else None


class _Kept(NamedTuple):
    """The file of a compiled model, and its content in memory, which the compiled model may refer to."""

    path: Path
    content: object = None


def _digest(artifact: Artifact) -> str:
    """Return the digest of the model file and of the files of its weights, as its manifest has them."""
    manifest = artifact.manifest
    if manifest is None:
        return files.sha256_of(artifact.path)
    parts = (manifest.sha256, *(record.sha256 for record in manifest.external))
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def _open(artifact: Artifact, options: Options) -> OpenVinoSession:
    types = onnxfile.graph(artifact.path).arithmetic
    compiled, kept = _compile(artifact, options, types, {})
    import openvino

    with _translate_errors(artifact):
        session = OpenVinoSession(compiled, types, openvino.__version__.split("-")[0], kept)
    if session.description.threads != options.threads:
        raise CompatibilityError(
            f"{options.threads} threads were requested, but OpenVINO uses {session.description.threads}",
            code="openvino-threads-differ",
            hint=f"request at most {session.description.threads} threads",
        )
    return session


def _profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    graph = onnxfile.graph(artifact.path)
    compiled, _ = _compile(artifact, options, graph.arithmetic, {"PERF_COUNT": True})
    with _translate_errors(artifact):
        request = compiled.create_infer_request()
        request.infer(arrays, share_inputs=True)
        first = _steps(compiled)
        for _ in range(_WARM_RUNS):
            request.infer(arrays, share_inputs=True)
        steps = _steps(compiled)
    # OpenVINO reports the mean over all runs. The first run packs weights and allocates memory, and is subtracted.
    durations_us = [
        max(0.0, ((_WARM_RUNS + 1) * _mean_us(warm) - _mean_us(cold)) / _WARM_RUNS)
        for cold, warm in zip(first, steps, strict=True)
    ]
    return tuple(
        _layer(step, graph, duration_us / 1e6)
        for step, duration_us in zip(steps, durations_us, strict=True)
        if _mean_us(step) or step["layerType"] in _WEIGHTED
    )


_WARM_RUNS = 4
"""The number of profiled runs after the first."""


def _mean_us(step: Mapping[str, str]) -> int:
    """Return the mean time of a step in microseconds.

    The result is 0 for a step below one microsecond: OpenVINO reports such a step as not executed, like a constant.
    """
    return 0 if step["execTimeMcs"] == "not_executed" else int(step["execTimeMcs"])


def _steps(compiled: openvino.CompiledModel) -> list[dict[str, str]]:
    """Return the properties of the compiled model's steps, in the order of execution."""
    steps = []
    for step in compiled.get_runtime_model().get_ordered_ops():
        properties = {
            key: value if isinstance(value, str) else value.astype(str) for key, value in step.rt_info.items()
        }
        steps.append(properties | {"name": step.friendly_name})
    return sorted(steps, key=lambda properties: int(properties["execOrder"]))


_WEIGHTED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


def _layer(step: Mapping[str, str], graph: OnnxGraph, duration_s: float) -> Layer:
    """Return a step of the compiled model as a layer, named after the graph's nodes.

    OpenVINO reports names of nodes, or the name of the tensor that the last node produces. It adds a suffix to the
    names of convolutions.
    """
    originals = (name.removesuffix("/WithoutBiases") for name in step["originalLayersNames"].split(","))
    nodes = list(dict.fromkeys(node for name in originals if (node := graph.find(name)) is not None))
    weighted = step["layerType"] in _WEIGHTED
    if weighted and nodes and not any(node.weighted for node in nodes):
        nodes = [*graph.find_fused(nodes[0]), *nodes[1:]]
    main_node = next((node for node in nodes if node.weighted == weighted), next(iter(nodes), None))
    kind = step["primitiveType"].rpartition("_")[2]
    return Layer(
        name=step["name"] if main_node is None else main_node.name,
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
    caches_models=True,
)
