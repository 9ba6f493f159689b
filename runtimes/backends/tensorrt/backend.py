"""The backend for TensorRT: engines, and ONNX files, from which an engine is built on first use.

``compatibility`` checks whether an engine may be opened here, and ``session`` runs it. The backend for TensorRT-RTX
uses the same code with another library.
"""

from __future__ import annotations

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor
from runtimes.errors import Reason
from runtimes.protocol import Arrays, Backend, DeviceSession, Layer, Options


def make_backend(flavor: Flavor, priority: int, aliases: tuple[str, ...] = ()) -> Backend:
    """Return the backend for a library. The code that opens engines is imported on first use.

    Args:
        flavor: The library.
        priority: As for ``Backend``.
        aliases: As for ``Backend``.
    """

    def missing() -> Reason | None:
        from runtimes.tensors import cuda

        return flavor.missing() or cuda.missing()

    def open(artifact: Artifact, options: Options) -> DeviceSession:
        from runtimes.backends.tensorrt.open import open_session

        return open_session(artifact, options, flavor)

    def profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
        from runtimes.backends.tensorrt.open import profile

        return profile(artifact, options, arrays, flavor)

    return Backend(
        name=flavor.backend,
        title=flavor.title,
        formats=("engine", "onnx"),
        devices=("cuda",),
        priority=priority,
        missing=missing,
        open=open,
        profile=profile,
        aliases=aliases,
    )


BACKEND = make_backend(FLAVORS["tensorrt"], priority=1, aliases=("trt",))
