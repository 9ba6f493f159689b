"""Residual and plain networks in PyTorch (He et al. 2015, arXiv 1512.03385).

The module names are torchvision's, so its state dicts load strictly. Comments at line ends give shapes: n images, c
channels, h x w pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporter.models.variants import EXPANSION, Variant, block_strides, needs_projection


def _conv_bn(channels: int, out_channels: int, kernel: int, stride: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(out_channels)


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


def _shortcut(variant: Variant, channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if needs_projection(variant, channels, out_channels, stride):
        return nn.Sequential(
            nn.Conv2d(channels, out_channels, 1, stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    if variant.residual and (stride != 1 or channels != out_channels):
        return PaddedIdentity(channels, out_channels, stride)
    return None


class BasicBlock(nn.Module):
    """A block of two 3x3 convolutions (Figure 5, left). Without ``residual`` in the variant, it has no shortcut.

    Args:
        variant: The variant, which determines shortcut and strides.
        channels: The number of input channels.
        width: The number of output channels.
        stride: The stride of the whole block.
    """

    def __init__(self, variant: Variant, channels: int, width: int, stride: int) -> None:
        super().__init__()
        first, second = block_strides(variant, stride)
        self.conv1, self.bn1 = _conv_bn(channels, width, 3, first)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _conv_bn(width, width, 3, second)
        self.downsample = _shortcut(variant, channels, width, stride)
        self.residual = variant.residual

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (n, width, h/stride, w/stride) for ``x`` (n, channels, h, w)."""
        y = self.relu(self.bn1(self.conv1(x)))  # (n, width, h/stride, w/stride)
        y = self.bn2(self.conv2(y))
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A block of a 1x1, a 3x3 and a 1x1 convolution, with four times the width at its output (Figure 5, right).

    Args:
        variant: The variant, which determines shortcut and strides.
        channels: The number of input channels.
        width: The number of channels of the 3x3 convolution.
        stride: The stride of the whole block.
    """

    def __init__(self, variant: Variant, channels: int, width: int, stride: int) -> None:
        super().__init__()
        first, second = block_strides(variant, stride)
        out_channels = width * EXPANSION["bottleneck"]
        self.conv1, self.bn1 = _conv_bn(channels, width, 1, first)
        self.conv2, self.bn2 = _conv_bn(width, width, 3, second)
        self.conv3, self.bn3 = _conv_bn(width, out_channels, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(variant, channels, out_channels, stride)
        self.residual = variant.residual

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (n, 4 width, h/stride, w/stride) for ``x`` (n, channels, h, w)."""
        y = self.relu(self.bn1(self.conv1(x)))  # (n, width, h, w); in v1 (n, width, h/stride, w/stride)
        y = self.relu(self.bn2(self.conv2(y)))  # (n, width, h/stride, w/stride)
        y = self.bn3(self.conv3(y))  # (n, 4 width, h/stride, w/stride)
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}
"""The class of each kind of block."""


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
        channels = variant.widths[0]
        kernel, stride = (7, 2) if variant.stem == "imagenet" else (3, 1)
        self.conv1, self.bn1 = _conv_bn(variant.in_channels, channels, kernel, stride)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if variant.stem == "imagenet" else nn.Identity()
        self.stages = []
        for number, (depth, width) in enumerate(zip(variant.depths, variant.widths, strict=True), start=1):
            blocks = nn.Sequential()
            for index in range(depth):
                blocks.append(BLOCKS[variant.block](variant, channels, width, 2 if number > 1 and index == 0 else 1))
                channels = width * EXPANSION[variant.block]
            self.stages.append(f"layer{number}")
            self.add_module(f"layer{number}", blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, variant.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, classes) for images ``x``, float32 (n, in_channels, h, w)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # ImageNet stem: (n, 64, h/4, w/4); CIFAR: (n, 16, h, w)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)  # each stage but the first halves h and w
        x = torch.flatten(self.avgpool(x), 1)  # (n, features)
        return self.fc(x)  # type: ignore[no-any-return]  # (n, classes)


def initialise(model: ResNet, seed: int) -> None:
    """Draw He et al.'s initialisation in place: normal weights of variance 2 / fan-in, and biases of 0.

    Batch norms become the identity: scale 1, shift 0, mean 0 and variance 1. The source is arXiv 1502.01852, equation
    10; section 3.4 of the paper refers to it. One seed gives the same weights on each kind of processor, up to
    rounding.

    Args:
        model: The module to change.
        seed: The seed of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
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

    PyTorch uses one thread during the call, because the number of threads changes the order of sums. One seed gives the
    same bits on one kind of processor, and the same numbers up to float32 rounding on another.

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
    """Return the variant's module in evaluation mode.

    The parameters are PyTorch's defaults. Load or initialise them before use.
    """
    return ResNet(variant).eval()
