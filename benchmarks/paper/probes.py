"""Measurements inside a network, taken by hooks from outside: the responses of its layers, and its gradients.

The network that is given stays as it is, to the bit, the mode and the hook. Gradients are measured on a copy of it,
with batch-norm computing as in training, and in float64: a deep plain network with batch-norm enlarges a rounding as it
does a gradient, and in float32 other machines would give other numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.paper.training.step import evaluation_mode
from exporter.models.layers import layers
from exporter.models.resnet import BasicBlock, Bottleneck, ResNet, build, initialise
from exporter.models.variants import Variant
from runtimes.errors import ArtifactError, UsageError

# Responses ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Responses:
    """How strongly each layer responds: the standard deviation behind its batch-norm (He et al. 2015, Figure 7).

    In a residual network this is taken before the addition as well, so it is the strength of the residual function.

    Attributes:
        name: the network's, for people.
        images: how many they were taken over.
        layers: the convolutions' names, as ``exporter.models.layers`` has them.
        std: one for each of ``layers``, in the order of the forward pass, over all images, channels and pixels of the
            batch-norm's output.
    """

    name: str
    variant: Variant
    images: int
    layers: tuple[str, ...]
    std: tuple[float, ...]


class RunningSpread:
    """Spread of numbers that come in parts: each part's float64 mean and variance are merged (Chan et al. 1979).

    Exact but for float64's rounding, however many parts there are and however far their mean lies from zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, values: Tensor) -> None:
        """Takes the numbers of a tensor of any shape and any float type."""
        variance, mean = map(float, torch.var_mean(values.double(), correction=0))
        count = self.count + values.numel()
        step = mean - self.mean
        self.squares += variance * values.numel() + step * step * self.count * values.numel() / count
        self.mean += step * values.numel() / count
        self.count = count

    @property
    def std(self) -> float:
        """The standard deviation of all numbers so far, of which there is at least one."""
        return math.sqrt(self.squares / self.count)


def spatial_layers(variant: Variant) -> tuple[str, ...]:
    """Names of the convolutions that see a neighbourhood, in order: the stem and every 3x3, no 1x1."""
    return tuple(layer.name for layer in layers(variant) if len(layer.kernel) == 2 and layer.kernel != (1, 1))


def layer_responses(name: str, model: ResNet, batches: Iterable[Tensor]) -> Responses:
    """The network's responses to all images of the ``batches``, each (n, c, h, w), in evaluation mode.

    The network and its mode are afterwards what they were, also after an exception.

    Raises:
        UsageError: a layer has no batch-norm behind it, it is a pre-activation network, or there are no images.
        ArtifactError: a response is not finite.
    """
    _check_order(model.variant)
    spreads = {layer: RunningSpread() for layer in spatial_layers(model.variant)}
    norms = {layer.name: layer.norm for layer in layers(model.variant)}
    modules = dict(model.named_modules())
    images = 0
    with ExitStack() as stack:
        for layer, spread in spreads.items():
            bn = norms[layer]
            norm = modules.get(bn)
            if not isinstance(norm, nn.BatchNorm2d):
                hint = "take the unfolded network"
                raise UsageError(
                    f"no batch-norm {bn!r} behind the convolution {layer!r}", code="no-batch-norm", hint=hint
                )
            hook = norm.register_forward_hook(lambda _module, _inputs, output, spread=spread: spread.add(output))
            stack.callback(hook.remove)
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(torch.inference_mode())
        for batch in batches:
            model(batch.to(model.fc.weight.device))
            images += len(batch)
    if not images:
        raise UsageError("responses need at least one image", code="responses-without-images")
    for layer, spread in spreads.items():
        if not math.isfinite(spread.std):
            raise ArtifactError(
                f"{name}: the response of {layer} is not finite with these weights", code="response-not-finite"
            )
    std = tuple(spread.std for spread in spreads.values())
    return Responses(name, model.variant, images, tuple(spreads), std)


# Gradients ------------------------------------------------------------------------------------------------------------


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
    """The network's blocks by name, in the order of the forward pass. Raises ``UsageError`` as ``_check_order``."""
    _check_order(model.variant)
    return {name: module for name, module in model.named_modules() if isinstance(module, (BasicBlock, Bottleneck))}


def _check_order(variant: Variant) -> None:
    """Raise ``UsageError`` if a block does not end in an addition and a ReLU."""
    if variant.order == "pre":
        raise UsageError(
            f"{variant.name} is a pre-activation network, and this experiment measures blocks that end in a ReLU",
            code="experiment-needs-post-activation",
            hint="take a network of He et al. 2015, for example resnet20",
        )


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
    weights = {name: own.get_parameter(f"{name}.weight") for name in spatial_layers(own.variant)}
    inputs: dict[str, Tensor] = {}
    for name, block in _blocks(own).items():
        block.register_forward_pre_hook(partial(_keep, inputs, name))
    gradients = torch.autograd.grad(batch.loss(own), [*weights.values(), *inputs.values()])
    rms = [float(gradient.square().mean().sqrt()) for gradient in gradients[: len(weights)]]
    norms = [float(gradient.square().sum().sqrt()) for gradient in gradients[len(weights) :]]
    for name, value in zip((*weights, *inputs), rms + norms, strict=True):
        _check_gradient(value, f"{name} of {own.variant.name}")
    return Norms(tuple(weights), tuple(rms), tuple(inputs), tuple(norms))


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
