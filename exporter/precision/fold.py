"""A network without batch-norms, and in a narrower float: what a typed PyTorch program computes."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from exporter.models.resnet import ResNet
from runtimes.errors import CheckFailedError


def fold_batch_norms(model: ResNet) -> ResNet:
    """A copy whose batch-norms are folded into the convolutions before them, in the model's own float.

    A batch-norm follows its convolution in the order in which ``exporter.models.resnet`` makes them.

    Raises:
        CheckFailedError: one follows something else.
    """
    result = copy.deepcopy(model)
    modules = list(result.named_modules())
    for (before, convolution), (name, norm) in pairwise(modules):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        if not isinstance(convolution, nn.Conv2d):
            raise CheckFailedError(
                f"the batch-norm {name} follows no convolution, but {before}", code="batch-norm-misplaced"
            )
        result.set_submodule(before, fuse_conv_bn_eval(convolution, norm))
        result.set_submodule(name, nn.Identity())
    return result


class FoldedResNet(ResNet):
    """The network folded and in ``dtype``, in evaluation mode; what goes in and out stays float32.

    Folding comes first: afterwards it would round twice. The modules keep their names.

    Raises:
        CheckFailedError: a weight overflows the narrower type.
    """

    def __init__(self, model: ResNet, dtype: torch.dtype) -> None:
        with torch.device("meta"):  # nothing of it is kept
            super().__init__(model.variant)
        for name, child in fold_batch_norms(model).to(dtype).named_children():
            setattr(self, name, child)
        self.dtype = dtype
        self.eval()
        _check_finite(self, model)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.dtype)).to(torch.float32)  # (n, classes)


def _check_finite(narrow: nn.Module, wide: nn.Module) -> None:
    if not all(value.isfinite().all() for value in wide.parameters()):
        return  # what is broken already is parity's to tell
    for name, value in narrow.named_parameters():
        if not value.isfinite().all():
            raise CheckFailedError(
                f"{name} holds what {str(value.dtype).removeprefix('torch.')} cannot",
                code="parameter-overflows",
                hint="--precision bf16 has float32's range",
            )
