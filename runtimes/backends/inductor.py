"""PyTorch, compiled: the same ``.pt2`` programs through ``torch.compile`` and its Inductor code generator.

The first batch of 1 and the first larger batch compile for some seconds each; what was compiled is kept in PyTorch's
own cache folder for the next process. It needs a C++ compiler.
"""

from __future__ import annotations

import importlib
import os
import shutil
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from runtimes.artifact import Artifact
from runtimes.backends import missing_library
from runtimes.backends.pytorch import TorchSession, describe, load_program
from runtimes.protocol import Backend, Description, Options

if TYPE_CHECKING:
    import torch


def _missing() -> str | None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler {compiler!r} (install g++, or name one in CXX)"
    return missing_library("torch", "export")


class InductorSession(TorchSession):
    """One call at a time: calls that meet while something compiles fail, or compile it again for each thread."""

    def __init__(self, call: Callable[[torch.Tensor], torch.Tensor], artifact: Artifact, about: Description) -> None:
        super().__init__(call, artifact, about)
        self._turn = threading.Lock()

    def _forward(self, tensor: torch.Tensor) -> torch.Tensor:
        with self._turn:
            return super()._forward(tensor)


def _open(artifact: Artifact, options: Options) -> InductorSession:
    module = load_program(artifact, options.device)
    import torch

    with warnings.catch_warnings():
        # Compiling imports this, and what it warns of is PyTorch's own.
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch.utils.mkldnn")
    about = describe(BACKEND.name, "inductor", module, options)
    # fullgraph: a part that cannot be compiled is an error, never a silent return to eager.
    compiled = torch.compile(module, fullgraph=True, dynamic=True, options={"freezing": True})
    return InductorSession(compiled, artifact, about)


BACKEND = Backend(
    name="inductor",
    formats=("pt2",),
    devices=("cpu", "cuda"),
    priority=40,
    missing=_missing,
    open=_open,
)
