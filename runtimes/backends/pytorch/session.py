"""Sessions of PyTorch programs on the CPU, and the translation of PyTorch's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from runtimes.artifacts.artifact import Artifact
from runtimes.errors import ArtifactError, CompatibilityError, DeviceLostError, ResourceError, RexportError, quote
from runtimes.protocol import Description
from runtimes.tensors.spec import Arrays, TensorSpec

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch

    Outputs: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]
    """The outputs of a program: one tensor, or several in the order of the manifest."""

    Call: TypeAlias = Callable[[torch.Tensor], Outputs]
    """A function that runs a program on a tensor."""


def input_spec(artifact: Artifact) -> TensorSpec:
    """Return the only input of a program.

    Raises:
        ArtifactError: The program does not have one input, or has no output.
    """
    manifest = artifact.manifest
    if manifest is None or len(manifest.inputs) != 1 or not manifest.outputs:
        raise ArtifactError(
            "a .pt2 artifact must have one input and at least one output",
            code="program-needs-one-input",
            path=artifact.path,
        )
    return manifest.inputs[0]


class TorchSession:
    """A PyTorch program with one input on the CPU.

    PyTorch's number of threads is a setting of the calling thread. Every call sets it, so that runtimes with different
    numbers of threads can be open at once.

    Args:
        call: Runs the program on a tensor.
        artifact: The artifact of the program.
        description: The description of what runs.

    Raises:
        ArtifactError: The program does not have one input.
    """

    def __init__(self, call: Call, artifact: Artifact, description: Description) -> None:
        self.inputs: tuple[TensorSpec, ...] = (input_spec(artifact),)
        self.outputs: tuple[TensorSpec, ...] = () if artifact.manifest is None else artifact.manifest.outputs
        self.description = description
        self._call = call

    def _tensor(self, arrays: Arrays) -> torch.Tensor:
        import torch

        array = arrays[self.inputs[0].name]
        return torch.from_numpy(array if array.flags.writeable else array.copy())

    def _set_threads(self) -> None:
        import torch

        if torch.get_num_threads() != self.description.threads:
            torch.set_num_threads(self.description.threads)

    def _forward(self, tensor: torch.Tensor) -> Outputs:
        import torch

        self._set_threads()
        try:
            with torch.inference_mode():
                return self._call(tensor)
        except RuntimeError as error:
            raise translate_error(error) from error

    def run(self, arrays: Arrays) -> Arrays:
        """Run the program, as ``Session.run``."""
        return {name: output.numpy() for name, output in self._by_name(self._forward(self._tensor(arrays)))}

    def _by_name(self, outputs: Outputs) -> Iterator[tuple[str, torch.Tensor]]:
        """Return each output with its name. A program of one output returns it alone."""
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        return zip((spec.name for spec in self.outputs), values, strict=True)

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the program on the arrays, as ``Session.bind``."""
        tensor = self._tensor(arrays)

        def run_once() -> None:
            self._forward(tensor)

        return run_once

    def close(self) -> None:
        """Free the program."""
        del self._call


_LOST = (
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "unspecified launch failure",
    "device-side assert",
    "uncorrectable ECC",
)
"""Phrases of PyTorch's messages about failures of a CUDA device after which every later call fails."""


def translate_error(error: Exception) -> RexportError:
    """Return rexport's error for PyTorch's error in a running program."""
    text = quote(str(error).split("\n")[0])
    if "out of memory" in text.lower() or "can't allocate memory" in text.lower():
        return ResourceError(f"PyTorch ran out of memory: {text}", code="pytorch-out-of-memory")
    if any(words in text for words in _LOST):
        return DeviceLostError(f"the GPU failed: {text}", code="pytorch-device-failed", hint="restart the process")
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return CompatibilityError(
            f"PyTorch cannot compile the program: {text}", code="pytorch-cannot-compile", hint="use backend pytorch"
        )
    return ArtifactError(f"PyTorch cannot run the program: {text}", code="pytorch-cannot-run")
