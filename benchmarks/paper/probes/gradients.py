"""Gradients by layer of plain and residual networks, and the ``+ 1`` in a residual block's gradient.

Everything is measured on a copy of the network, by hooks put on from outside, with batch-norm computing as in training.
The network that is given stays as it is, to the bit and to the hook. It is in float64 as a deep plain network with
batch-norm enlarges a rounding as it does a gradient: in float32, other machines would give other numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.paper.probes.responses import spatial_layers
from exporter.models.resnet import BLOCKS, BasicBlock, Bottleneck, ResNet, build, initialise
from exporter.models.variants import Variant
from runtimes.errors import ArtifactError, UsageError


@dataclass(frozen=True, eq=False)
class LossBatch:
    """What a loss is taken on: ``images`` (n, c, h, w), ``targets`` (n,) int64, and what they are, for people."""

    images: Tensor
    targets: Tensor
    description: str

    def loss(self, model: ResNet) -> Tensor:
        """The cross-entropy, averaged over the batch, in the network's own type and on its device."""
        weight = model.fc.weight
        return F.cross_entropy(model(self.images.to(weight)), self.targets.to(weight.device))


@dataclass(frozen=True)
class Norms:
    """Gradients of one loss, the cross-entropy averaged over a batch.

    Attributes:
        layers: the stem and the 3x3 convolutions, in order.
        weight_rms: root mean square of each one's weight gradient.
        blocks: in order, as "layer1.0".
        input_norm: Euclidean norm of the gradient at each one's input, over the whole batch.
    """

    layers: tuple[str, ...]
    weight_rms: tuple[float, ...]
    blocks: tuple[str, ...]
    input_norm: tuple[float, ...]

    @property
    def growth(self) -> float:
        """The norm at the first block's input over that at the last's: above 1 the gradient grows on its way back."""
        return self.input_norm[0] / self.input_norm[-1]


@dataclass(frozen=True)
class InitialGradients:
    """A network's gradients as He et al.'s initialisation of ``seed`` leaves it, with its batch-norms or without."""

    variant: Variant
    seed: int
    normalised: bool
    norms: Norms


@dataclass(frozen=True)
class TrainedGradients:
    """A network's gradients at the end of ``iteration`` steps of training."""

    variant: Variant
    iteration: int
    norms: Norms


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


def _blocks(model: ResNet) -> dict[str, BasicBlock | Bottleneck]:
    """The network's blocks by name, in the order of the forward pass."""
    kinds = tuple(BLOCKS.values())
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def _keep(
    tensors: dict[str, Tensor], name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None = None
) -> None:
    """A hook, but for its first two arguments: keeps a module's output, or before the call its input, under a name."""
    tensors[name] = inputs[0] if output is None else output


def _check_gradient(size: float, where: str) -> float:
    """The size of a gradient. Raises ``ArtifactError`` if it is zero or not finite."""
    if not 0 < size < math.inf:
        raise ArtifactError(
            f"the gradient at {where} is zero or not finite with these weights", code="gradient-not-finite"
        )
    return size


# By layer -------------------------------------------------------------------------------------------------------------


