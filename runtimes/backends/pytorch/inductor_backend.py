"""The backend for compiled PyTorch: ``.pt2`` programs with ``torch.compile`` and its code generator Inductor.

Compiling takes some seconds. On the CPU, it happens for the first batch of 1 and for the first larger batch. On CUDA,
it happens for each of the first ``FIXED_BATCHES`` batch sizes and for the first other one. PyTorch caches compiled code
for later processes. A C++ compiler is needed.
"""

from __future__ import annotations

import importlib
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.backend import check_gpu, describe, load_program
from runtimes.backends.pytorch.batch_sizes import FirstBatches
from runtimes.backends.pytorch.session import TorchSession
from runtimes.errors import Reason
from runtimes.libraries import missing_library
from runtimes.protocol import Backend, Description, Options

if TYPE_CHECKING:
    import torch

    from runtimes.backends.pytorch.session import Call, Outputs

CODE = "code for their size"
"""The preparation of compiled programs for the first batch sizes."""


def missing_compiler() -> Reason | None:
    """Return why PyTorch cannot compile here, with the command that changes it, or ``None``."""
    import shutil

    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return Reason(
            "compiler-missing", f"the C++ compiler {compiler!r} is not installed (install g++, or set CXX to another)"
        )
    return missing_library("torch", "export")


class InductorSession(TorchSession):
    """A compiled program on the CPU. Calls run one at a time.

    Concurrent calls during compilation would fail, or would compile the program again in each thread.

    Args:
        call: Runs the compiled program on a tensor.
        artifact: The artifact of the program.
        description: The description of what runs.
    """

    def __init__(self, call: Call, artifact: Artifact, description: Description) -> None:
        super().__init__(call, artifact, description)
        self._lock = threading.Lock()

    def _forward(self, tensor: torch.Tensor) -> Outputs:
        with self._lock:
            return super()._forward(tensor)


class CompiledPrograms:
    """A program that is compiled for each of the first batch sizes, and once for all other batch sizes.

    Code for one batch size is faster, and only its runs can be recorded, because CUDA graphs have fixed shapes.

    Only one thread at a time may call the object. ``is_fixed`` may be called from any thread.

    Args:
        make: Compiles a new copy of the program, for fixed batch sizes (true) or for any batch size (false).
    """

    def __init__(self, make: Callable[[bool], Call]) -> None:
        self._make = make
        self._compiled: dict[bool, Call] = {}
        self._first = FirstBatches()
        self._seen: set[int] = set()

    def is_fixed(self, batch: int) -> bool:
        """Return whether the batch size has its own code. The first batch sizes asked for get their own code."""
        return self._first.admit(batch)

    def __call__(self, tensor: torch.Tensor) -> Outputs:
        """Run the program, after compiling it if needed."""
        fixed = self.is_fixed(len(tensor))
        if fixed not in self._compiled:
            self._compiled[fixed] = self._make(fixed)
        if len(tensor) in self._seen:
            return self._compiled[fixed](tensor)
        self._seen.add(len(tensor))
        with warnings.catch_warnings():
            # PyTorch recommends TensorFloat-32, which the precision may rule out, and warns about its own deprecations.
            warnings.simplefilter("ignore")
            return self._compiled[fixed](tensor)


def _open(artifact: Artifact, options: Options) -> TorchSession:
    return open_compiled(BACKEND.name, "inductor", artifact, options)


def open_compiled(
    backend: str, provider: str, artifact: Artifact, options: Options, mode: str | None = None
) -> TorchSession:
    """Open a program that is compiled when it first runs.

    Args:
        backend: The name of the backend.
        provider: The name of the way of compilation.
        artifact: The artifact of the program.
        options: The options of the user.
        mode: A mode of ``torch.compile``, or ``None`` for its default.
    """
    program = load_program(artifact, options.device_name, options.gpu_mem_limit)

    with warnings.catch_warnings():
        # Compiling imports this module. Users cannot act on its deprecations.
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch.utils.mkldnn")
    description = describe(backend, provider, program, artifact, options)
    if options.device == "cpu":
        return InductorSession(compile_program(program, True, mode), artifact, description)
    from runtimes.backends.pytorch.cuda_session import GRAPHS, SEARCH, CudaTorchSession, ProgramExecution

    compiled = CompiledPrograms(lambda fixed: compile_program(program, not fixed, mode))
    if not options.cuda_graphs:
        execution = ProgramExecution(preparation=f"{SEARCH} and {CODE}")
        return CudaTorchSession(compiled, artifact, description, execution, options.device_index)
    # Inductor's own CUDA graphs are not used, because they belong to the thread that recorded them.
    description = replace(description, provider=f"{provider} CUDA graphs")
    execution = ProgramExecution(compiled.is_fixed, f"{SEARCH}, {CODE} and {GRAPHS}")
    return CudaTorchSession(compiled, artifact, description, execution, options.device_index)


def compile_program(program: torch.export.ExportedProgram, dynamic: bool, mode: str | None = None) -> Call:
    """Return the program, which is compiled when it is first called.

    Args:
        program: The program.
        dynamic: Whether the code is for any batch size.
        mode: A mode of ``torch.compile``, or ``None`` for its default.
    """
    import torch
    from torch._inductor import list_mode_options

    options: dict[str, Any] = {**({} if mode is None else list_mode_options(mode, dynamic)), "freezing": True}
    # With fullgraph, a part that cannot be compiled is an error and not a silent fallback to eager execution.
    return torch.compile(program.module(), fullgraph=True, dynamic=dynamic, options=options)


BACKEND = Backend(
    name="inductor",
    title="PyTorch Inductor",
    formats=("pt2",),
    devices=("cpu", "cuda"),
    priority=40,
    missing=missing_compiler,
    open=_open,
    check_gpu=check_gpu,
    prepares_batches=("cuda",),
    named_only=True,
)
