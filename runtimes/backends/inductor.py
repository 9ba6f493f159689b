"""PyTorch, compiled: the same ``.pt2`` programs through ``torch.compile`` and its Inductor code generator.

The first batch of 1 and the first larger batch compile for some seconds each; what was compiled is kept in PyTorch's
own cache folder for the next process. It needs a C++ compiler.
"""

from __future__ import annotations

import os
import shutil

from runtimes.artifact import Artifact
from runtimes.backends import missing_library
from runtimes.backends.pytorch import TorchSession, describe, load_program
from runtimes.protocol import Backend, Options


def _missing() -> str | None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler {compiler!r} (install g++, or name one in CXX)"
    return missing_library("torch", "export")


def _open(artifact: Artifact, options: Options) -> TorchSession:
    module = load_program(artifact, options.device)
    import torch

    about = describe(BACKEND.name, "inductor", module, options)
    # fullgraph: a part that cannot be compiled is an error, never a silent return to eager.
    compiled = torch.compile(module, fullgraph=True, dynamic=True, options={"freezing": True})
    return TorchSession(compiled, artifact, about)


BACKEND = Backend(
    name="inductor",
    formats=("pt2",),
    devices=("cpu", "cuda"),
    priority=40,
    missing=_missing,
    open=_open,
)
