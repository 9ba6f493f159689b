"""The backend for eager PyTorch with CUDA graphs: runs of the first batch sizes are recorded once and replayed.

The kernels are those of the backend ``pytorch``. Without Python between them, small batches are faster.
"""

from __future__ import annotations

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.backend import check_gpu, open_eager
from runtimes.backends.pytorch.session import TorchSession
from runtimes.errors import CompatibilityError
from runtimes.libraries import missing_library
from runtimes.protocol import Backend, Options


def _open(artifact: Artifact, options: Options) -> TorchSession:
    if not options.cuda_graphs:
        raise CompatibilityError(
            f"backend {BACKEND.name} runs only with CUDA graphs, which are turned off",
            code="backend-needs-graphs",
            hint="use backend pytorch",
        )
    return open_eager(BACKEND.name, artifact, options, record=True)


BACKEND = Backend(
    name="pytorch-cudagraphs",
    title="PyTorch with CUDA graphs",
    formats=("pt2",),
    devices=("cuda",),
    priority=35,
    missing=lambda: missing_library("torch", "export"),
    open=_open,
    check_gpu=check_gpu,
    aliases=("cudagraphs",),
    without_graphs="pytorch",
)
