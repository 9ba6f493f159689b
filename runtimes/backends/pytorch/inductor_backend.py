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
from typing import TYPE_CHECKING

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.backend import check_gpu, describe, load_program
from runtimes.backends.pytorch.session import TorchSession
from runtimes.errors import Reason
from runtimes.libraries import missing_library
from runtimes.protocol import Backend, Description, Options

if TYPE_CHECKING:
    import torch

    from runtimes.backends.pytorch.session import Call, Outputs

FIXED_BATCHES = 6
"""The number of batch sizes with their own code on CUDA. ``torch.compile`` allows 8 variants of a function."""


def _missing() -> Reason | None:
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
        self._fixed: set[int] = set()
        self._seen: set[int] = set()
        self._lock = threading.Lock()

    def is_fixed(self, batch: int) -> bool:
        """Return whether the batch size has its own code. The first batch sizes asked for get their own code."""
        with self._lock:
            if len(self._fixed) < FIXED_BATCHES:
                self._fixed.add(batch)
            return batch in self._fixed

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
    program = load_program(artifact, options.device_name, options.gpu_mem_limit)

    with warnings.catch_warnings():
        # Compiling imports this module. Users cannot act on its deprecations.
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch.utils.mkldnn")
    if options.device == "cpu":
        description = describe(BACKEND.name, "inductor", program, artifact, options)
        return InductorSession(_compile(program, dynamic=True), artifact, description)
    from runtimes.backends.pytorch.cuda_session import CudaTorchSession

    compiled = CompiledPrograms(lambda fixed: _compile(program, dynamic=not fixed))
    if not options.cuda_graphs:
        description = describe(BACKEND.name, "inductor", program, artifact, options)
        return CudaTorchSession(compiled, artifact, description, device_index=options.device_index)
    description = describe(BACKEND.name, "inductor CUDA graphs", program, artifact, options)
    # Inductor's own CUDA graphs are not used, because they belong to the thread that recorded them.
    return CudaTorchSession(compiled, artifact, description, compiled.is_fixed, options.device_index)


def _compile(program: torch.export.ExportedProgram, dynamic: bool) -> Call:
    import torch

    # With fullgraph, a part that cannot be compiled is an error and not a silent fallback to eager execution.
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
    named_only=True,
)
