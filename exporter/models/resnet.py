"""Residual and plain networks in PyTorch (He et al. 2015, arXiv 1512.03385) and their later variants.

The file reads from top to bottom: convolution and norm, filters and attention, shortcuts, blocks, the network, and how
weights begin. The options are those of ``exporter.models.variants``, which names the papers. The module names are
torchvision's and timm's, so their state dicts load strictly. Pre-activation networks have the same names, and their
last norm is ``norm``. Comments at line ends give shapes: n images, c channels, h x w pixels.
"""

from __future__ import annotations

import math
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporter.models.layers import (
    BlockPlan,
    attention_kernel,
    block_plans,
    block_strides,
    needs_projection,
    squeeze_width,
)
from exporter.models.memory import require_memory
from exporter.models.variants import Order, Variant

GROUPS = 32
"""The number of groups of a group norm (Wu and He 2018, arXiv 1803.08494)."""


def _conv(channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _norm(variant: Variant, channels: int) -> nn.Module:
    return nn.GroupNorm(GROUPS, channels) if variant.norm == "group" else nn.BatchNorm2d(channels)


# Filters and attention ------------------------------------------------------------------------------------------------


class Blur(nn.Module):
    """A 3x3 binomial filter that keeps every second pixel (Zhang 2019, arXiv 1904.11486). It has no parameters.

    The image is mirrored at its border.

    Args:
        channels: The number of channels.
    """

    weights: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("weights", torch.outer(row, row).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the filtered ``x`` (n, c, h, w) at half the resolution: (n, c, h/2, w/2)."""
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")  # (n, c, h + 2, w + 2)
        return F.conv2d(x, self.weights, stride=2, groups=len(self.weights))  # (n, c, h/2, w/2)


def _blur(variant: Variant, channels: int, stride: int) -> nn.Module:
    """Return the filter of a block, which has the block's stride, or an identity."""
    if variant.blur == "none" or stride == 1:
        return nn.Identity()
    return Blur(channels) if variant.blur == "binomial" else _average()


def _average() -> nn.Module:
    return nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)


class SqueezeExcitation(nn.Module):
    """A weight for each channel from two layers on the channels' means (Hu et al. 2017, arXiv 1709.01507).

    Args:
        channels: The number of channels.
        inner: The number of channels between the two layers.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (n, c, h, w) with weighted channels."""
        y = x.mean((2, 3), keepdim=True)  # (n, c, 1, 1)
        y = self.fc2(F.relu(self.fc1(y)))  # (n, inner, 1, 1), then (n, c, 1, 1)
        return x * torch.sigmoid(y)


class EfficientChannelAttention(nn.Module):
    """A weight for each channel from the means of its neighbours (Wang et al. 2019, arXiv 1910.03151).

    Args:
        kernel: The number of neighbouring channels, an odd number.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (n, c, h, w) with weighted channels."""
        y = self.conv(x.mean((2, 3)).unsqueeze(1))  # (n, 1, c)
        return x * torch.sigmoid(y).transpose(1, 2).unsqueeze(3)  # the weights are (n, c, 1, 1)


def _attention(variant: Variant, plan: BlockPlan) -> nn.Module:
    channels = plan.outputs[-1]
    if variant.attention == "se":
        return SqueezeExcitation(channels, squeeze_width(variant, channels))
    if variant.attention == "eca":
        return EfficientChannelAttention(attention_kernel(variant, plan.planes))
    return nn.Identity()


# Shortcuts ------------------------------------------------------------------------------------------------------------


class PaddedIdentity(nn.Module):
    """The shortcut of option A: every ``stride``-th pixel, and zeros for the missing channels (section 4.1).

    It has no parameters. Half of the zero channels come first and half last, as in the published CIFAR weights.

    Args:
        channels: The number of input channels.
        out_channels: The number of output channels, at least ``channels``.
        stride: The distance between the pixels that are kept.
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (out_channels - channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - channels - before)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (n, channels, h, w) subsampled and padded to (n, out_channels, h/stride, w/stride)."""
        x = x[:, :, :: self.stride, :: self.stride]  # (n, c, h/stride, w/stride)
        return F.pad(x, self.padding)  # (n, out_channels, h/stride, w/stride)


def _shortcut(variant: Variant, plan: BlockPlan) -> nn.Module | None:
    channels, out_channels, stride = plan.channels, plan.outputs[-1], plan.stride
    if needs_projection(variant, channels, out_channels, stride):
        average = variant.down == "avg"
        pool = [_average() if stride != 1 else nn.Identity()] if average else []
        norm = [_norm(variant, out_channels)] if variant.order == "post" else []
        return nn.Sequential(*pool, _conv(channels, out_channels, 1, 1 if average else stride), *norm)
    if variant.residual and (stride != 1 or channels != out_channels):
        return PaddedIdentity(channels, out_channels, stride)
    return None


# Blocks ---------------------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """A block of two 3x3 convolutions (Figure 5, left). Without ``residual`` in the variant, it has no shortcut.

    Args:
        variant: The variant, which determines shortcut, strides, norm, filter and attention.
        plan: The sizes of the block.
    """

    def __init__(self, variant: Variant, plan: BlockPlan) -> None:
        super().__init__()
        first, second = block_strides(variant, plan.stride)
        one, two = plan.outputs
        self.conv1, self.bn1 = _conv(plan.channels, one, 3, first), _norm(variant, one)
        self.relu = nn.ReLU(inplace=True)
        self.blur = _blur(variant, one, plan.stride)
        self.conv2, self.bn2 = _conv(one, two, 3, second), _norm(variant, two)
        self.se = _attention(variant, plan)
        self.downsample = _shortcut(variant, plan)
        self.residual = variant.residual

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (n, planes, h/stride, w/stride) for ``x`` (n, channels, h, w)."""
        y = self.blur(self.relu(self.bn1(self.conv1(x))))  # (n, planes, h/stride, w/stride)
        y = self.se(self.bn2(self.conv2(y)))
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A block of a 1x1, a 3x3 and a 1x1 convolution, with four times the planes at its output (Figure 5, right).

    Args:
        variant: The variant, which also determines the groups of the 3x3 convolution.
        plan: The sizes of the block.
    """

    def __init__(self, variant: Variant, plan: BlockPlan) -> None:
        super().__init__()
        first, second = block_strides(variant, plan.stride)
        one, two, three = plan.outputs
        self.conv1, self.bn1 = _conv(plan.channels, one, 1, first), _norm(variant, one)
        self.conv2, self.bn2 = _conv(one, two, 3, second, variant.groups), _norm(variant, two)
        self.blur = _blur(variant, two, plan.stride)
        self.conv3, self.bn3 = _conv(two, three, 1, 1), _norm(variant, three)
        self.relu = nn.ReLU(inplace=True)
        self.se = _attention(variant, plan)
        self.downsample = _shortcut(variant, plan)
        self.residual = variant.residual

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (n, 4 planes, h/stride, w/stride) for ``x`` (n, channels, h, w)."""
        y = self.relu(self.bn1(self.conv1(x)))  # (n, one, h, w); in v1 (n, one, h/stride, w/stride)
        y = self.blur(self.relu(self.bn2(self.conv2(y))))  # (n, two, h/stride, w/stride)
        y = self.se(self.bn3(self.conv3(y)))  # (n, 4 planes, h/stride, w/stride)
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


class PreActivationBasicBlock(nn.Module):
    """A basic block with norm and ReLU before each convolution (He et al. 2016, arXiv 1603.05027, Figure 1, right).

    An identity shortcut passes the input on. A projection reads the input after norm and ReLU.

    Args:
        variant: As for ``BasicBlock``.
        plan: As for ``BasicBlock``.
    """

    def __init__(self, variant: Variant, plan: BlockPlan) -> None:
        super().__init__()
        first, second = block_strides(variant, plan.stride)
        one, two = plan.outputs
        self.bn1, self.conv1 = _norm(variant, plan.channels), _conv(plan.channels, one, 3, first)
        self.blur = _blur(variant, one, plan.stride)
        self.bn2, self.conv2 = _norm(variant, one), _conv(one, two, 3, second)
        self.relu = nn.ReLU(inplace=True)
        self.se = _attention(variant, plan)
        self.downsample = _shortcut(variant, plan)
        self.residual = variant.residual

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (n, planes, h/stride, w/stride) for ``x`` (n, channels, h, w)."""
        y = self.relu(self.bn1(x))  # (n, channels, h, w)
        shortcut = x if self.downsample is None else self.downsample(y)  # (n, planes, h/stride, w/stride)
        y = self.blur(self.relu(self.bn2(self.conv1(y))))  # (n, planes, h/stride, w/stride)
        y = self.se(self.conv2(y))
        return y + shortcut if self.residual else y  # type: ignore[no-any-return]


class PreActivationBottleneck(nn.Module):
    """A bottleneck with norm and ReLU before each convolution (He et al. 2016, arXiv 1603.05027).

    Args:
        variant: As for ``Bottleneck``.
        plan: As for ``Bottleneck``.
    """

    def __init__(self, variant: Variant, plan: BlockPlan) -> None:
        super().__init__()
        first, second = block_strides(variant, plan.stride)
        one, two, three = plan.outputs
        self.bn1, self.conv1 = _norm(variant, plan.channels), _conv(plan.channels, one, 1, first)
        self.bn2, self.conv2 = _norm(variant, one), _conv(one, two, 3, second, variant.groups)
        self.blur = _blur(variant, two, plan.stride)
        self.bn3, self.conv3 = _norm(variant, two), _conv(two, three, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.se = _attention(variant, plan)
        self.downsample = _shortcut(variant, plan)
        self.residual = variant.residual

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (n, 4 planes, h/stride, w/stride) for ``x`` (n, channels, h, w)."""
        y = self.relu(self.bn1(x))  # (n, channels, h, w)
        shortcut = x if self.downsample is None else self.downsample(y)  # (n, 4 planes, h/stride, w/stride)
        y = self.relu(self.bn2(self.conv1(y)))  # (n, one, h, w); in v1 (n, one, h/stride, w/stride)
        y = self.blur(self.relu(self.bn3(self.conv2(y))))  # (n, two, h/stride, w/stride)
        y = self.se(self.conv3(y))  # (n, 4 planes, h/stride, w/stride)
        return y + shortcut if self.residual else y  # type: ignore[no-any-return]


BLOCKS: dict[tuple[Order, str], type[nn.Module]] = {
    ("post", "basic"): BasicBlock,
    ("post", "bottleneck"): Bottleneck,
    ("pre", "basic"): PreActivationBasicBlock,
    ("pre", "bottleneck"): PreActivationBottleneck,
}
"""The class of each kind of block, by the order of its layers."""


# The network ----------------------------------------------------------------------------------------------------------


def _stem(variant: Variant) -> nn.Module:
    """Return the convolutions before the first block, without the norm after the last of them."""
    if variant.stem == "deep":
        first, second, last = variant.stem_channels
        return nn.Sequential(
            _conv(variant.in_channels, first, 3, 2),  # (n, first, h/2, w/2)
            _norm(variant, first),
            nn.ReLU(inplace=True),
            _conv(first, second, 3, 1),  # (n, second, h/2, w/2)
            _norm(variant, second),
            nn.ReLU(inplace=True),
            _conv(second, last, 3, 1),  # (n, last, h/2, w/2)
        )
    kernel, stride = (7, 2) if variant.stem == "imagenet" else (3, 1)
    return _conv(variant.in_channels, variant.stem_channels[-1], kernel, stride)


def _stem_pool(variant: Variant) -> nn.Module:
    """Return the layer that halves the image behind the stem. A CIFAR stem has none."""
    channels = variant.stem_channels[-1]
    if variant.stem == "cifar":
        return nn.Identity()
    if variant.pool == "conv":
        return nn.Sequential(_conv(channels, channels, 3, 2), _norm(variant, channels), nn.ReLU(inplace=True))
    if variant.blur == "average":
        return nn.AvgPool2d(2)
    if variant.blur == "binomial":
        return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Blur(channels))
    return nn.MaxPool2d(3, stride=2, padding=1)


