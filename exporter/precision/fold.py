"""PyTorch networks with folded batch norms, in float32 or in a 16-bit float type."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from exporter.models.layers import foldable_norms
from exporter.models.resnet import ResNet
from runtimes.errors import CheckFailedError


def fold_batch_norms(model: ResNet) -> ResNet:
    """Return a copy of a network with its batch norms folded into the convolutions before them.

    The type of the weights stays the same. Batch norms of a pre-activation network that read a sum stay.

    Raises:
        CheckFailedError: A batch norm does not follow a convolution.
    """
    result = copy.deepcopy(model)
    for name, before in foldable_norms(model.variant).items():
        convolution, norm = result.get_submodule(before), result.get_submodule(name)
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            found = f"{before} ({type(convolution).__name__})"
            raise CheckFailedError(
                f"the batch norm {name} does not follow a convolution, but {found}", code="batch-norm-misplaced"
            )
        result.set_submodule(before, fuse_conv_bn_eval(convolution, norm))
        result.set_submodule(name, nn.Identity())
    return result


class FoldedResNet(ResNet):
    """A network in evaluation mode with folded batch norms, which computes in ``dtype``.

    Its input and output are float32.

    Batch norms are folded before the conversion, because folding afterwards would round twice. Modules keep their
    names.

    Args:
        model: The network, which is not changed.
        dtype: The type of weights and activations.

    Raises:
        CheckFailedError: A weight overflows ``dtype``.
    """

    def __init__(self, model: ResNet, dtype: torch.dtype) -> None:
        with torch.device("meta"):  # the modules are replaced below
            super().__init__(model.variant)
        for name, child in fold_batch_norms(model).to(dtype).named_children():
            setattr(self, name, child)
        self.dtype = dtype
        self.eval()
        _check_finite(self, model)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, float32 (n, classes), for images ``x``, float32 (n, in_channels, h, w)."""
        return super().forward(x.to(self.dtype)).to(torch.float32)  # (n, classes)


def _check_finite(narrow: nn.Module, wide: nn.Module) -> None:
    if not all(value.isfinite().all() for value in wide.parameters()):
        return  # the parity check reports weights that were not finite before
    for name, value in narrow.named_parameters():
        if not value.isfinite().all():
            raise CheckFailedError(
                f"{name} contains a value that {str(value.dtype).removeprefix('torch.')} cannot represent",
                code="parameter-overflows",
                hint="use --precision bf16, which has the range of float32",
            )
