"""The residual networks of He et al. 2015 (arXiv 1512.03385) as rows of data.

Nothing here imports a framework: shapes, parameters and multiply-adds follow from the row by arithmetic, so that
``rexport list`` answers at once and the tests can hold the PyTorch modules to the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from runtimes.errors import UsageError, quote, suggest

Block = Literal["basic", "bottleneck"]
Stem = Literal["imagenet", "cifar"]
Shortcut = Literal["A", "B", "C"]
Stride = Literal["v1", "v1.5"]

EXPANSION: dict[Block, int] = {"basic": 1, "bottleneck": 4}
"""Output channels of a block as a multiple of its stage's width (He et al. 2015, Figure 5)."""


@dataclass(frozen=True)
class Paper:
    """What the paper prints for a variant; ``None`` where it prints nothing.

    ``multiply_adds`` is Table 1's "FLOPs" row (the paper counts a multiply-add once), ``parameters`` is Table 6's
    column, ``top1_error`` is a fraction with the table that it stands in under ``error_source``.
    """

    multiply_adds: float | None = None
    parameters: float | None = None
    top1_error: float | None = None
    error_source: str | None = None


@dataclass(frozen=True)
class Variant:
    """One network: everything that decides its layers, and nothing else.

    ``widths`` holds the 3x3 convolutions' channels of each stage, ``depths`` the number of blocks, ``size`` the input
    as (height, width) in pixels. ``residual=False`` is the plain twin: the same layers without any shortcut.
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
        """Channels that the classifier sees."""
        return self.widths[-1] * EXPANSION[self.block]

    @property
    def title(self) -> str:
        """The network's name in sentences, as ``ResNet-20``."""
        layers = "".join(filter(str.isdigit, self.name))
        return f"{'ResNet' if self.residual else 'Plain'}-{layers}"

    @property
    def family(self) -> str:
        """``residual`` or ``plain``, the paper's own words."""
        return "residual" if self.residual else "plain"


@dataclass(frozen=True)
class VariantLayer:
    """A convolution (square kernel) or the classifier (``kernel == 0``) of a variant, with its output's shape.

    ``name`` is the module's name in the PyTorch network.
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
        """For one image; a multiplication and its addition count once, as in the paper."""
        area = self.kernel * self.kernel if self.kernel else 1
        return self.in_channels * self.out_channels * area * self.out_size[0] * self.out_size[1]

    @property
    def parameters(self) -> int:
        """Weights, plus the batch-norm's scale and shift of a convolution or the classifier's bias."""
        if self.kernel:
            return self.in_channels * self.out_channels * self.kernel**2 + 2 * self.out_channels
        return self.in_channels * self.out_channels + self.out_channels


def _halve(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def block_strides(variant: Variant, stage_stride: int) -> tuple[int, int]:
    """Strides of a block's first and second convolution when the block as a whole strides by ``stage_stride``.

    Basic blocks stride in their first 3x3. Bottlenecks stride in the first 1x1 (``v1``, He et al. 2015, section 4.1)
    or in the 3x3 (``v1.5``, what torchvision's published weights were trained with).
    """
    if variant.block == "basic" or variant.stride == "v1":
        return stage_stride, 1
    return 1, stage_stride


def needs_projection(variant: Variant, channels: int, out_channels: int, stride: int) -> bool:
    """Whether a block's shortcut is a learnt 1x1 convolution (He et al. 2015, section 4.1, options A, B and C)."""
    if not variant.residual or variant.shortcut == "A":
        return False
    return variant.shortcut == "C" or stride != 1 or channels != out_channels


def layers(variant: Variant) -> Iterator[VariantLayer]:
    """Every layer that holds weights, in the order of the forward pass, at the variant's own input size."""
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
    """Learnt numbers; batch-norm's running statistics are not among them."""
    return sum(layer.parameters for layer in layers(variant))


def multiply_adds(variant: Variant) -> int:
    """Multiply-adds of the convolutions and the classifier for one image of the variant's size."""
    return sum(layer.multiply_adds for layer in layers(variant))


def _imagenet(
    name: str, block: Block, depths: tuple[int, ...], mult_adds: float, error: float | None, residual: bool = True
) -> Variant:
    # Error: the paper's single-model top-1 at 10-crop testing, Table 3 (34 with option B) and Table 2 (18 and plain).
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


def variant(name: str) -> Variant:
    """The row of that name, in upper or lower case.

    Raises:
        UsageError: there is none; the message suggests the nearest name, or lists all.
    """
    row = VARIANTS.get(name.lower())
    if row is None:
        raise UsageError(f"no variant {quote(name)!r}", code="variant-unknown", hint=suggest(name, VARIANTS))
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
    """The row with what is not ``None`` put in its place.

    Raises:
        UsageError: a count below one, a size below what the strides leave of an image, or a shortcut option for a
            plain net, which has none.
    """
    changed = replace(
        row,
        classes=row.classes if classes is None else classes,
        in_channels=row.in_channels if in_channels is None else in_channels,
        size=row.size if size is None else size,
        stride=row.stride if stride is None else stride,
        shortcut=row.shortcut if shortcut is None else shortcut,
    )
    for what, value in (
        ("classes", changed.classes),
        ("input channels", changed.in_channels),
        *zip(("height", "width"), changed.size, strict=True),
    ):
        if value < 1:
            raise UsageError(f"{what} must be at least 1, not {value}", code="dimension-below-one")
    if shortcut is not None and not row.residual:
        raise UsageError(
            f"{row.name} is a plain net: it has no shortcut to choose an option for", code="plain-has-no-shortcut"
        )
    if stride == "v1" and row.block == "basic":
        raise UsageError(
            f"{row.name} has basic blocks: stride v1 and v1.5 differ in bottlenecks alone",
            code="stride-needs-bottlenecks",
        )
    return changed
