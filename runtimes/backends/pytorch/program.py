"""The operators of an exported program as a function, and the memory layout of its weights."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch.export.graph_signature import InputKind

if TYPE_CHECKING:
    from runtimes.backends.pytorch.session import Call


def bind_weights(program: torch.export.ExportedProgram) -> Call:
    """Return a function that runs the operators of the program on an input, with its present weights.

    The function makes the same calls of operators as ``program.module()``, and nothing else: no module is called, no
    attribute is looked up and no shape is checked, which together take as long as launching the kernels. ``Runtime``
    checks the shapes. The outputs are a tuple.
    """
    weights = [
        program.state_dict[spec.target] if spec.target in program.state_dict else program.constants[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.kind is not InputKind.USER_INPUT and spec.target is not None
    ]
    return functools.partial(program.graph_module.forward, *weights)


def is_half_precision(program: torch.export.ExportedProgram) -> bool:
    """Return whether all parameters have 16 bits."""
    return {value.dtype for value in program.parameters()} <= {torch.float16, torch.bfloat16}


def set_weight_layout(program: torch.export.ExportedProgram, memory_format: torch.memory_format) -> None:
    """Give the weights of the convolutions of ``program`` the layout ``memory_format``.

    All operators after a convolution take its layout over.

    Functions that ``bind_weights`` returned before keep the former weights.

    Args:
        program: The program.
        memory_format: The layout.
    """
    for name, value in program.state_dict.items():
        if value.dim() == 4:
            weight = value.detach().contiguous(memory_format=memory_format)
            is_parameter = isinstance(value, torch.nn.Parameter)
            program.state_dict[name] = torch.nn.Parameter(weight, requires_grad=False) if is_parameter else weight
