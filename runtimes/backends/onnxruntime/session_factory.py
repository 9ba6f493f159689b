"""The library's own session, opened on the provider that was asked for and on no other."""

from __future__ import annotations

import contextlib
import io
import os
from types import ModuleType
from typing import TYPE_CHECKING

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.onnxruntime.errors import is_unloaded, refusal
from runtimes.backends.onnxruntime.providers import CpuProvider, Provider
from runtimes.backends.registry import importing
from runtimes.errors import BackendUnavailableError, CompatibilityError, quote
from runtimes.protocol import Description, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

_GPU_BUILD = "pip uninstall onnxruntime, then pip install 'rexport[gpu]'"

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


def spec_of(node: onnxruntime.NodeArg) -> TensorSpec:
    """An input or output of a session.

    Raises:
        CompatibilityError: it is of a type that NumPy lacks.
    """
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise CompatibilityError(
            f"{quote(node.name)} has the type {quote(node.type)}, which no runtime here takes",
            code="tensor-type-unsupported",
        )
    shape = tuple(size if isinstance(size, int) else str(size or f"dim{axis}") for axis, size in enumerate(node.shape))
    return TensorSpec(node.name, dtype, shape)


def specs(session: onnxruntime.InferenceSession) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Its inputs and its outputs. Raises as ``spec_of``."""
    return tuple(map(spec_of, session.get_inputs())), tuple(map(spec_of, session.get_outputs()))


def describe_session(session: onnxruntime.InferenceSession, backend: str, device: str, precision: str) -> Description:
    """What the session runs as; ``precision`` alone it does not tell."""
    import onnxruntime

    return Description(
        backend=backend,
        version=onnxruntime.__version__,
        device=device,
        provider=session.get_providers()[0],
        precision=precision,
        threads=session.get_session_options().intra_op_num_threads,
    )


def import_library(provider: str) -> ModuleType:
    """ONNX Runtime, which has the provider compiled in; whether this machine can use it is seen when it opens.

    Raises:
        BackendUnavailableError: it cannot be imported, or has no such provider.
    """
    # The official builds report to their maker over the network unless told not to before they are imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with importing("onnxruntime", "cpu"):
        import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise BackendUnavailableError(
            f"this onnxruntime has no {provider}", code="provider-not-compiled", hint=_GPU_BUILD
        )
    return onnxruntime  # type: ignore[no-any-return]


def open_session(
    artifact: Artifact, provider: Provider, threads: int, profile: str | None = None
) -> onnxruntime.InferenceSession:
    """A session on the provider. ``profile`` is the path, without its end, of a file that its profiler writes.

    Raises:
        BackendUnavailableError: the library or the provider is not here, or its own libraries are not.
        CompatibilityError: the provider cannot run all of the graph.
        RexportError: the library cannot read it.
    """
    onnxruntime = import_library(provider.name)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profile
    said = ""
    if not isinstance(provider, CpuProvider):
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # What this rewrites is for the processor; it would leave integers there that these providers do not take.
        settings.add_session_config_entry("session.disable_quant_qdq", "1")
        said = _load_libraries(onnxruntime)
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(artifact.path),
            settings,
            providers=[(provider.name, provider.encode())],
            enable_fallback=False,  # else it prints, and tries the processor
        )
    except Exception as error:
        if is_unloaded(error, said):
            raise _unloadable(provider.name, said or str(error)) from error
        raise refusal(error, artifact, provider.name) from error
    if session.get_providers()[0] != provider.name:
        raise _unloadable(provider.name, said or f"ONNX Runtime gave {session.get_providers()[0]}")
    return session


def _load_libraries(onnxruntime: ModuleType) -> str:
    """Loads CUDA's libraries from where pip puts them, in which the system does not look; what could not be loaded,
    which the library prints."""
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        onnxruntime.preload_dlls()
    return "; ".join(line for line in heard.getvalue().splitlines() if line.startswith("Failed to load"))


def _unloadable(provider: str, why: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"{provider} was asked for and cannot be loaded: {quote(why)}",
        code="provider-not-loadable",
        hint="pip install --upgrade 'rexport[gpu]', and a driver for its CUDA",
    )
