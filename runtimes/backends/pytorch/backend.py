"""PyTorch, eager: ``.pt2`` programs as ``torch.export`` writes them, run operator by operator.

On CUDA, programs of half precision run channels-last, the layout that its tensor cores take.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.session import TorchSession, translate_error
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    quote,
)
from runtimes.libraries import importing, missing_library
from runtimes.protocol import Backend, Description, Layer, Options
from runtimes.tensors.spec import Arrays

if TYPE_CHECKING:
    import torch


def check_gpu() -> None:
    """Returns where PyTorch can use a GPU.

    Raises:
        BackendUnavailableError: it was built without CUDA, or sees no GPU.
    """
    with importing("torch", "export"):
        import torch

    if torch.cuda.is_available():
        return
    if torch.version.cuda is None:
        raise BackendUnavailableError(
            f"this PyTorch, {torch.__version__}, was built without CUDA",
            code="pytorch-without-cuda",
            hint="pip install another: https://pytorch.org",
        )
    raise BackendUnavailableError(
        f"PyTorch {torch.__version__} sees no CUDA device",
        code="pytorch-sees-no-gpu",
        hint=f"it needs a driver for CUDA {torch.version.cuda}",
    )


def load_program(artifact: Artifact, device: str) -> torch.export.ExportedProgram:
    """The program on ``device``.

    Raises:
        BackendUnavailableError: no such device.
        ArtifactError: PyTorch cannot read the file.
        ResourceError: the device has no memory left.
    """
    with importing("torch", "export"):
        import torch

    if device == "cuda":
        check_gpu()
    try:
        with warnings.catch_warnings():
            # PyTorch's own deprecations inside torch.export.load are not the user's.
            warnings.simplefilter("ignore", FutureWarning)
            with files.open_regular(artifact.path) as file:
                program = torch.export.load(file)
        # By its number: a graph that asserts "cuda" does not take a tensor on "cuda:0".
        return program if device == "cpu" else move_program(program, f"{device}:{torch.cuda.current_device()}")
    except torch.OutOfMemoryError as error:
        raise translate_error(error) from error
    except Exception as error:
        text = quote(str(error).split("\n")[0] or type(error).__name__)
        raise ArtifactError(
            f"PyTorch {torch.__version__} cannot read it: {text}", code="pytorch-cannot-read", path=artifact.path
        ) from error


def move_program(program: torch.export.ExportedProgram, device: str) -> torch.export.ExportedProgram:
    """The program for another device. Where it converts types it also names the device that it was exported on, which
    moving its weights alone would leave there."""
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)


def describe(
    backend: str, provider: str, program: torch.export.ExportedProgram, artifact: Artifact, options: Options
) -> Description:
    """What a program runs as; the precision is read from its parameters."""
    import torch

    return Description(
        backend=backend,
        version=torch.__version__,
        device=options.device,
        provider=provider,
        precision=" ".join(sorted({_arithmetic(dtype, artifact, options) for dtype in _types(program)})),
        threads=options.threads,
    )


def _types(program: torch.export.ExportedProgram) -> set[torch.dtype]:
    return {value.dtype for value in program.parameters()}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _arithmetic(dtype: torch.dtype, artifact: Artifact, options: Options) -> str:
    """What a convolution of that type is computed in."""
    name = _name(dtype)
    return "tfloat32" if name == "float32" and options.device == "cuda" and artifact.allows_tf32 else name


def _open(artifact: Artifact, options: Options) -> TorchSession:
    return _session(load_program(artifact, options.device), artifact, options, lambda module: module)


def _session(
    program: torch.export.ExportedProgram,
    artifact: Artifact,
    options: Options,
    called: Callable[[torch.fx.GraphModule], Callable[[torch.Tensor], torch.Tensor]],
) -> TorchSession:
    """A session of what ``called`` makes of the program's module."""
    import torch

    module, provider = program.module(), "eager"
    if options.device == "cpu":
        return TorchSession(called(module), artifact, describe(BACKEND.name, provider, program, artifact, options))
    from runtimes.backends.pytorch.cuda_session import CudaTorchSession

    if _types(program) <= {torch.float16, torch.bfloat16}:
        # The convolutions carry the layout from their weights to everything behind them.
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # in place
        provider = "eager channels-last"
    return CudaTorchSession(called(module), artifact, describe(BACKEND.name, provider, program, artifact, options))


def _profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    program = load_program(artifact, options.device)
    found: list[Layer] = []
    timed = functools.partial(
        _time_operators,
        finish=_finish(options.device),
        found=found,
        tell=lambda dtype: _arithmetic(dtype, artifact, options),
    )
    session = _session(program, artifact, options, timed)
    session.run(arrays)  # finds its memory
    found.clear()
    session.run(arrays)
    return tuple(found)


def _finish(device: str) -> Callable[[], None]:
    """What returns when the device has finished: at once on the processor, which has when a call returns."""
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def _time_operators(
    module: torch.nn.Module,
    finish: Callable[[], None],
    found: list[Layer],
    tell: Callable[[torch.dtype], str] = _name,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The program's call, operator by operator; each call adds its steps to ``found``. ``tell`` names what weighted
    operators of a type are computed in."""
    import torch

    class TimingInterpreter(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> Any:
            start = time.perf_counter()
            result = super().run_node(node)
            finish()
            if node.op == "call_function" and isinstance(result, torch.Tensor):
                found.append(_layer(node, result, tell, time.perf_counter() - start))
            return result

    return TimingInterpreter(module).run


_WEIGHTED = {"conv1d", "conv2d", "conv3d", "convolution", "linear", "matmul", "mm", "addmm", "bmm", "baddbmm"}


def _layer(node: torch.fx.Node, result: torch.Tensor, tell: Callable[[torch.dtype], str], duration_s: float) -> Layer:
    """An operator's call, named ``MODULE/NODE`` by the module that it comes from."""
    modules = list(node.meta.get("nn_module_stack", {}).values())
    path = modules[-1][0] if modules else ""
    name = f"{path}/{node.name}" if path else node.name
    operator = str(node.target)
    weighted = operator.removeprefix("aten.").partition(".")[0] in _WEIGHTED
    return Layer(
        name=name,
        nodes=(name,),
        operator=operator,
        precision=tell(result.dtype) if weighted else _name(result.dtype),
        weighted=weighted,
        duration_s=duration_s,
    )


BACKEND = Backend(
    name="pytorch",
    title="PyTorch",
    formats=("pt2",),
    devices=("cpu", "cuda"),
    priority=30,
    missing=lambda: missing_library("torch", "export"),
    open=_open,
    profile=_profile,
    check_gpu=check_gpu,
    reference=True,
)
