from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from runtimes import Artifact
from runtimes.backends.pytorch.backend import load_program
from runtimes.backends.pytorch.program import bind_weights, set_weight_layout
from runtimes.devices import DeviceName


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The names of the operators that run under it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Everything(nn.Module):
    """A parameter, buffers of both kinds, a constant and two outputs."""

    kept: Tensor
    passing: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("passing", torch.full((2,), 3.0), persistent=False)
        self.constant = torch.arange(2.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (n, 3) -> (n, 2), (n, 2)
        y = self.linear(x) + self.kept * self.passing
        return y, y * self.constant


def test_the_same_operators_run_without_the_module(pt2_artifact: Artifact) -> None:
    program = load_program(pt2_artifact, DeviceName("cpu"))
    call, module = bind_weights(program), program.module()
    images = torch.from_numpy(pt2_artifact.vectors().inputs)
    with torch.inference_mode():
        with Operators() as theirs:
            expected = module(images)
        with Operators() as ours:
            (given,) = call(images)
    assert [name for name in theirs.names if "sym_size" not in name and "_assert" not in name] == ours.names
    np.testing.assert_array_equal(given.numpy(), expected.numpy())


def test_all_kinds_of_weights_and_several_outputs_are_bound() -> None:
    program, x = torch.export.export(Everything().eval(), (torch.ones(4, 3),)), torch.randn(4, 3)
    for given, expected in zip(bind_weights(program)(x), program.module()(x), strict=True):
        np.testing.assert_array_equal(given.detach().numpy(), expected.detach().numpy())


def test_a_layout_holds_for_what_is_bound_later(pt2_artifact: Artifact) -> None:
    program = load_program(pt2_artifact, DeviceName("cpu"))
    images = torch.from_numpy(pt2_artifact.vectors().inputs)
    before = bind_weights(program)
    set_weight_layout(program, torch.channels_last)
    with torch.inference_mode():
        (first,), (last,) = before(images), bind_weights(program)(images)
    np.testing.assert_allclose(last.numpy(), first.numpy(), rtol=0, atol=1e-5 * first.abs().max().item())
    layouts = {
        value.is_contiguous(memory_format=torch.channels_last) for value in program.parameters() if value.dim() == 4
    }
    assert layouts == {True}
