"""The backend for eager PyTorch: programs of ``torch.export`` (``.pt2``), executed operator by operator.

On CUDA, cuDNN searches the fastest algorithms for each of the first batch sizes, and the memory layout is the faster of
two: half precision runs with channels last, and for float32 both are measured when the program is opened.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.session import TorchSession, input_spec, translate_error
from runtimes.devices import CPU, DeviceName
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    ResourceError,
    RexportError,
    quote,
)
from runtimes.libraries import importing, missing_library
from runtimes.protocol import Backend, Description, Layer, Options
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.spec import Arrays

if TYPE_CHECKING:
    import torch

    from runtimes.backends.pytorch.session import Call


def check_gpu(index: int = 0) -> None:
    """Check that PyTorch can use the GPU with this number.

    Raises:
        BackendUnavailableError: PyTorch was built without CUDA, or finds no such GPU.
    """
    with importing("torch", "export"):
        import torch

    if torch.cuda.is_available():
        if index < (there := torch.cuda.device_count()):
            return
        raise BackendUnavailableError(
            f"PyTorch {torch.__version__} finds {there} CUDA devices, and none with the number {index}",
            code="pytorch-lacks-gpu-number",
            hint=f"choose a number from 0 to {there - 1}",
        )
    if torch.version.cuda is None:
        raise BackendUnavailableError(
            f"PyTorch {torch.__version__} was built without CUDA",
            code="pytorch-without-cuda",
            hint="install a build of PyTorch with CUDA: https://pytorch.org/get-started/locally",
        )
    raise BackendUnavailableError(
        f"PyTorch {torch.__version__} finds no CUDA device",
        code="pytorch-sees-no-gpu",
        hint=f"check nvidia-smi; this build needs an NVIDIA driver for CUDA {torch.version.cuda}",
    )


def load_program(
    artifact: Artifact, device: DeviceName, gpu_mem_limit: int | None = None
) -> torch.export.ExportedProgram:
    """Load the exported program of an artifact on a device.

    Args:
        artifact: The artifact.
        device: The device.
        gpu_mem_limit: The memory in bytes that PyTorch may use on the GPU in this process, or ``None`` for no change.

    Raises:
        BackendUnavailableError: PyTorch cannot be imported, or the device is missing.
        ArtifactError: PyTorch cannot read the file.
        ResourceError: The device is out of memory.
    """
    with importing("torch", "export"):
        import torch

    if device.kind != CPU:
        check_gpu(device.index)
        if gpu_mem_limit is not None:
            total = torch.cuda.get_device_properties(device.index).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, gpu_mem_limit / total), device.index)
    try:
        with warnings.catch_warnings():
            # Users cannot act on deprecations inside torch.export.load.
            warnings.simplefilter("ignore", FutureWarning)
            with files.open_regular(artifact.path) as file:
                program = torch.export.load(file)
        if device.kind == CPU:
            return program
        # With the number of the device: a graph that asserts "cuda" rejects a tensor on "cuda:0".
        with capture_lock():  # it allocates
            return move_program(program, device.numbered)
    except torch.OutOfMemoryError as error:
        raise translate_error(error) from error
    except RexportError:
        raise
    except OSError as error:
        raise ResourceError.from_os(error, artifact.path, "read") from error
    except Exception as error:
        text = quote(str(error).split("\n")[0] or type(error).__name__)
        if "busy or unavailable" in text:
            from runtimes.tensors import cuda

            # CUDA's words, for example if another process has the GPU for itself
            raise cuda.unavailable_error(device.index, text) from error
        raise ArtifactError(
            f"PyTorch {torch.__version__} cannot read the file: {text}",
            code="pytorch-cannot-read",
            path=artifact.path,
            hint="use the version of PyTorch that exported the file, or a later one",
        ) from error


def move_program(program: torch.export.ExportedProgram, device: str) -> torch.export.ExportedProgram:
    """Return the program for another device.

    Operators that convert types name the device of the export, so moving only the weights would not be enough.
    """
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)


def describe(
    backend: str, provider: str, program: torch.export.ExportedProgram, artifact: Artifact, options: Options
) -> Description:
    """Return the description of a program. The precision is that of its parameters.

    Args:
        backend: The name of the backend.
        provider: The name of the way of execution, for example ``eager``.
        program: The exported program.
        artifact: The artifact of the program.
        options: The options of the user.
    """
    import torch

    return Description(
        backend=backend,
        version=torch.__version__,
        device=str(options.device_name),
        provider=provider,
        precision=" ".join(sorted({_arithmetic(dtype, artifact, options) for dtype in _types(program)})),
        threads=options.threads,
    )


def _types(program: torch.export.ExportedProgram) -> set[torch.dtype]:
    return {value.dtype for value in program.parameters()}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _arithmetic(dtype: torch.dtype, artifact: Artifact, options: Options) -> str:
    """Return the precision in which a convolution of this type is computed."""
    name = _name(dtype)
    return "tfloat32" if name == "float32" and options.device == "cuda" and artifact.allows_tf32 else name


def _open(artifact: Artifact, options: Options) -> TorchSession:
    return open_eager(BACKEND.name, artifact, options)


def open_eager(backend: str, artifact: Artifact, options: Options, record: bool = False) -> TorchSession:
    """Open a program that is executed operator by operator.

    Args:
        backend: The name of the backend.
        artifact: The artifact of the program.
        options: The options of the user.
        record: Whether runs on CUDA are recorded as CUDA graphs.
    """
    program = load_program(artifact, options.device_name, options.gpu_mem_limit)
    from runtimes.backends.pytorch.program import bind_weights

    description = describe(backend, "eager", program, artifact, options)
    if options.device != CPU:
        description = _set_layout(program, artifact, description)
    if not record:
        return _make_session(bind_weights(program), artifact, description, options)
    from runtimes.backends.pytorch.batch_sizes import FirstBatches
    from runtimes.backends.pytorch.cuda_session import GRAPHS, SEARCH, CudaTorchSession, ProgramExecution

    description = replace(description, provider=f"{description.provider} CUDA graphs")
    execution = ProgramExecution(FirstBatches().admit, f"{SEARCH} and {GRAPHS}")
    return CudaTorchSession(bind_weights(program), artifact, description, execution, options.device_index)


def _set_layout(program: torch.export.ExportedProgram, artifact: Artifact, description: Description) -> Description:
    """Give the program on CUDA the faster layout, and return the description that says so."""
    from runtimes.backends.pytorch.layout import set_faster_layout

    layout = set_faster_layout(program, input_spec(artifact), artifact.allows_tf32)
    provider = f"{description.provider} channels-last" if layout.channels_last else description.provider
    return replace(description, provider=provider, notes=layout.notes)


def profile_eager(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    """Run a program operator by operator and return the operators, as ``Backend.profile``.

    Args:
        artifact: The artifact of the program.
        options: The options of the user.
        arrays: The inputs by name.
    """
    program = load_program(artifact, options.device_name, options.gpu_mem_limit)
    description = describe(BACKEND.name, "eager", program, artifact, options)
    if options.device != CPU:
        description = _set_layout(program, artifact, description)
    layers: list[Layer] = []
    timed = _time_operators(
        program.module(),
        synchronize=_synchronize_function(options.device),
        layers=layers,
        precision_of=lambda dtype: _arithmetic(dtype, artifact, options),
    )
    session = _make_session(timed, artifact, description, options)
    session.run(arrays)  # allocates memory
    layers.clear()
    session.run(arrays)
    return tuple(layers)


def _make_session(call: Call, artifact: Artifact, description: Description, options: Options) -> TorchSession:
    if options.device == CPU:
        return TorchSession(call, artifact, description)
    from runtimes.backends.pytorch.cuda_session import CudaTorchSession

    return CudaTorchSession(call, artifact, description, device_index=options.device_index)


def _synchronize_function(device: str) -> Callable[[], None]:
    """Return a function that waits for the device. On the CPU there is nothing to wait for."""
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def _time_operators(
    module: torch.nn.Module,
    synchronize: Callable[[], None],
    layers: list[Layer],
    precision_of: Callable[[torch.dtype], str] = _name,
) -> Call:
    """Return a function that runs the module operator by operator and appends the steps of each call to ``layers``.

    ``precision_of`` returns the precision in which convolutions and matrix products of a type are computed.
    """
    import torch

    class TimingInterpreter(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> Any:
            start = time.perf_counter()
            result = super().run_node(node)
            synchronize()
            if node.op == "call_function" and isinstance(result, torch.Tensor):
                layers.append(_layer(node, result, precision_of, time.perf_counter() - start))
            return result

    return TimingInterpreter(module).run


_WEIGHTED = {"conv1d", "conv2d", "conv3d", "convolution", "linear", "matmul", "mm", "addmm", "bmm", "baddbmm"}


def _layer(
    node: torch.fx.Node, result: torch.Tensor, precision_of: Callable[[torch.dtype], str], duration_s: float
) -> Layer:
    """Return the call of an operator as a layer with the name ``MODULE/NODE``."""
    modules = list(node.meta.get("nn_module_stack", {}).values())
    path = modules[-1][0] if modules else ""
    name = f"{path}/{node.name}" if path else node.name
    operator = str(node.target)
    weighted = operator.removeprefix("aten.").partition(".")[0] in _WEIGHTED
    return Layer(
        name=name,
        nodes=(name,),
        operator=operator,
        precision=precision_of(result.dtype) if weighted else _name(result.dtype),
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
    profile=profile_eager,
    check_gpu=check_gpu,
    reference=True,
)
