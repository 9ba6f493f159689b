"""The backend for PyTorch with ``torch.compile(mode="max-autotune")``: Inductor times its kernels on the device.

Compiling takes minutes for each of the first batch sizes. The CUDA graphs are those of the backend ``inductor``.
"""

from __future__ import annotations

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.backend import check_gpu
from runtimes.backends.pytorch.inductor_backend import missing_compiler, open_compiled
from runtimes.backends.pytorch.session import TorchSession
from runtimes.protocol import Backend, Options

MODE = "max-autotune-no-cudagraphs"
"""The mode of ``torch.compile`` without CUDA graphs of its own, which belong to the thread that recorded them."""


def _open(artifact: Artifact, options: Options) -> TorchSession:
    return open_compiled(BACKEND.name, "inductor max-autotune", artifact, options, MODE)


BACKEND = Backend(
    name="inductor-max-autotune",
    title="PyTorch Inductor max-autotune",
    formats=("pt2",),
    devices=("cuda",),
    priority=41,
    missing=missing_compiler,
    open=_open,
    check_gpu=check_gpu,
    aliases=("max-autotune",),
    prepares_batches=("cuda",),
    named_only=True,
)
