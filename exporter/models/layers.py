"""The layers of a variant by arithmetic: names, shapes, parameters and multiply-adds. No framework is imported."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from exporter.models.variants import EXPANSION, Variant

SQUEEZE_DIVISOR = 8
"""The inner channels of squeeze-and-excitation are a multiple of this number, and at least this number, as in timm."""


@dataclass(frozen=True)
class VariantLayer:
    """A layer of a variant that multiplies: a convolution, a blur or the classifier.

    Attributes:
        name: The name of the module in the PyTorch network.
        stage: The stage that contains the layer.
        in_channels: The number of input channels.
        out_channels: The number of output channels.
        kernel: The size of the kernel: (height, width), (length,) for a convolution over channels, or () for the
            classifier.
        stride: The stride.
        out_size: The (height, width) of the output, (channels,) for a convolution over channels, or () for the
            classifier.
        groups: The number of groups.
        norm: The name of the normalisation that belongs to the layer, or ``""``.
        norm_first: Whether the normalisation precedes the layer.
        bias: Whether the layer has a bias.
        learnt: Whether the layer has weights. The weights of a blur are fixed.
    """

    name: str
    stage: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: int
    out_size: tuple[int, ...]
    groups: int = 1
    norm: str = ""
    norm_first: bool = False
    bias: bool = False
    learnt: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight: (out_channels, in_channels / groups, *kernel)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def norm_channels(self) -> int:
        """The number of channels of the normalisation, or 0 if there is none."""
        return (self.in_channels if self.norm_first else self.out_channels) if self.norm else 0

    @property
    def multiply_adds(self) -> int:
        """The number of multiply-adds for one image.

        A multiplication with its addition counts once, as in the paper.
        """
        return math.prod(self.shape) * math.prod(self.out_size)

    @property
    def parameters(self) -> int:
        """The number of learnt parameters, including the bias and the scale and shift of the normalisation."""
        weights = math.prod(self.shape) if self.learnt else 0
        return weights + 2 * self.norm_channels + (self.out_channels if self.bias else 0)


def _halve(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def block_strides(variant: Variant, stage_stride: int) -> tuple[int, int]:
    """Return the strides of the first and second convolution in a block.

    A basic block has its stride in the first 3x3 convolution. A bottleneck has it in the first 1x1 convolution (``v1``,
    He et al. 2015, section 4.1) or in the 3x3 convolution (``v1.5``, as in torchvision's published weights). In a
    network with blur, the blur has the stride.

    Args:
        variant: The variant of the block.
        stage_stride: The stride of the whole block.
    """
    if variant.blur != "none":
        return 1, 1
    if variant.block == "basic" or variant.stride == "v1":
        return stage_stride, 1
    return 1, stage_stride


def needs_projection(variant: Variant, channels: int, out_channels: int, stride: int) -> bool:
    """Return whether the shortcut of a block is a learnt 1x1 convolution (He et al. 2015, section 4.1, options A to C).

    Args:
        variant: The variant of the block.
        channels: The number of input channels of the block.
        out_channels: The number of output channels of the block.
        stride: The stride of the whole block.
    """
    if not variant.residual or variant.shortcut == "A":
        return False
    return variant.shortcut == "C" or stride != 1 or channels != out_channels


@dataclass(frozen=True)
class BlockPlan:
    """The sizes of a block.

    Attributes:
        stage: The name of the module of its stage, for example ``layer1``.
        index: The position in the stage, from 0.
        channels: The number of input channels.
        outputs: The output channels of the convolutions.
        planes: The planes of the stage.
        stride: The stride of the whole block.
    """

    stage: str
    index: int
    channels: int
    outputs: tuple[int, ...]
    planes: int
    stride: int

    @property
    def name(self) -> str:
        """The name of the module of the block, for example ``layer1.0``."""
        return f"{self.stage}.{self.index}"


def block_plans(variant: Variant) -> Iterator[BlockPlan]:
    """Yield the sizes of all blocks in the order of the forward pass.

    The 3x3 convolution of a bottleneck has ``base_width`` channels in each group for 64 planes.
    """
    channels, explicit = variant.stem_channels[-1], iter(variant.channels)
    for number, (depth, planes) in enumerate(zip(variant.depths, variant.widths, strict=True), start=1):
        width, out_channels = planes * variant.base_width // 64 * variant.groups, planes * EXPANSION[variant.block]
        usual = (planes, planes) if variant.block == "basic" else (width, width, out_channels)
        for index in range(depth):
            outputs = next(explicit, usual)
            yield BlockPlan(f"layer{number}", index, channels, outputs, planes, 2 if number > 1 and index == 0 else 1)
            channels = outputs[-1]


def squeeze_width(variant: Variant, channels: int) -> int:
    """Return the inner channels of squeeze-and-excitation: a multiple of ``SQUEEZE_DIVISOR``, rounded half up.

    Args:
        variant: The variant.
        channels: The number of channels that are weighted.
    """
    half = SQUEEZE_DIVISOR // 2
    return max(SQUEEZE_DIVISOR, int(channels / variant.reduction + half) // SQUEEZE_DIVISOR * SQUEEZE_DIVISOR)


def attention_kernel(variant: Variant, planes: int) -> int:
    """Return the length of ECA's kernel: the odd number near (log2(channels) + 1) / 2, and at least 3.

    The channels are those that a block has without pruning.

    Args:
        variant: The variant.
        planes: The planes of the stage.
    """
    length = int((math.log2(planes * EXPANSION[variant.block]) + 1) / 2)
    return max(3, length if length % 2 else length + 1)


def layers(variant: Variant) -> Iterator[VariantLayer]:
    """Yield all layers that multiply, in the order of the modules, for the input size of the variant."""
    yield from _stem_layers(variant)
    size = _size_after_stem(variant)
    for plan in block_plans(variant):
        yield from _block_layers(variant, plan, size)
        size = _halve(size) if plan.stride == 2 else size
    last = "norm" if variant.order == "pre" and variant.final_norm else ""
    head = bool(variant.classes)  # a trunk has no classifier, but its last norm
    yield VariantLayer(
        "fc", "head", variant.features, variant.classes, (), 1, (), norm=last, norm_first=True, bias=head, learnt=head
    )


def _stem_layers(variant: Variant) -> Iterator[VariantLayer]:
    channels = variant.stem_channels[-1]
    size = variant.size if variant.stem == "cifar" else _halve(variant.size)
    last = "bn1" if variant.order == "post" else ""
    if variant.stem == "deep":
        first, second, _ = variant.stem_channels
        yield VariantLayer("conv1.0", "stem", variant.in_channels, first, (3, 3), 2, size, norm="conv1.1")
        yield VariantLayer("conv1.3", "stem", first, second, (3, 3), 1, size, norm="conv1.4")
        yield VariantLayer("conv1.6", "stem", second, channels, (3, 3), 1, size, norm=last)
    elif variant.stem == "imagenet":
        yield VariantLayer("conv1", "stem", variant.in_channels, channels, (7, 7), 2, size, norm=last)
    else:
        yield VariantLayer("conv1", "stem", variant.in_channels, channels, (3, 3), 1, size, norm=last)
        return
    if variant.pool == "conv":
        yield VariantLayer("maxpool.0", "stem", channels, channels, (3, 3), 2, _halve(size), norm="maxpool.1")
    elif variant.blur == "binomial":
        yield _blur("maxpool.1", "stem", channels, _halve(size))


def _size_after_stem(variant: Variant) -> tuple[int, int]:
    if variant.stem == "cifar":
        return variant.size
    height, width = _halve(variant.size)
    if variant.blur == "average" and variant.pool == "max":
        return height // 2, width // 2  # the average pooling of the stem leaves out a last odd pixel, as in timm
    return _halve((height, width))


def _block_layers(variant: Variant, plan: BlockPlan, size: tuple[int, int]) -> Iterator[VariantLayer]:
    pre, blurred = variant.order == "pre", variant.blur != "none"
    out_size = _halve(size) if plan.stride == 2 else size
    first, second = block_strides(variant, plan.stride)
    if variant.block == "basic":  # kernels, strides, output sizes and groups of the convolutions
        rows = [(3, first, size if blurred else out_size, 1), (3, second, out_size, 1)]
    else:
        inner = size if blurred else out_size
        rows = [
            (1, first, _halve(size) if first == 2 else size, 1),
            (3, second, inner, variant.groups),
            (1, 1, out_size, 1),
        ]
    inputs = plan.channels
    for number, (outputs, (kernel, step, shape, groups)) in enumerate(zip(plan.outputs, rows, strict=True), start=1):
        conv, norm = f"{plan.name}.conv{number}", f"{plan.name}.bn{number}"
        yield VariantLayer(
            conv, plan.stage, inputs, outputs, (kernel, kernel), step, shape, groups, norm, norm_first=pre
        )
        if number == len(rows) - 1 and plan.stride == 2 and variant.blur == "binomial":
            yield _blur(f"{plan.name}.blur", plan.stage, outputs, out_size)
        inputs = outputs
    yield from _attention_layers(variant, plan)
    if needs_projection(variant, plan.channels, inputs, plan.stride):
        index, step = (1, 1) if variant.down == "avg" else (0, plan.stride)
        norm = "" if pre else f"{plan.name}.downsample.{index + 1}"
        projection = f"{plan.name}.downsample.{index}"
        yield VariantLayer(projection, plan.stage, plan.channels, inputs, (1, 1), step, out_size, norm=norm)


def _attention_layers(variant: Variant, plan: BlockPlan) -> Iterator[VariantLayer]:
    name, channels = f"{plan.name}.se", plan.outputs[-1]
    if variant.attention == "se":
        inner = squeeze_width(variant, channels)
        yield VariantLayer(f"{name}.fc1", plan.stage, channels, inner, (1, 1), 1, (1, 1), bias=True)
        yield VariantLayer(f"{name}.fc2", plan.stage, inner, channels, (1, 1), 1, (1, 1), bias=True)
    elif variant.attention == "eca":
        kernel = attention_kernel(variant, plan.planes)
        yield VariantLayer(f"{name}.conv", plan.stage, 1, 1, (kernel,), 1, (channels,))


def _blur(name: str, stage: str, channels: int, out_size: tuple[int, int]) -> VariantLayer:
    return VariantLayer(name, stage, channels, channels, (3, 3), 2, out_size, groups=channels, learnt=False)


def foldable_norms(variant: Variant) -> dict[str, str]:
    """Return the batch norms that can be folded, and the convolution into which each is folded, by module names.

    In a pre-activation network, a batch norm can be folded if it is the only reader of a convolution. The first batch
    norm of a block reads the sum of the block before.
    """
    if variant.norm != "batch":
        return {}
    if variant.order == "post":
        return {layer.norm: layer.name for layer in layers(variant) if layer.norm}
    folded, before = {}, ""
    for layer in layers(variant):
        if layer.norm and not layer.norm_first:
            folded[layer.norm] = layer.name
        elif layer.norm and layer.norm.rpartition(".")[0] == before.rpartition(".")[0] != "":
            folded[layer.norm] = before
        if layer.norm:
            before = layer.name
    first = next(block_plans(variant))
    if variant.stem == "cifar" and needs_projection(variant, first.channels, first.outputs[-1], first.stride):
        folded[f"{first.name}.bn1"] = "conv1"
    return folded


def parameters(variant: Variant) -> int:
    """Return the number of learnt parameters. The running statistics of batch norms do not count."""
    return sum(layer.parameters for layer in layers(variant))


def multiply_adds(variant: Variant) -> int:
    """Return the number of multiply-adds of the convolutions and the classifier for one image of the variant's size."""
    return sum(layer.multiply_adds for layer in layers(variant))