class ResNet(nn.Module):
    """A variant as a PyTorch module.

    Args:
        variant: The variant. Its input size does not constrain the inputs.

    Attributes:
        variant: The variant.
        stages: The names of the modules that hold the blocks, ``layer1`` and so on.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        post = variant.order == "post"
        channels = variant.stem_channels[-1]
        self.conv1 = _stem(variant)
        self.bn1 = _norm(variant, channels) if post else nn.Identity()
        self.relu = nn.ReLU(inplace=True) if post else nn.Identity()
        self.maxpool = _stem_pool(variant)
        for stage, plans in groupby(block_plans(variant), key=lambda plan: plan.stage):
            self.add_module(
                stage, nn.Sequential(*(BLOCKS[variant.order, variant.block](variant, plan) for plan in plans))
            )
        self.stages = [f"layer{number}" for number, _ in enumerate(variant.depths, start=1)]
        activated = post or not variant.final_norm
        self.norm = nn.Identity() if activated else _norm(variant, variant.features)
        self.last_relu = nn.Identity() if activated else nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        head = nn.Linear(variant.features, variant.classes) if variant.classes else nn.Identity()
        self.fc: nn.Linear = head  # type: ignore[assignment]  # an identity in a trunk

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the map after each stage, (n, c, h, w), for images ``x``. The last one is what is pooled."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (n, c, h/4, w/4); with a CIFAR stem (n, c, h, w)
        result = []
        for stage in self.stages:
            x = self.get_submodule(stage)(x)  # each stage but the first halves h and w
            result.append(x)
        result[-1] = self.last_relu(self.norm(x))  # an identity, except in most pre-activation networks
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, classes) for images ``x``, float32 (n, in_channels, h, w); of a trunk the features."""
        x = torch.flatten(self.avgpool(self.maps(x)[-1]), 1)  # (n, features)
        return self.fc(x)  # type: ignore[no-any-return]  # (n, classes)


