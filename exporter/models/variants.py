"""The residual networks of He et al. 2015 (arXiv 1512.03385) as rows of data.

This module imports no framework. Shapes, parameters and multiply-adds are computed from the rows, so ``rexport list``
answers at once and tests can compare the PyTorch modules with the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from runtimes.errors import UsageError, quote, suggest

Block = Literal["basic", "bottleneck"]
"""The kind of block."""

Stem = Literal["imagenet", "cifar"]
"""The layers before the first block: a 7x7 convolution with max pooling, or a 3x3 convolution."""

Shortcut = Literal["A", "B", "C"]
"""The option for shortcuts between different shapes (He et al. 2015, section 4.1)."""

Stride = Literal["v1", "v1.5"]
"""The convolution of a bottleneck that has the stride: the first 1x1 (``v1``) or the 3x3 (``v1.5``)."""

EXPANSION: dict[Block, int] = {"basic": 1, "bottleneck": 4}
"""The output channels of a block as a multiple of the width of its stage (He et al. 2015, Figure 5)."""


@dataclass(frozen=True)
class Paper:
    """The figures of a variant in the paper. ``None`` means that the paper does not give the figure.

    Attributes:
        multiply_adds: The row "FLOPs" of Table 1. The paper counts a multiply-add as one operation.
        parameters: The column of Table 6.
        top1_error: The top-1 error, 0 to 1.
        error_source: The table of the top-1 error.
    """

    multiply_adds: float | None = None
    parameters: float | None = None
    top1_error: float | None = None
    error_source: str | None = None


@dataclass(frozen=True)
class Variant:
    """A network: all options that determine its layers.

    Attributes:
        name: The name of the variant, for example ``resnet50``.
        block: The kind of block.
        depths: The number of blocks in each stage.
        widths: The number of channels of the 3x3 convolutions in each stage.
        stem: The layers before the first block.
        shortcut: The shortcut option. It has no effect on a plain network.
        residual: Whether the network has shortcuts. A plain network has the same layers without them.
        stride: The position of the stride in bottlenecks.
        classes: The number of classes.
        in_channels: The number of input channels.
        size: The (height, width) of the input in pixels.
        paper: The figures in the paper.
    """

    name: str
    block: Block
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: Stem
    shortcut: Shortcut
    residual: bool = True
    stride: Stride = "v1.5"
    classes: int = 1000
    in_channels: int = 3
    size: tuple[int, int] = (224, 224)
    paper: Paper = Paper()

    @property
    def features(self) -> int:
        """The number of input features of the classifier."""
        return self.widths[-1] * EXPANSION[self.block]

    @property
    def title(self) -> str:
        """The name of the network in sentences, for example ``ResNet-20``."""
        layers = "".join(filter(str.isdigit, self.name))
        return f"{'ResNet' if self.residual else 'Plain'}-{layers}"

    @property
    def family(self) -> str:
        """The paper's word for the network: ``residual`` or ``plain``."""
        return "residual" if self.residual else "plain"


@dataclass(frozen=True)
class VariantLayer:
    """A convolution or the classifier of a variant.

    Attributes:
        name: The name of the module in the PyTorch network.
        stage: The stage that contains the layer.
        in_channels: The number of input channels.
        out_channels: The number of output channels.
        kernel: The height and width of the kernel, or 0 for the classifier.
        stride: The stride.
        out_size: The (height, width) of the output.
    """

    name: str
    stage: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    out_size: tuple[int, int]

    @property
    def multiply_adds(self) -> int:
        """The number of multiply-adds for one image.

        A multiplication with its addition counts once, as in the paper.
        """
        area = self.kernel * self.kernel if self.kernel else 1
        return self.in_channels * self.out_channels * area * self.out_size[0] * self.out_size[1]

    @property
    def parameters(self) -> int:
        """The number of weights, plus the scale and shift of the batch norm or the bias of the classifier."""
        if self.kernel:
            return self.in_channels * self.out_channels * self.kernel**2 + 2 * self.out_channels
        return self.in_channels * self.out_channels + self.out_channels


