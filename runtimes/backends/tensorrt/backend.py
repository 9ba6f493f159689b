"""TensorRT: its engines, and ``.onnx`` files through an engine that is built of them on first use.

How an engine is told from one that must not be opened here is in ``runtimes.backends.tensorrt.compatibility``, how it
runs in ``runtimes.backends.tensorrt.session``; ``tensorrt-rtx`` goes the same way with another library.
"""

from __future__ import annotations

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor
from runtimes.errors import Reason
from runtimes.protocol import Arrays, Backend, DeviceSession, Layer, Options


def make_backend(flavor: Flavor, priority: int, aliases: tuple[str, ...] = ()) -> Backend:
    """The row of the library. What opens and profiles its engines is imported when it is first called."""

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
