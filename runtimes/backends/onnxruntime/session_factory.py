"""Creation of the library's sessions. A session runs on the requested provider and on no other."""

from __future__ import annotations

import contextlib
import io
import os
from types import ModuleType
from typing import TYPE_CHECKING

from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import FP16
from runtimes.backends.onnxruntime import plugin
from runtimes.backends.onnxruntime.errors import is_not_loaded, translate_opening_error
from runtimes.backends.onnxruntime.providers import CpuProvider, Provider, RtxProvider
from runtimes.errors import ArtifactError, BackendUnavailableError, CompatibilityError, quote
from runtimes.files import require_utf8
from runtimes.libraries import importing
from runtimes.onnx import graph as onnxfile
from runtimes.protocol import Description, Options
from runtimes.tensors.spec import TensorSpec

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
    """Return the specification of an input or output of a session.

    Raises:
        CompatibilityError: The type of the tensor is not supported.
    """
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise CompatibilityError(
            f"the type {quote(node.type)} of {quote(node.name)} is not supported",
            code="tensor-type-unsupported",
        )
    shape = tuple(size if isinstance(size, int) else str(size or f"dim{axis}") for axis, size in enumerate(node.shape))
    return TensorSpec(node.name, dtype, shape)


def specs(session: onnxruntime.InferenceSession) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the specifications of a session's inputs and outputs.

    Raises:
        CompatibilityError: The type of a tensor is not supported.
    """
    return tuple(map(spec_of, session.get_inputs())), tuple(map(spec_of, session.get_outputs()))


def describe_session(
    session: onnxruntime.InferenceSession, backend: str, options: Options, precision: str
) -> Description:
    """Return the description of a session.

    Args:
        session: The session of the library.
        backend: The name of the backend.
        options: The options of the user.
        precision: The executed precision, which the library does not report.
    """
    import onnxruntime

    return Description(
        backend=backend,
        version=onnxruntime.__version__,
        device=str(options.device_name),
        provider=session.get_providers()[0],
        precision=precision,
        threads=session.get_session_options().intra_op_num_threads,
    )


def import_library(provider: str) -> ModuleType:
    """Import ONNX Runtime and check that its build contains the provider.

    Whether this machine can use the provider shows only when a session is opened.

    Raises:
        BackendUnavailableError: ONNX Runtime cannot be imported, or its build does not contain the provider.
    """
    # The official builds send telemetry over the network unless this variable is set before they are imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with importing("onnxruntime", "cpu"):
        import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise BackendUnavailableError(
            f"the installed onnxruntime does not contain {provider}", code="provider-not-compiled", hint=_GPU_BUILD
        )
    return onnxruntime  # type: ignore[no-any-return]


def open_session(
    artifact: Artifact, provider: Provider, threads: int, profile: str | None = None
) -> onnxruntime.InferenceSession:
    """Open a session of the library on a provider.

    Args:
        artifact: The artifact.
        provider: The provider with its options.
        threads: The number of processors that one call may use.
        profile: The path, without suffix, of the file that the profiler writes. ``None`` for no profiler.

    Raises:
        BackendUnavailableError: The library, the provider, or a library of the provider is missing.
        CompatibilityError: The provider cannot run the whole graph.
        RexportError: The library cannot read the model, or memory is lacking.
    """
    is_plugin = isinstance(provider, RtxProvider)
    onnxruntime = import_library(CpuProvider.name if is_plugin else provider.name)
    settings = _settings(onnxruntime, artifact, provider, threads)
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profile
    load_failures: tuple[str, ...] = ()
    if isinstance(provider, RtxProvider):
        settings.add_provider_for_devices([plugin.find_device(onnxruntime, provider)], provider.encode())
    elif not isinstance(provider, CpuProvider):
        load_failures = _load_libraries(onnxruntime)
    require_utf8(artifact.path)
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(artifact.path),
            settings,
            providers=None if is_plugin else [(provider.name, provider.encode())],
            enable_fallback=False,  # otherwise the library prints a message and uses the CPU
        )
    except Exception as error:
        if is_not_loaded(error, load_failures):
            raise _not_loadable(provider.name, "; ".join(load_failures) or str(error)) from error
        raise translate_opening_error(error, artifact, provider.name) from error
    if session.get_providers()[0] != provider.name:
        reason = "; ".join(load_failures) or f"ONNX Runtime chose {session.get_providers()[0]}"
        raise _not_loadable(provider.name, reason)
    _check_names(session, artifact)
    return session


def _check_names(session: onnxruntime.InferenceSession, artifact: Artifact) -> None:
    """Raise ``ArtifactError`` if the library cannot return a name of an input, of an output or of a size as text."""
    try:
        for node in (*session.get_inputs(), *session.get_outputs()):
            node.name, node.shape, node.type  # noqa: B018 - the library decodes them now
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"a name in the model is not UTF-8: {error.reason} at byte {error.start}",
            code="model-name-not-utf8",
            path=artifact.path,
        ) from error


def _settings(library: ModuleType, artifact: Artifact, provider: Provider, threads: int) -> onnxruntime.SessionOptions:
    settings = library.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if isinstance(provider, CpuProvider):
        harmful = _harmful_optimiser(artifact)
        if harmful is not None:
            settings.add_session_config_entry("optimization.disable_specified_optimizers", harmful)
    else:
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # This rewriting of Q/DQ nodes is for the CPU. It creates integer operators that these providers do not support.
        settings.add_session_config_entry("session.disable_quant_qdq", "1")
    return settings


def _harmful_optimiser(artifact: Artifact) -> str | None:
    """Return the name of the library's optimiser that spoils a graph on the CPU, or ``None``.

    - ONNX Runtime 1.32 crashes the process where it fuses a transposition with a product in float16.
    - ONNX Runtime stores the biases of quantised layers in steps of the product of two scales. In float16, the product
      underflows or the number of steps overflows, and the outputs are wrong.
    """
    manifest = artifact.manifest
    if manifest is None:
        return None
    if manifest.precision == FP16:
        return "MatmulTransposeFusion"
    narrow = manifest.calibration is not None and "float16" in onnxfile.graph(artifact.path).types.values()
    return "WeightBiasQuantization" if narrow else None


def _load_libraries(onnxruntime: ModuleType) -> tuple[str, ...]:
    """Load CUDA's libraries from pip's folders, which the system's loader does not search.

    Returns:
        The library's messages about those that could not be loaded, which it prints to standard output.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        onnxruntime.preload_dlls()
    return tuple(line for line in printed.getvalue().splitlines() if line.startswith("Failed to load"))


def _not_loadable(provider: str, reason: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"{provider} cannot be loaded: {quote(reason)}",
        code="provider-not-loadable",
        hint="pip install --upgrade 'rexport[gpu]', and install an NVIDIA driver for the same CUDA version",
    )