# Weights to begin with ------------------------------------------------------------------------------------------------


def initialise(model: ResNet, seed: int) -> None:
    """Draw He et al.'s initialisation in place: normal weights of variance 2 / fan-in, and biases of 0.

    Norms get scale 1 and shift 0, and batch norms also mean 0 and variance 1. The source is arXiv 1502.01852, equation
    10; section 3.4 of the paper refers to it. One seed gives the same weights on each processor, up to rounding.

    Args:
        model: The module to change.
        seed: The seed of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
                module.reset_parameters()


CENTRE_SPREAD = 0.2
"""The standard deviation of the means that ``settle_statistics`` draws, as a share of the layer's root mean square."""


def settle_statistics(model: ResNet, seed: int, images: int = 4) -> None:
    """Set the running statistics of all batch norms in place, so that an untrained network computes usable numbers.

    With the initial statistics (mean 0, variance 1), activations double from block to block and overflow float32. With
    the statistics of a batch, as in training, a deep network is chaotic: in ResNet-152, a change of 1e-6 in the input
    changes the logits by 1e-3, so no two libraries agree. Here seeded noise passes through the network. The means of
    each batch norm are small random numbers, so biases matter. All channels of a batch norm get the same variance: the
    mean square deviation from these means, which keeps the scale.

    PyTorch uses one thread during the call, because the number of threads changes the order of sums. One seed gives
    the same bits on one kind of processor, and the same numbers up to rounding on another.

    Args:
        model: The module to change, initialised before.
        seed: The seed of the noise and of the means.
        images: The number of noise images.
    """
    variant = model.variant
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images, variant.in_channels, *variant.size, generator=generator)

    def settle(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        (x,) = inputs  # (images, c, h, w)
        scale = x.square().mean().sqrt()
        norm.running_mean.normal_(0.0, CENTRE_SPREAD, generator=generator).mul_(scale)
        norm.running_var.fill_((x - norm.running_mean[:, None, None]).square().mean())

    hooks = [norm.register_forward_pre_hook(settle) for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)]
    was_training, threads = model.training, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            model.eval()(noise)
    finally:
        torch.set_num_threads(threads)
        model.train(was_training)
        for hook in hooks:
            hook.remove()


def build(variant: Variant) -> ResNet:
    """Return the variant's module in evaluation mode, with PyTorch's default parameters.

    Raises:
        ResourceError: The memory does not suffice for the network and one image.
    """
    require_memory(variant)
    return ResNet(variant).eval()
