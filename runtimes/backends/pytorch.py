"""PyTorch, eager: ``.pt2`` programs as ``torch.export`` writes them, run operator by operator."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtimes import files
from runtimes.artifact import Artifact
from runtimes.backends import importing, missing_library
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    ResourceError,
    RexportError,
    quoted,
)
from runtimes.protocol import Array, Arrays, Backend, Description, Layer, Options, TensorSpec

if TYPE_CHECKING:
    import torch


class TorchSession:
    """A module with one input and one output. PyTorch's thread count is a setting of each calling thread: every
    call sets it, so that runtimes of different budgets live in one process."""

    def __init__(self, call: Callable[[torch.Tensor], torch.Tensor], artifact: Artifact, about: Description) -> None:
        manifest = artifact.manifest
        if manifest is None or len(manifest.inputs) != 1 or len(manifest.outputs) != 1:
            raise ArtifactError("a .pt2 artifact has one input and one output", path=artifact.path)
        self.inputs: tuple[TensorSpec, ...] = manifest.inputs
        self.outputs: tuple[TensorSpec, ...] = manifest.outputs
        self.description = about
        self._call = call

    def _tensor(self, arrays: Arrays) -> torch.Tensor:
        import torch

        array = arrays[self.inputs[0].name]
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self.description.device)

    def _forward(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch

        if torch.get_num_threads() != self.description.threads:
            torch.set_num_threads(self.description.threads)
        try:
            with torch.inference_mode():
                return self._call(tensor)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            raise _translated(error) from error

    def run(self, arrays: Arrays) -> Arrays:
        output: Array = self._forward(self._tensor(arrays)).cpu().numpy()
        return {self.outputs[0].name: output}

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        tensor = self._tensor(arrays)
        finish = _finish(self.description.device)

        def run_once() -> None:
            self._forward(tensor)
            finish()

        return run_once

    def close(self) -> None:
        del self._call


def _finish(device: str) -> Callable[[], None]:
    """What returns when the device has finished: at once on the CPU, which has when a call returns."""
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def _translated(error: Exception) -> RexportError:
    text = quoted(str(error).split("\n")[0])
    if "out of memory" in text.lower() or "can't allocate memory" in text.lower():
        return ResourceError(f"PyTorch ran out of memory: {text}")
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return CompatibilityError(f"PyTorch could not compile it: {text}", hint="use backend pytorch")
    return ArtifactError(f"PyTorch could not run it: {text}")


def load_program(artifact: Artifact, device: str) -> torch.nn.Module:
    """The program's module on ``device``, in fp32 proper: TensorFloat-32 is off.

    Raises:
        BackendUnavailableError: no such device.
        ArtifactError: PyTorch cannot read the file.
    """
    with importing("torch", "export"):
        import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailableError("PyTorch sees no CUDA device", hint="use device cpu, or a CUDA build of PyTorch")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    try:
        with warnings.catch_warnings():
            # PyTorch's own deprecations inside torch.export.load are not the user's.
            warnings.simplefilter("ignore", FutureWarning)
            with files.open_regular(artifact.path) as file:
                return torch.export.load(file).module().to(device)
    except Exception as error:
        text = quoted(str(error).split("\n")[0] or type(error).__name__)
        raise ArtifactError(f"PyTorch {torch.__version__} cannot read it: {text}", path=artifact.path) from error


def describe(backend: str, provider: str, module: torch.nn.Module, options: Options) -> Description:
    """What a module runs as; the precision is read from its parameters."""
    import torch

    precisions = {str(value.dtype).removeprefix("torch.") for value in module.parameters()}
    return Description(
        backend=backend,
        version=torch.__version__,
        device=options.device,
        provider=provider,
        precision=" ".join(sorted(precisions)),
        threads=options.threads,
    )


def _open(artifact: Artifact, options: Options) -> TorchSession:
    module = load_program(artifact, options.device)
    return TorchSession(module, artifact, describe(BACKEND.name, "eager", module, options))


def _profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    module = load_program(artifact, options.device)
    found: list[Layer] = []
    call = _timed(module, _finish(options.device), found)
    session = TorchSession(call, artifact, describe(BACKEND.name, "eager", module, options))
    session.run(arrays)  # finds its memory
    found.clear()
    session.run(arrays)
    return tuple(found)


def _timed(
    module: torch.nn.Module, finish: Callable[[], None], found: list[Layer]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The program's call, operator by operator; each call adds its steps to ``found``."""
    import torch

    class Timed(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> Any:
            start = time.perf_counter()
            result = super().run_node(node)
            finish()
            if node.op == "call_function" and isinstance(result, torch.Tensor):
                found.append(_layer(node, result, time.perf_counter() - start))
            return result

    return Timed(module).run


_WEIGHTED = {"conv1d", "conv2d", "conv3d", "convolution", "linear", "matmul", "mm", "addmm", "bmm", "baddbmm"}


def _layer(node: torch.fx.Node, result: torch.Tensor, duration_s: float) -> Layer:
    """An operator's call, named ``MODULE/NODE`` by the module that it comes from."""
    modules = list(node.meta.get("nn_module_stack", {}).values())
    path = modules[-1][0] if modules else ""
    name = f"{path}/{node.name}" if path else node.name
    operator = str(node.target)
    return Layer(
        name=name,
        nodes=(name,),
        operator=operator,
        precision=str(result.dtype).removeprefix("torch."),
        weighted=operator.removeprefix("aten.").partition(".")[0] in _WEIGHTED,
        duration_s=duration_s,
    )


BACKEND = Backend(
    name="pytorch",
    formats=("pt2",),
    devices=("cpu", "cuda"),
    priority=30,
    missing=lambda: missing_library("torch", "export"),
    open=_open,
    profile=_profile,
)
