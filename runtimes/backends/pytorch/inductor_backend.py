"""PyTorch, compiled: the same ``.pt2`` programs through ``torch.compile`` and its Inductor code generator.

On the processor the first batch of 1 and the first larger batch compile for some seconds each; on CUDA each of the
first batch sizes does. What was compiled is kept in PyTorch's own cache folder for the next process. It needs a C++
compiler.
"""

from __future__ import annotations

import importlib
import os
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.backend import check_gpu, describe, load_program
from runtimes.backends.pytorch.session import TorchSession
from runtimes.errors import Reason
from runtimes.libraries import missing_library
from runtimes.protocol import Backend, Description, Options

if TYPE_CHECKING:
    import torch

FIXED_BATCHES = 6
"""Batch sizes with code of their own on CUDA; ``torch.compile`` takes no more than 8 of one function."""


def _missing() -> Reason | None:
    import shutil

    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return Reason("compiler-missing", f"no C++ compiler {compiler!r} (install g++, or name one in CXX)")
    return missing_library("torch", "export")


class InductorSession(TorchSession):
    """One call at a time: calls that meet while something compiles fail, or compile it again for each thread."""

    def __init__(self, call: Callable[[torch.Tensor], torch.Tensor], artifact: Artifact, about: Description) -> None:
        super().__init__(call, artifact, about)
        self._turn = threading.Lock()

    def _forward(self, tensor: torch.Tensor) -> torch.Tensor:
        with self._turn:
            return super()._forward(tensor)


class CompiledPrograms:
    """A program compiled for each of the first batch sizes that come, and once more for all others together.

    Code for one size is faster, and only its runs can be recorded: CUDA graphs have fixed shapes. ``make`` compiles a
    new copy of the program, for fixed sizes or for any. Calls do not meet; ``is_fixed`` is for any thread.
    """

    def __init__(self, make: Callable[[bool], Callable[[torch.Tensor], torch.Tensor]]) -> None:
        self._make = make
        self._codes: dict[bool, Callable[[torch.Tensor], torch.Tensor]] = {}
        self._fixed: set[int] = set()
        self._seen: set[int] = set()
        self._lock = threading.Lock()

    def is_fixed(self, batch: int) -> bool:
        """Whether the batch size has, or gets, code of its own."""
        with self._lock:
            if len(self._fixed) < FIXED_BATCHES:
                self._fixed.add(batch)
            return batch in self._fixed

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        fixed = self.is_fixed(len(tensor))
        if fixed not in self._codes:
            self._codes[fixed] = self._make(fixed)
        if len(tensor) in self._seen:
            return self._codes[fixed](tensor)
        self._seen.add(len(tensor))
        with warnings.catch_warnings():
            # Of what the artifact's precision rules out, as TensorFloat-32, and of PyTorch's own deprecations.
            warnings.simplefilter("ignore")
            return self._codes[fixed](tensor)


def _open(artifact: Artifact, options: Options) -> TorchSession:
    program = load_program(artifact, options.device)

    with warnings.catch_warnings():
        # Compiling imports this, and what it warns of is PyTorch's own.
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch.utils.mkldnn")
    if options.device == "cpu":
        about = describe(BACKEND.name, "inductor", program, artifact, options)
        return InductorSession(_compile(program, dynamic=True), artifact, about)
    from runtimes.backends.pytorch.cuda_session import CudaTorchSession

    compiled = CompiledPrograms(lambda fixed: _compile(program, dynamic=not fixed))
    if not options.cuda_graphs:
        about = describe(BACKEND.name, "inductor", program, artifact, options)
        return CudaTorchSession(compiled, artifact, about)
    about = describe(BACKEND.name, "inductor CUDA graphs", program, artifact, options)
    # Not Inductor's own graphs: they belong to the thread that made them.
    return CudaTorchSession(compiled, artifact, about, recorded=compiled.is_fixed)


def _compile(program: torch.export.ExportedProgram, dynamic: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    # fullgraph: a part that cannot be compiled is an error, never a silent return to eager.
    return torch.compile(program.module(), fullgraph=True, dynamic=dynamic, options={"freezing": True})


BACKEND = Backend(
    name="inductor",
    title="PyTorch Inductor",
    formats=("pt2",),
    devices=("cpu", "cuda"),
    priority=40,
    missing=_missing,
    open=_open,
    check_gpu=check_gpu,
)
