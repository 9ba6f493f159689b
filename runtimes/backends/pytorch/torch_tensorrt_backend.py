"""The backend for Torch-TensorRT: PyTorch programs that are compiled into TensorRT engines, one for each batch size.

Compiling takes a minute or so for each of the first batch sizes. Other batch sizes run operator by operator.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.backend import check_gpu, describe, load_program
from runtimes.backends.pytorch.batch_sizes import FirstBatches
from runtimes.backends.pytorch.session import TorchSession, translate_error
from runtimes.errors import CompatibilityError, Reason, quote
from runtimes.libraries import importing, missing_library
from runtimes.protocol import Backend, Options

if TYPE_CHECKING:
    import torch

    from runtimes.backends.pytorch.session import Call, Outputs


def _missing() -> Reason | None:
    if (missing := missing_library("torch", "export")) is not None:
        return missing
    if importlib.util.find_spec("torch_tensorrt") is not None:
        return None
    return Reason("torch-tensorrt-missing", "torch_tensorrt is not installed (pip install torch-tensorrt)")


class Engines:
    """A program as one TensorRT engine for each of the first batch sizes.

    Only one thread at a time may use the object.

    Args:
        build: Builds the engine for an input of this shape.
        eager: Runs the program operator by operator.
    """

    def __init__(self, build: Callable[[torch.Tensor], Call], eager: Call) -> None:
        self._build = build
        self._eager = eager
        self._first = FirstBatches()
        self._built: dict[int, Call] = {}

    def has_engine(self, batch: int) -> bool:
        """Return whether the batch size gets an engine."""
        return self._first.admit(batch)

    def prepare(self, tensor: torch.Tensor) -> None:
        """Build the engine for an input if it gets one and has none."""
        if len(tensor) not in self._built and self.has_engine(len(tensor)):
            self._built[len(tensor)] = self._build(tensor)

    def __call__(self, tensor: torch.Tensor) -> Outputs:
        """Run the program with the engine of this batch size, or operator by operator if it has none."""
        return self._built.get(len(tensor), self._eager)(tensor)


def _open(artifact: Artifact, options: Options) -> TorchSession:
    with importing("torch_tensorrt", "export"), warnings.catch_warnings():
        # Users cannot act on deprecations inside the library.
        warnings.simplefilter("ignore")
        importlib.import_module("torch_tensorrt")
    program = load_program(artifact, options.device_name, options.gpu_mem_limit)
    from runtimes.backends.pytorch.cuda_session import GRAPHS, SEARCH, CudaTorchSession, ProgramExecution
    from runtimes.backends.pytorch.program import bind_weights

    device = next(program.parameters()).device
    engines = Engines(
        lambda tensor: build_engine(program, tensor.to(device), artifact.allows_tf32), bind_weights(program)
    )
    graphs = options.cuda_graphs
    execution = ProgramExecution(
        is_recorded=engines.has_engine if graphs else lambda _: False,
        preparation=f"a TensorRT engine, {SEARCH} and {GRAPHS}" if graphs else f"a TensorRT engine and {SEARCH}",
        # An engine has one execution context, and so one place for the intermediate results of all its runs.
        concurrent=False,
        prepare=engines.prepare,
    )
    provider = "torch_tensorrt CUDA graphs" if graphs else "torch_tensorrt"
    description = replace(describe(BACKEND.name, provider, program, artifact, options), version=_version())
    return CudaTorchSession(engines, artifact, description, execution, options.device_index)


def _version() -> str:
    import torch_tensorrt

    version: str = torch_tensorrt.__version__
    return version


def build_engine(program: torch.export.ExportedProgram, example: torch.Tensor, tf32: bool) -> Call:
    """Return the program as a TensorRT engine for inputs of one shape. This takes a minute or so.

    The engine is strongly typed: it computes in the types of the program.

    Args:
        program: The program.
        example: An input on the device, of the only shape that the engine takes. Its values do not matter.
        tf32: Whether float32 is computed in TensorFloat-32.

    Raises:
        CompatibilityError: Torch-TensorRT cannot compile the whole program.
        ResourceError: The device is out of memory.
    """
    import torch
    import torch_tensorrt

    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            example = torch.zeros(example.shape, dtype=example.dtype, device=example.device)
            fixed = torch.export.export(program.module(), (example,))
            # No operator is left to PyTorch: otherwise the figures would be those of a mixture.
            compiled: Call = torch_tensorrt.dynamo.compile(
                fixed,
                arg_inputs=[example],
                device=example.device,
                disable_tf32=not tf32,
                min_block_size=1,
                require_full_compilation=True,
            )
    except torch.OutOfMemoryError as error:
        raise translate_error(error) from error
    except Exception as error:
        raise CompatibilityError(
            f"Torch-TensorRT cannot compile the program: {quote(str(error).splitlines()[0] if str(error) else error)}",
            code="torch-tensorrt-cannot-compile",
            hint="use backend tensorrt with the ONNX file",
        ) from error
    return compiled


BACKEND = Backend(
    name="torch-tensorrt",
    title="Torch-TensorRT",
    formats=("pt2",),
    devices=("cuda",),
    priority=42,
    missing=_missing,
    open=_open,
    check_gpu=check_gpu,
    aliases=("torch_tensorrt", "torchtrt"),
    prepares_batches=("cuda",),
    named_only=True,
)
