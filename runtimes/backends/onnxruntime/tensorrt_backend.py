"""ONNX Runtime with TensorRT under it: ``.onnx`` on CUDA. It needs onnxruntime-gpu, and TensorRT 10 beside it, not 11.

The provider names its engines by the graph's shape and not by its weights, so that each file has a folder of its own.
It cannot be kept from TensorFloat-32: a graph of float32 alone must allow it. Its recorded runs replay the addresses
that they were made with, whatever is bound later; none is recorded.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.backends.onnxruntime import session_factory
from runtimes.backends.onnxruntime.providers import CudaProvider, TensorrtProvider, add_profile
from runtimes.errors import (
    BackendUnavailableError,
    CompatibilityError,
    Reason,
    quote,
)
from runtimes.libraries import missing_library
from runtimes.onnx import graph as onnxfile
from runtimes.protocol import Backend, Options

if TYPE_CHECKING:
    from runtimes.backends.onnxruntime.gpu_session import OnnxRuntimeDeviceSession

_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
"""That the provider of onnxruntime-gpu is linked to, or loads."""

_PIP = "pip install 'tensorrt-cu13>=10.13,<11'"


def _missing() -> Reason | None:
    library = missing_library("onnxruntime", "gpu")
    if library is not None:
        return library
    found = importlib.util.find_spec("onnxruntime")
    places = (found.submodule_search_locations or ()) if found is not None else ()
    if not any((Path(place) / "capi" / "libonnxruntime_providers_tensorrt.so").is_file() for place in places):
        return Reason(
            "onnxruntime-without-tensorrt",
            "this onnxruntime has no TensorRT provider (pip uninstall onnxruntime, then pip install 'rexport[gpu]')",
        )
    absent = [name for name in _LIBRARIES if not _is_here(name)]
    if not absent:
        return None
    return Reason(
        "tensorrt-10-missing", f"TensorRT 10 is not installed: there is no {' and no '.join(absent)} ({_PIP})"
    )


def _is_here(name: str) -> bool:
    """Whether the system's loader would find the library, or pip's package of TensorRT's libraries has it."""
    return any((folder / name).is_file() for folder in _folders()) or name.encode() + b"\0" in _loaders_cache()


def _folders() -> Iterator[Path]:
    found = importlib.util.find_spec("tensorrt_libs")
    if found is not None:
        yield from map(Path, found.submodule_search_locations or ())
    yield from (Path(place) for place in os.environ.get("LD_LIBRARY_PATH", "").split(":") if place)


def _loaders_cache() -> bytes:
    try:
        return _LOADERS_CACHE.read_bytes()
    except OSError:
        return b""


_LOADERS_CACHE = Path("/etc/ld.so.cache")


def _load_tensorrt() -> str:
    """Loads the libraries, from where the system's loader would not look for them, too; the version of TensorRT."""
    version = 0
    for name in _LIBRARIES:
        place = next((folder / name for folder in _folders() if (folder / name).is_file()), Path(name))
        try:
            library = ctypes.CDLL(os.fspath(place))
        except OSError as error:
            raise BackendUnavailableError(
                f"TensorRT 10 cannot be loaded: {quote(error)}", code="tensorrt-not-loadable", hint=_PIP
            ) from error
        if name == _LIBRARIES[0]:
            version = library.getInferLibVersion()
    return str(version)


def _open(artifact: Artifact, options: Options) -> OnnxRuntimeDeviceSession:
    from runtimes.backends.onnxruntime.gpu_session import open_on_gpu
    from runtimes.backends.tensorrt.build_settings import DEFAULT_PROFILE
    from runtimes.tensors import cuda

    kinds = onnxfile.graph(artifact.path).arithmetic
    if kinds == ("float32",) and not artifact.allows_tf32:
        raise CompatibilityError(
            "ONNX Runtime's TensorRT provider computes float32 in TensorFloat-32, which this artifact does not allow",
            code="provider-needs-tf32",
            path=artifact.path,
            hint="export it with --precision tf32, or name another backend",
        )
    missing = cuda.missing()
    if missing is not None:
        raise BackendUnavailableError(
            f"{TensorrtProvider.name} finds no CUDA device", code="provider-without-gpu", hint=missing.sentence
        )
    session_factory.import_library(TensorrtProvider.name)
    folder = _engines(artifact, _load_tensorrt())
    provider = TensorrtProvider(
        trt_engine_cache_enable=True,
        trt_engine_cache_path=folder,
        trt_timing_cache_enable=True,
        trt_timing_cache_path=folder,
    )
    precision = " ".join("tfloat32" if kind == "float32" else kind for kind in kinds) or "as in the graph"
    inputs = artifact.manifest.inputs if artifact.manifest is not None else ()
    shaped = add_profile(provider, inputs, DEFAULT_PROFILE)
    with files.folder_lock(folder):  # it builds while it opens, and writes engines that are not whole at once
        return open_on_gpu(
            artifact,
            options,
            shaped,
            lambda session: session_factory.describe_session(session, BACKEND.name, options.device, precision),
            most=None if shaped is provider else DEFAULT_PROFILE.most,
        )


def _engines(artifact: Artifact, tensorrt: str) -> Path:
    """The folder of the artifact's engines for this GPU and these libraries, which is this user's alone."""
    import onnxruntime

    from runtimes.backends.tensorrt import engine_cache
    from runtimes.backends.tensorrt.build_settings import DEFAULT_PROFILE, Settings
    from runtimes.tensors import cuda

    gpu = cuda.device()
    key = engine_cache.Key(
        flavor=TensorrtProvider.name,
        version=f"{onnxruntime.__version__} {tensorrt}",
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        driver=gpu.driver,
        onnx_sha256=_digest(artifact),
        settings=Settings((DEFAULT_PROFILE,), tf32=True),
    )
    root = engine_cache.claim_folder(engine_cache.default_folder())
    return engine_cache.claim_folder(root / f"{key.digest}.onnxruntime")


def _digest(artifact: Artifact) -> str:
    """Of the file and of those that hold its weights: 64 hexadecimal digits."""
    places = dict.fromkeys(location for location, _ in onnxfile.read(artifact.path).external)
    parts = [files.sha256_of(place) for place in (artifact.path, *map(artifact.path.with_name, places))]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


BACKEND = Backend(
    name="onnxruntime-tensorrt",
    title="ONNX Runtime with TensorRT",
    formats=("onnx",),
    devices=("cuda",),
    priority=8,
    missing=_missing,
    open=_open,
    check_gpu=lambda: session_factory.import_library(CudaProvider.name),
)
