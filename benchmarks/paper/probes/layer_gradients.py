"""Gradients by layer of plain and residual networks: at initialisation, with batch-norm and without, and in training.

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
from runtimes.errors import ArtifactError


@dataclass(frozen=True, eq=False)
class LossBatch:
    """What a loss is taken on: ``images`` (n, c, h, w), ``targets`` (n,) int64, and what they are, for people."""

    images: Tensor
    targets: Tensor
    description: str


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


def blocks(model: ResNet) -> dict[str, BasicBlock | Bottleneck]:
    """The network's blocks by name, in the order of the forward pass."""
    kinds = tuple(BLOCKS.values())
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


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

    Raises:
        ArtifactError: one is not finite, or zero throughout.
    """
    own = copy.deepcopy(model).double().train()
    layers = {name: own.get_parameter(f"{name}.weight") for name in spatial_layers(own.variant)}
    inputs: dict[str, Tensor] = {}
    for name, block in blocks(own).items():
        block.register_forward_pre_hook(partial(keep_input, inputs, name))
    gradients = torch.autograd.grad(loss_of(own, batch), [*layers.values(), *inputs.values()])
    rms = [float(gradient.square().mean().sqrt()) for gradient in gradients[: len(layers)]]
    norms = [float(gradient.square().sum().sqrt()) for gradient in gradients[len(layers) :]]
    for name, value in zip((*layers, *inputs), rms + norms, strict=True):
        check_gradient(value, f"{name} of {own.variant.name}")
    return Norms(tuple(layers), tuple(rms), tuple(inputs), tuple(norms))


def loss_of(model: ResNet, batch: LossBatch) -> Tensor:
    """The cross-entropy, averaged over the batch, in the network's own type and on its device."""
    weight = model.fc.weight
    return F.cross_entropy(model(batch.images.to(weight)), batch.targets.to(weight.device))


def check_gradient(size: float, where: str) -> float:
    """The size of a gradient.

    Raises:
        ArtifactError: it is zero or not finite.
    """
    if not 0 < size < math.inf:
        raise ArtifactError(
            f"the gradient at {where} is zero or not finite with these weights", code="gradient-not-finite"
        )
    return size


def keep_input(tensors: dict[str, Tensor], name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """A forward hook, but for its first two arguments: keeps a module's input under a name."""
    tensors[name] = inputs[0]


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