def _halve(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def block_strides(variant: Variant, stage_stride: int) -> tuple[int, int]:
    """Return the strides of the first and second convolution in a block.

    A basic block has its stride in the first 3x3 convolution. A bottleneck has it in the first 1x1 convolution (``v1``,
    He et al. 2015, section 4.1) or in the 3x3 convolution (``v1.5``, as in torchvision's published weights).

    Args:
        variant: The variant of the block.
        stage_stride: The stride of the whole block.
    """
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


def layers(variant: Variant) -> Iterator[VariantLayer]:
    """Yield all layers with weights in the order of the forward pass, for the input size of the variant."""
    size = variant.size
    channels = variant.widths[0]
    if variant.stem == "imagenet":
        size = _halve(size)
        yield VariantLayer("conv1", "stem", variant.in_channels, channels, 7, 2, size)
        size = _halve(size)
    else:
        yield VariantLayer("conv1", "stem", variant.in_channels, channels, 3, 1, size)
    for number, (depth, width) in enumerate(zip(variant.depths, variant.widths, strict=True), start=1):
        stage = f"layer{number}"
        for index in range(depth):
            stride = 2 if number > 1 and index == 0 else 1
            out_channels = width * EXPANSION[variant.block]
            out_size = _halve(size) if stride == 2 else size
            name = f"{stage}.{index}"
            first, second = block_strides(variant, stride)
            if variant.block == "basic":
                yield VariantLayer(f"{name}.conv1", stage, channels, width, 3, first, out_size)
                yield VariantLayer(f"{name}.conv2", stage, width, width, 3, second, out_size)
            else:
                inner = out_size if first == 2 else size
                yield VariantLayer(f"{name}.conv1", stage, channels, width, 1, first, inner)
                yield VariantLayer(f"{name}.conv2", stage, width, width, 3, second, out_size)
                yield VariantLayer(f"{name}.conv3", stage, width, out_channels, 1, 1, out_size)
            if needs_projection(variant, channels, out_channels, stride):
                yield VariantLayer(f"{name}.downsample.0", stage, channels, out_channels, 1, stride, out_size)
            channels, size = out_channels, out_size
    yield VariantLayer("fc", "head", variant.features, variant.classes, 0, 1, (1, 1))


def parameters(variant: Variant) -> int:
    """Return the number of learnt parameters. The running statistics of batch norms do not count."""
    return sum(layer.parameters for layer in layers(variant))


def multiply_adds(variant: Variant) -> int:
    """Return the number of multiply-adds of the convolutions and the classifier for one image of the variant's size."""
    return sum(layer.multiply_adds for layer in layers(variant))


def _imagenet(
    name: str, block: Block, depths: tuple[int, ...], mult_adds: float, error: float | None, residual: bool = True
) -> Variant:
    # The error is the paper's top-1 error of one model with 10 crops: Table 3 (34 with option B) or 2 (18 and plain).
    source = ("Table 3" if depths != (2, 2, 2, 2) and residual else "Table 2") + ", 10-crop" if error else None
    paper = Paper(multiply_adds=mult_adds, top1_error=error, error_source=source)
    return Variant(name, block, depths, (64, 128, 256, 512), "imagenet", "B", residual, paper=paper)


def _cifar(name: str, depth: int, params: float | None, error: float | None, residual: bool = True) -> Variant:
    blocks = (depth - 2) // 6
    paper = Paper(parameters=params, top1_error=error, error_source="Table 6, CIFAR-10" if error else None)
    return Variant(
        name,
        "basic",
        (blocks, blocks, blocks),
        (16, 32, 64),
        "cifar",
        "A",
        residual,
        classes=10,
        size=(32, 32),
        paper=paper,
    )


VARIANTS: dict[str, Variant] = {
    row.name: row
    for row in (
        _imagenet("resnet18", "basic", (2, 2, 2, 2), 1.8e9, 0.2788),
        _imagenet("resnet34", "basic", (3, 4, 6, 3), 3.6e9, 0.2452),
        _imagenet("resnet50", "bottleneck", (3, 4, 6, 3), 3.8e9, 0.2285),
        _imagenet("resnet101", "bottleneck", (3, 4, 23, 3), 7.6e9, 0.2175),
        _imagenet("resnet152", "bottleneck", (3, 8, 36, 3), 11.3e9, 0.2143),
        _imagenet("plain18", "basic", (2, 2, 2, 2), 1.8e9, 0.2794, residual=False),
        _imagenet("plain34", "basic", (3, 4, 6, 3), 3.6e9, 0.2854, residual=False),
        _cifar("resnet20", 20, 0.27e6, 0.0875),
        _cifar("resnet32", 32, 0.46e6, 0.0751),
        _cifar("resnet44", 44, 0.66e6, 0.0717),
        _cifar("resnet56", 56, 0.85e6, 0.0697),
        _cifar("resnet110", 110, 1.7e6, 0.0643),
        _cifar("resnet1202", 1202, 19.4e6, 0.0793),
        _cifar("plain20", 20, None, None, residual=False),
        _cifar("plain32", 32, None, None, residual=False),
        _cifar("plain44", 44, None, None, residual=False),
        _cifar("plain56", 56, None, None, residual=False),
        _cifar("plain110", 110, None, None, residual=False),
    )
}
"""All variants by name."""


def variant(name: str) -> Variant:
    """Return the variant with this name. Case does not matter.

    Raises:
        UsageError: The name is unknown. The hint is the most similar name, or lists all names.
    """
    row = VARIANTS.get(name.lower())
    if row is None:
        raise UsageError(f"unknown variant {quote(name)!r}", code="variant-unknown", hint=suggest(name, VARIANTS))
    return row


def customise(
    row: Variant,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    size: tuple[int, int] | None = None,
    stride: Stride | None = None,
    shortcut: Shortcut | None = None,
) -> Variant:
    """Return a copy of a variant with some options replaced. ``None`` keeps the value of the variant.

    Args:
        row: The variant.
        classes: The number of classes.
        in_channels: The number of input channels.
        size: The (height, width) of the input in pixels.
        stride: The position of the stride in bottlenecks.
        shortcut: The shortcut option.

    Raises:
        UsageError: A number is below 1, a plain network is given a shortcut option, or a network of basic blocks is
            given stride ``v1``.
    """
    changed = replace(
        row,
        classes=row.classes if classes is None else classes,
        in_channels=row.in_channels if in_channels is None else in_channels,
        size=row.size if size is None else size,
        stride=row.stride if stride is None else stride,
        shortcut=row.shortcut if shortcut is None else shortcut,
    )
    for name, value in (
        ("classes", changed.classes),
        ("input channels", changed.in_channels),
        *zip(("height", "width"), changed.size, strict=True),
    ):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}", code="dimension-below-one")
    if shortcut is not None and not row.residual:
        raise UsageError(
            f"{row.name} is a plain network and has no shortcuts, so it takes no shortcut option",
            code="plain-has-no-shortcut",
            hint="omit --shortcut",
        )
    if stride == "v1" and row.block == "basic":
        raise UsageError(
            f"{row.name} has basic blocks, and strides v1 and v1.5 differ only in bottlenecks",
            code="stride-needs-bottlenecks",
            hint="omit --stride",
        )
    return changed
