"""The program of a module, as ``torch.export`` traces it, with errors that name the cause."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from runtimes.errors import CompatibilityError, quote

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

EXAMPLE_BATCH = 2
"""The number of images of the example. Some versions of torch treat a batch of one as a constant."""


def trace(module: nn.Module, example: Tensor, batch: int | None) -> ExportedProgram:
    """Return the program of a module for batches of any size, or of one.

    Args:
        module: The module in evaluation mode, which takes one tensor.
        example: An input. Its first dimension is the batch.
        batch: The fixed batch size, or ``None`` for any.

    Raises:
        CompatibilityError: ``torch.export`` cannot trace the module: its path depends on numbers of the image, it fixes
            the batch size, or it calls what has no graph.
    """
    import torch

    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(module, (example,), dynamic_shapes=shapes)
        except Exception as error:  # torch.export raises errors of many kinds, and whatever the module raises
            raise _untraceable(module, error, batch) from error


def _untraceable(module: nn.Module, error: Exception, batch: int | None) -> CompatibilityError:
    import torch

    name, text = quote(type(module).__name__), str(error)
    if "data-dependent" in text or "DataDependent" in type(error).__name__:
        return CompatibilityError(
            f"the module {name} decides by numbers of the image which layers run, so it has no fixed graph: "
            f"{_first_line(text)}",
            code="module-data-dependent",
            hint="replace if and while on tensors by torch.where",
        )
    if batch is None and "batch" in text and ("Constraint" in text or "specializ" in text):
        return CompatibilityError(
            f"the module {name} fixes the batch size: {_first_line(text)}",
            code="module-batch-fixed",
            hint="write x.shape[0] or -1 in place of a number, or export with --batch N",
        )
    return CompatibilityError(
        f"torch {torch.__version__} cannot trace the module {name}: {type(error).__name__}: {_first_line(text)}",
        code="module-untraceable",
        hint="export a module whose forward calls only functions of PyTorch",
    )


def _first_line(text: str) -> str:
    return quote(next((line.strip() for line in text.splitlines() if line.strip()), "no reason given"))
