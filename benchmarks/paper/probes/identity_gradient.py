"""The ``+ 1`` in a residual block's gradient: y = F(x) + x has dL/dx = dL/dy (F'(x) + 1), checked and weighed.

The three parts are taken from the network by automatic differentiation, each by itself: the gradient at the block's
input, the gradient at the sum in front of the last ReLU (the identity speaks of the sum: ReLU follows the addition),
and what of the latter comes back through the branch alone. Everything is in float64, on a copy of the network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.paper.probes.layer_gradients import LossBatch, blocks, check_gradient, keep_input, loss_of
from exporter.models.resnet import Bottleneck, ResNet, build
from exporter.models.variants import Variant
from runtimes.errors import UsageError


@dataclass(frozen=True)
class GradientShare:
    """What the shortcut and the branch of one block bring to the gradient d at the block's input.

    With s the shortcut's part (the gradient at the sum) and b the branch's, d = s + b, and ``shortcut`` is the
    projection <s, d> / |d|^2; the branch's is the rest to one. Of the squared norm, |s|^2 / |d|^2 is
    ``shortcut - cross``, ``cross`` being <s, b> / |d|^2.

    Attributes:
        block: its name, as "layer1.0".
        error: largest element of |d - (s + b)|, over the largest of |d|: 0 but for rounding if the identity holds.
    """

    block: str
    shortcut: float
    cross: float
    error: float


@dataclass(frozen=True)
class GradientShares:
    """The shares in one network, by ``name`` for people: one for each block with an identity shortcut."""

    name: str
    blocks: tuple[GradientShare, ...]


def identity_blocks(variant: Variant) -> tuple[str, ...]:
    """Names of the blocks whose shortcut the variant leaves as it is: neither projected nor padded."""
    with torch.device("meta"):
        model = build(variant)
    return tuple(name for name, block in blocks(model).items() if block.residual and block.downsample is None)


def shortcut_shares(name: str, model: ResNet, batch: LossBatch) -> GradientShares:
    """The shares of the network's blocks, in order; batch-norm computes as in training. The network stays as it is.

    Every layer's activations are held in float64: for ResNet-110 and 32x32 images about 50 MB an image.

    Raises:
        UsageError: the variant has no such block.
        ArtifactError: a block's gradient is not finite, or zero throughout.
    """
    names = identity_blocks(model.variant)
    if not names:
        raise UsageError(
            f"no block of {model.variant.name} has an identity shortcut",
            code="no-identity-shortcut",
            hint="take a residual network",
        )
    own = copy.deepcopy(model).double().train()
    for module in own.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # else the sum would be overwritten before its gradient is asked for
    tensors: dict[str, Tensor] = {}
    for block, module in blocks(own).items():
        last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
        module.register_forward_pre_hook(partial(keep_input, tensors, f"{block}.input"))
        last.register_forward_hook(partial(_keep_output, tensors, f"{block}.branch"))
        # ReLU is called inside the branch too; its last call, on the sum, stays
        module.relu.register_forward_pre_hook(partial(keep_input, tensors, f"{block}.sum"))
    loss = loss_of(own, batch)
    inputs, branches, sums = ([tensors[f"{block}.{part}"] for block in names] for part in ("input", "branch", "sum"))
    gradients = torch.autograd.grad(loss, inputs + sums, retain_graph=True)
    shares = []
    for number, block in enumerate(names):
        whole, at_sum = gradients[number], gradients[len(names) + number]
        (branch,) = torch.autograd.grad(branches[number], inputs[number], at_sum, retain_graph=True)
        shares.append(_share(f"{block} of {model.variant.name}", block, whole, at_sum, branch))
    return GradientShares(name, tuple(shares))


def _keep_output(
    tensors: dict[str, Tensor], name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    tensors[name] = output


def _share(where: str, block: str, whole: Tensor, shortcut: Tensor, branch: Tensor) -> GradientShare:
    square = check_gradient(float(whole.square().sum()), where)
    return GradientShare(
        block,
        shortcut=float((shortcut * whole).sum()) / square,
        cross=float((shortcut * branch).sum()) / square,
        error=float((whole - (shortcut + branch)).abs().max() / whole.abs().max()),
    )
