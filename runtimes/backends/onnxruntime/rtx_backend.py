"""The backend for ONNX Runtime's TensorRT-RTX provider: ONNX files on RTX GPUs.

The provider is a plugin in a package of its own, and works with the package onnxruntime for the CPU. Engines are built
whenever a file is opened, which takes seconds. The kernels that are compiled for the GPU are kept in the cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Profile
from runtimes.backends.onnxruntime import batches, session_factory
from runtimes.backends.onnxruntime.backend import OnnxRuntimeSession
from runtimes.backends.onnxruntime.errors import check_tf32
from runtimes.backends.onnxruntime.providers import RtxProvider, add_profile
from runtimes.errors import CompatibilityError, Reason
from runtimes.libraries import missing_library
from runtimes.protocol import Backend, Description, Options
from runtimes.tensors.spec import Arrays

if TYPE_CHECKING:
    import onnxruntime

_COPIES = Reason(
    "bound-runs-copy",
    "ONNX Runtime's TensorRT-RTX provider runs on arrays of the host, so its inference-only latency includes copies",
)


def _missing() -> Reason | None:
    library = missing_library("onnxruntime", "cpu")
    if library is not None:
        return library
    if missing_library(RtxProvider.plugin, "cpu") is None:
        return None
    return Reason("plugin-missing", f"{RtxProvider.package} is not installed (pip install {RtxProvider.package})")


class RtxSession(OnnxRuntimeSession):
    """A session of the plugin. Batches above the profile are run in parts.

    A run may allocate memory on the GPU, so no other session records meanwhile.

    Args:
        session: The session of the library.
        description: The description of what runs.
        max_batch: The largest batch of the profile, or ``None`` for a graph whose batch is fixed.
    """

    def __init__(self, session: onnxruntime.InferenceSession, description: Description, max_batch: int | None) -> None:
        super().__init__(session, description)
        self._max_batch = max_batch

    def run(self, arrays: Arrays) -> Arrays:
        """Run the model, as ``Session.run``."""
        with _alone():
            return batches.join([super(RtxSession, self).run(part) for part in self._parts(arrays)])

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the model on the arrays, as ``Session.bind``."""
        calls = [super(RtxSession, self).bind(part) for part in self._parts(arrays)]

        def run_once() -> None:
            with _alone():
                for call in calls:
                    call()

        return run_once

    def close(self) -> None:
        """Free the session of the library."""
        with _alone():
            super().close()

    def _parts(self, arrays: Arrays) -> list[Arrays]:
        return batches.split(arrays, len(arrays[self.inputs[0].name]), self._max_batch)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let no other session of this process record on a GPU in the ``with`` block."""
    from runtimes.backends.onnxruntime.serialised import GPU_LOCK
    from runtimes.tensors.capture import capture_lock

    with GPU_LOCK, capture_lock():
        yield


def _open(artifact: Artifact, options: Options) -> RtxSession:
    from runtimes.backends.tensorrt.build_settings import DEFAULT_PROFILE

    if options.device_index:
        raise CompatibilityError(
            f"ONNX Runtime's TensorRT-RTX provider uses the first GPU only, not {options.device_name}",
            code="plugin-first-gpu-only",
            path=artifact.path,
            hint=f"set CUDA_VISIBLE_DEVICES={options.device_index} and choose the device cuda",
        )
    kinds = check_tf32(artifact, "ONNX Runtime's TensorRT-RTX provider")
    if artifact.manifest is None:
        raise CompatibilityError(
            "ONNX Runtime's TensorRT-RTX provider needs the shapes of the inputs, and the file has no manifest",
            code="plugin-needs-manifest",
            path=artifact.path,
            hint="choose another backend, or export the model with rexport",
        )
    profile = DEFAULT_PROFILE if options.batch is None else Profile(1, options.batch, options.batch)
    plain = RtxProvider(nv_runtime_cache_path=_claim_folder())
    provider = add_profile(plain, artifact.manifest.inputs, profile)
    with _alone():
        session = session_factory.open_session(artifact, provider, options.threads)
    precision = " ".join("tfloat32" if kind == "float32" else kind for kind in kinds) or "as in the graph"
    description = session_factory.describe_session(session, BACKEND.name, options, precision)
    return RtxSession(session, replace(description, notes=(_COPIES,)), None if provider is plain else profile.most)


def _claim_folder() -> Path:
    """Return the folder for compiled kernels, to which only this user may write. The library checks its content."""
    from runtimes.backends.tensorrt import engine_cache

    root = engine_cache.claim_folder(engine_cache.default_folder())
    return engine_cache.claim_folder(root / "rtx-kernels.onnxruntime")


BACKEND = Backend(
    name="onnxruntime-rtx",
    title="ONNX Runtime with TensorRT-RTX",
    formats=("onnx",),
    devices=("cuda",),
    priority=12,
    missing=_missing,
    open=_open,
)