def without_norms(model: ResNet) -> ResNet:
    """A copy of the network in which what each convolution gives goes on as it is: no batch-norm is left."""
    bare = copy.deepcopy(model)
    for parent in list(bare.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    return bare


def layer_gradients(model: ResNet, batch: LossBatch) -> Norms:
    """The network's gradients on the batch, in float64: for ResNet-110 and 32x32 images about 30 MB an image.

    Raises ``ArtifactError`` if one is not finite, or zero throughout.
    """
    own = copy.deepcopy(model).double().train()
    layers = {name: own.get_parameter(f"{name}.weight") for name in spatial_layers(own.variant)}
    inputs: dict[str, Tensor] = {}
    for name, block in _blocks(own).items():
        block.register_forward_pre_hook(partial(_keep, inputs, name))
    gradients = torch.autograd.grad(batch.loss(own), [*layers.values(), *inputs.values()])
    rms = [float(gradient.square().mean().sqrt()) for gradient in gradients[: len(layers)]]
    norms = [float(gradient.square().sum().sqrt()) for gradient in gradients[len(layers) :]]
    for name, value in zip((*layers, *inputs), rms + norms, strict=True):
        _check_gradient(value, f"{name} of {own.variant.name}")
    return Norms(tuple(layers), tuple(rms), tuple(inputs), tuple(norms))


def at_initialisation(variant: Variant, seed: int, batch: LossBatch) -> tuple[InitialGradients, InitialGradients]:
    """Gradients of the freshly initialised network: with batch-norm, and without. Raises as ``layer_gradients``."""
    model = build(variant)
    initialise(model, seed)
    return (
        InitialGradients(variant, seed, True, layer_gradients(model, batch)),
        InitialGradients(variant, seed, False, layer_gradients(without_norms(model), batch)),
    )


def along_training(
    variant: Variant, states: Iterable[tuple[int, Mapping[str, Tensor]]], batch: LossBatch
) -> tuple[TrainedGradients, ...]:
    """Gradients at points of a training run, each given as its iteration and the state dict that it left. Raises as
    ``layer_gradients``."""
    model = build(variant)
    gradients = []
    for iteration, state in states:
        model.load_state_dict(state)
        gradients.append(TrainedGradients(variant, iteration, layer_gradients(model, batch)))
    return tuple(gradients)


# The + 1 --------------------------------------------------------------------------------------------------------------


def identity_blocks(variant: Variant) -> tuple[str, ...]:
    """Names of the blocks whose shortcut the variant leaves as it is: neither projected nor padded."""
    with torch.device("meta"):
        model = build(variant)
    return tuple(name for name, block in _blocks(model).items() if block.residual and block.downsample is None)


def shortcut_shares(name: str, model: ResNet, batch: LossBatch) -> GradientShares:
    """The shares of the network's blocks, in order: y = F(x) + x has dL/dx = dL/dy (F'(x) + 1), checked and weighed.

    The three parts are taken by automatic differentiation, each by itself: the gradient at the block's input, the
    gradient at the sum in front of the last ReLU (the identity speaks of the sum: ReLU follows the addition), and what
    of the latter comes back through the branch alone. Every layer's activations are held in float64: for ResNet-110
    and 32x32 images about 50 MB an image.

    Raises:
        UsageError: the variant has no such block.
        ArtifactError: a block's gradient is not finite, or zero throughout.
    """
    names = identity_blocks(model.variant)
    if not names:
        hint = "take a residual network"
        raise UsageError(
            f"no block of {model.variant.name} has an identity shortcut", code="no-identity-shortcut", hint=hint
        )
    own = copy.deepcopy(model).double().train()
    tensors: dict[str, Tensor] = {}
    for relu in own.modules():
        if isinstance(relu, nn.ReLU):
            relu.inplace = False  # else the sum would be overwritten before its gradient is asked for
    for block, module in _blocks(own).items():
        last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
        module.register_forward_pre_hook(partial(_keep, tensors, f"{block}.input"))
        last.register_forward_hook(partial(_keep, tensors, f"{block}.branch"))
        # ReLU is called inside the branch too; its last call, on the sum, stays
        module.relu.register_forward_pre_hook(partial(_keep, tensors, f"{block}.sum"))
    loss = batch.loss(own)
    inputs, branches, sums = ([tensors[f"{block}.{part}"] for block in names] for part in ("input", "branch", "sum"))
    gradients = torch.autograd.grad(loss, inputs + sums, retain_graph=True)
    shares = []
    for number, block in enumerate(names):
        whole, shortcut = gradients[number], gradients[len(names) + number]
        (branch,) = torch.autograd.grad(branches[number], inputs[number], shortcut, retain_graph=True)
        square = _check_gradient(float(whole.square().sum()), f"{block} of {model.variant.name}")
        projection, cross = (float((shortcut * other).sum()) / square for other in (whole, branch))
        error = float((whole - (shortcut + branch)).abs().max() / whole.abs().max())
        shares.append(GradientShare(block, projection, cross, error))
    return GradientShares(name, tuple(shares))
