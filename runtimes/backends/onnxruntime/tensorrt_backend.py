"""The backend for ONNX Runtime's TensorRT provider: ONNX files on CUDA.

The provider needs onnxruntime-gpu and TensorRT 10, not 11. It has three limits:

- It names engines by the structure of the graph, not by the weights. Each file therefore has its own folder of engines.
- It computes float32 always in TensorFloat-32. A graph with only float32 must allow that.
- Its recordings replay the recorded addresses even if other tensors are bound. Runs are therefore never recorded.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Profile
from runtimes.backends.onnxruntime import session_factory
from runtimes.backends.onnxruntime.errors import check_tf32
from runtimes.backends.onnxruntime.providers import CudaProvider, TensorrtProvider, add_profile
from runtimes.errors import (
    BackendUnavailableError,
    Reason,
    quote,
)
from runtimes.libraries import missing_library
from runtimes.onnx import graph as onnxfile
from runtimes.protocol import Backend, Options

if TYPE_CHECKING:
    from runtimes.backends.onnxruntime.gpu_session import OnnxRuntimeDeviceSession

_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
"""The libraries of TensorRT that the provider of onnxruntime-gpu needs."""

_PIP = "pip install 'tensorrt-cu13>=10.13,<11'"


def _missing() -> Reason | None:
    library = missing_library("onnxruntime", "gpu")
    if library is not None:
        return library
    spec = importlib.util.find_spec("onnxruntime")
    packages = (spec.submodule_search_locations or ()) if spec is not None else ()
    if not any((Path(package) / "capi" / "libonnxruntime_providers_tensorrt.so").is_file() for package in packages):
        return Reason(
            "onnxruntime-without-tensorrt",
            "the installed onnxruntime does not contain the TensorRT provider (pip uninstall onnxruntime, then "
            "pip install 'rexport[gpu]')",
        )
    absent = [name for name in _LIBRARIES if not _is_installed(name)]
    if not absent:
        return None
    return Reason("tensorrt-10-missing", f"TensorRT 10 is not installed: {', '.join(absent)} not found ({_PIP})")


def _is_installed(name: str) -> bool:
    """Return whether pip's package of TensorRT or the system's loader has the library."""
    return any((folder / name).is_file() for folder in _folders()) or name.encode() + b"\0" in _read_loader_cache()


def _folders() -> Iterator[Path]:
    spec = importlib.util.find_spec("tensorrt_libs")
    if spec is not None:
        yield from map(Path, spec.submodule_search_locations or ())
    yield from (Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder)


def _read_loader_cache() -> bytes:
    try:
        return _LOADER_CACHE.read_bytes()
    except OSError:
        return b""


_LOADER_CACHE = Path("/etc/ld.so.cache")
"""The list of libraries that the system's loader finds."""


def _load_tensorrt() -> str:
    """Load the libraries of TensorRT, also from pip's folders, and return the version of TensorRT."""
    version = 0
    for name in _LIBRARIES:
        path = next((folder / name for folder in _folders() if (folder / name).is_file()), Path(name))
        try:
            library = ctypes.CDLL(os.fspath(path))
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

    kinds = check_tf32(artifact, "ONNX Runtime's TensorRT provider")
    missing = cuda.missing()
    if missing is not None:
        raise BackendUnavailableError(
            f"{TensorrtProvider.name} has no CUDA device: {missing}", code="provider-without-gpu"
        )
    session_factory.import_library(TensorrtProvider.name)
    # The smallest batch stays 1: the provider does not run a batch below the profile.
    profile = DEFAULT_PROFILE if options.batch is None else Profile(1, options.batch, options.batch)
    folders = _claim_folders(artifact, _load_tensorrt(), profile, options.device_index)
    provider = TensorrtProvider(
        device_id=options.device_index,
        trt_max_workspace_size=options.gpu_mem_limit,
        trt_engine_cache_enable=True,
        trt_engine_cache_path=folders.engines,
        trt_timing_cache_enable=True,
        trt_timing_cache_path=folders.timing,
    )
    precision = " ".join("tfloat32" if kind == "float32" else kind for kind in kinds) or "as in the graph"
    inputs = artifact.manifest.inputs if artifact.manifest is not None else ()
    with_profile = add_profile(provider, inputs, profile)
    with folders.lock():
        return open_on_gpu(
            artifact,
            options,
            with_profile,
            lambda session: session_factory.describe_session(session, BACKEND.name, options, precision),
            max_batch=None if with_profile is provider else profile.most,
        )


@dataclass(frozen=True)
class _Folders:
    """Two folders of the cache, to which only this user may write.

    Attributes:
        engines: The folder for the engines of an artifact.
        timing: The folder for the measured times of kernels, for all artifacts.
    """

    engines: Path
    timing: Path

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the locks for opening, which builds engines: the provider does not write its files atomically."""
        with contextlib.ExitStack() as locks:
            locks.enter_context(files.folder_lock(self.engines, files.LONG_PATIENCE_S))
            if not any(self.engines.glob("*.engine")):  # only a build uses the times
                locks.enter_context(files.folder_lock(self.timing, files.LONG_PATIENCE_S))
            yield


def _claim_folders(artifact: Artifact, tensorrt: str, profile: Profile, device_index: int) -> _Folders:
    """Return the folders of the cache for an artifact on a GPU with these libraries.

    Args:
        artifact: The artifact.
        tensorrt: The version of TensorRT.
        profile: The batch sizes that the engines are built for.
        device_index: The number of the GPU.
    """
    import onnxruntime

    from runtimes.backends.tensorrt import engine_cache
    from runtimes.backends.tensorrt.build_settings import Settings
    from runtimes.tensors import cuda

    gpu = cuda.device(device_index)
    key = engine_cache.Key(
        flavor=TensorrtProvider.name,
        version=f"{onnxruntime.__version__} {tensorrt}",
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        driver=gpu.driver,
        onnx_sha256=_digest(artifact),
        settings=Settings((profile,), tf32=True),
    )
    root = engine_cache.claim_folder(engine_cache.default_folder())
    names = (f"{key.digest}.onnxruntime", f"{key.timing_cache_name}.onnxruntime")
    return _Folders(*(engine_cache.claim_folder(root / name) for name in names))


def _digest(artifact: Artifact) -> str:
    """Return the digest of the file and the files of its weights, as 64 hexadecimal digits."""
    locations = dict.fromkeys(location for location, _ in onnxfile.read(artifact.path).external)
    parts = [files.sha256_of(path) for path in (artifact.path, *map(artifact.path.with_name, locations))]
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
