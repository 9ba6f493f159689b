"""OpenVINO: ``.onnx`` on Intel and AMD processors."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from runtimes import onnxfile
from runtimes.artifact import Artifact
from runtimes.backends import importing, missing_library
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError, RexportError, quoted
from runtimes.protocol import Arrays, Backend, Description, Options, TensorSpec

if TYPE_CHECKING:
    import openvino


class OpenVinoSession:
    """A compiled model and a stack of infer requests, each used by one thread at a time."""

    def __init__(self, compiled: openvino.CompiledModel, version: str) -> None:
        self._compiled = compiled
        self._idle: list[openvino.InferRequest] = []
        self._lock = threading.Lock()
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self.outputs = tuple(_spec(port) for port in compiled.outputs)
        self.description = Description(
            backend=BACKEND.name,
            version=version,
            device="cpu",
            provider=" ".join(compiled.get_property("EXECUTION_DEVICES")),
            precision=compiled.get_property("INFERENCE_PRECISION_HINT").to_dtype().name,
            threads=compiled.get_property("INFERENCE_NUM_THREADS"),
        )

    @contextlib.contextmanager
    def _request(self) -> Iterator[openvino.InferRequest]:
        with self._lock:
            request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        try:
            yield request
        except RuntimeError as error:
            raise _translated(error, None) from error
        finally:
            with self._lock:
                self._idle.append(request)

    def run(self, arrays: Arrays) -> Arrays:
        with self._request() as request:
            request.infer(arrays, share_inputs=True, share_outputs=True)
            return {spec.name: request.get_output_tensor(index).data.copy() for index, spec in enumerate(self.outputs)}

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        request = self._compiled.create_infer_request()
        request.infer(arrays, share_inputs=False)

        def run_once() -> None:
            try:
                request.infer(share_outputs=True)
            except RuntimeError as error:
                raise _translated(error, None) from error

        return run_once

    def close(self) -> None:
        self._idle.clear()
        del self._compiled


def _spec(port: openvino.ConstOutput) -> TensorSpec:
    shape = tuple(
        size.get_length() if size.is_static else f"dim{axis}" for axis, size in enumerate(port.get_partial_shape())
    )
    return TensorSpec(port.get_any_name(), port.get_element_type().to_dtype().name, shape)


def _translated(error: Exception, artifact: Artifact | None) -> RexportError:
    path = None if artifact is None else artifact.path
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    text = quoted(lines[-1] if lines else error)
    if "memory" in text.lower() and "alloc" in text.lower():
        return ResourceError(f"OpenVINO ran out of memory: {text}", path=path)
    if "not supported" in text or "unsupported" in text.lower():
        return CompatibilityError(f"OpenVINO cannot run it: {text}", path=path)
    return ArtifactError(f"OpenVINO refused it: {text}", path=path)


_NEWEST_IR, _NEWEST_OPSET = 14, 28
"""Of the ONNX standard when this was written. OpenVINO takes files beyond for the newest that it knows."""


def _check_versions(artifact: Artifact) -> None:
    file = onnxfile.read(artifact.path)
    if file.ir_version > _NEWEST_IR or file.opset > _NEWEST_OPSET:
        raise CompatibilityError(
            f"it is of IR version {file.ir_version} and opset {file.opset}; OpenVINO is trusted with "
            f"{_NEWEST_IR} and {_NEWEST_OPSET} at most",
            path=artifact.path,
            hint="export it with an older opset",
        )


def _open(artifact: Artifact, options: Options) -> OpenVinoSession:
    with importing("openvino", "openvino"):
        import openvino

    _check_versions(artifact)
    precision = "f32"  # the same arithmetic as everywhere: left alone, OpenVINO takes bf16 on processors that have it
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": options.threads,
    }
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(os.fspath(artifact.path)), "CPU", settings)
        session = OpenVinoSession(compiled, openvino.__version__.split("-")[0])
    except Exception as error:  # a RuntimeError mostly; a UnicodeDecodeError where its message quotes the file
        raise _translated(error, artifact) from error
    if session.description.threads != options.threads:
        raise CompatibilityError(
            f"{options.threads} threads were asked for, OpenVINO took {session.description.threads}",
            hint=f"ask for {session.description.threads} or fewer",
        )
    return session


BACKEND = Backend(
    name="openvino",
    formats=("onnx",),
    devices=("cpu",),
    priority=20,
    missing=lambda: missing_library("openvino", "openvino"),
    open=_open,
)
