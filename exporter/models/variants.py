"""Residual networks as rows of data: those of He et al. 2015 (arXiv 1512.03385) and their later variants.

This module imports no framework. ``exporter.models.layers`` computes shapes, parameters and multiply-adds from rows, so
``rexport list`` answers at once, and tests can compare the PyTorch modules with the same figures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from exporter.models import pruned
from runtimes.errors import UsageError, nearest, quote

Block = Literal["basic", "bottleneck"]
"""The kind of block."""

Stem = Literal["imagenet", "deep", "cifar"]
"""The convolutions before the first block.

A 7x7 convolution (``imagenet``) or three 3x3 convolutions (``deep``, He et al. 2018, arXiv 1812.01187, section 4.2)
halve the image, and a pooling halves it again. A single 3x3 convolution (``cifar``) keeps the size, without pooling.
"""

Pool = Literal["max", "conv"]
"""The layer that halves the image after an ImageNet or deep stem.

It is a 3x3 max pooling, or a 3x3 convolution (Bello et al. 2021, arXiv 2103.07579).
"""

Down = Literal["conv", "avg"]
"""How a projection shortcut halves the image: a strided 1x1 convolution, or a 2x2 average pooling before it.

The average pooling is that of ResNet-D (He et al. 2018, arXiv 1812.01187, section 4.2).
"""

Attention = Literal["none", "se", "eca"]
"""The channel attention at the end of a block's branch.

It is squeeze-and-excitation (``se``, Hu et al. 2017, arXiv 1709.01507) or efficient channel attention (``eca``, Wang et
al. 2019, arXiv 1910.03151).
"""

Blur = Literal["none", "binomial", "average"]
"""The low-pass filter in front of each subsampling (Zhang 2019, arXiv 1904.11486): a 3x3 binomial or a 2x2 average."""

Norm = Literal["batch", "group"]
"""The normalisation: batch norm, or group norm with 32 groups (Wu and He 2018, arXiv 1803.08494)."""

Order = Literal["post", "pre"]
"""Whether normalisation and ReLU follow a convolution or precede it (He et al. 2016, arXiv 1603.05027)."""

Shortcut = Literal["A", "B", "C"]
"""The option for shortcuts between different shapes (He et al. 2015, section 4.1)."""

Stride = Literal["v1", "v1.5"]
"""The convolution of a bottleneck that has the stride: the first 1x1 (``v1``) or the 3x3 (``v1.5``)."""

EXPANSION: dict[Block, int] = {"basic": 1, "bottleneck": 4}
"""The output channels of a block as a multiple of the width of its stage (He et al. 2015, Figure 5)."""

BLUR_SIZE = 17
"""The smallest height and width in pixels of a network with blur. Below, the last blur has a single row to mirror."""


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
        widths: The number of planes in each stage: the channels of the 3x3 convolutions, unless ``groups`` or
            ``base_width`` change it.
        stem: The convolutions before the first block.
        shortcut: The shortcut option. It has no effect on a plain network.
        residual: Whether the network has shortcuts. A plain network has the same layers without them.
        stride: The position of the stride in bottlenecks.
        classes: The number of classes, or 0 for a trunk without a classifier.
        in_channels: The number of input channels.
        size: The (height, width) of the input in pixels.
        paper: The figures in the paper.
        groups: The number of groups of the 3x3 convolutions of bottlenecks (ResNeXt, Xie et al. 2016, arXiv
            1611.05431).
        base_width: The channels of each group for 64 planes.
        stem_widths: The channels of the stem's convolutions: three for a deep stem, else one. If it is empty, the stem
            has the planes of the first stage.
        pool: The layer that halves the image after an ImageNet or deep stem.
        down: How a projection shortcut halves the image.
        attention: The channel attention.
        reduction: The channels divided by the inner channels of squeeze-and-excitation.
        blur: The low-pass filter in front of each subsampling.
        norm: The normalisation.
        order: Whether normalisation and ReLU follow a convolution or precede it.
        final_norm: Whether a pre-activation network ends in a normalisation and a ReLU. It has no effect on the others.
        channels: The output channels of the convolutions of each block, for all blocks in their order. If it is empty,
            they follow from the other options. A pruned network has its own in each block.
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
    groups: int = 1
    base_width: int = 64
    stem_widths: tuple[int, ...] = ()
    pool: Pool = "max"
    down: Down = "conv"
    attention: Attention = "none"
    reduction: int = 16
    blur: Blur = "none"
    norm: Norm = "batch"
    order: Order = "post"
    final_norm: bool = True
    channels: tuple[tuple[int, ...], ...] = ()

    @property
    def features(self) -> int:
        """The number of input features of the classifier."""
        return self.channels[-1][-1] if self.channels else self.widths[-1] * EXPANSION[self.block]

    @property
    def stem_channels(self) -> tuple[int, ...]:
        """The channels of the stem's convolutions."""
        return self.stem_widths or (self.widths[0],)

    @property
    def title(self) -> str:
        """The name of the network in sentences: ``ResNet-20`` for the paper's networks, else the name itself."""
        match = re.fullmatch(r"(resnet|plain)(\d+)", self.name)
        return f"{'ResNet' if self.residual else 'Plain'}-{match[2]}" if match else self.name

    @property
    def paper_word(self) -> str:
        """The word of He et al. 2015 for the network: ``residual`` or ``plain``."""
        return "residual" if self.residual else "plain"


def kind(variant: Variant) -> Variant:
    """Return what variants have in common that differ in depth alone.

    Name, depths, figures of the paper, shortcuts, stride, and the sizes of input and output are neutral in the result.
    """
    return replace(
        variant,
        name="",
        depths=(),
        shortcut="B",
        residual=True,
        stride="v1.5",
        classes=1,
        in_channels=1,
        size=(1, 1),
        paper=Paper(),
    )


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


def _base(block: Block, *depths: int) -> Variant:
    return Variant("", block, depths, (64, 128, 256, 512), "imagenet", "B")


_10, _18, _34 = _base("basic", 1, 1, 1, 1), _base("basic", 2, 2, 2, 2), _base("basic", 3, 4, 6, 3)
_14, _26, _50 = _base("bottleneck", 1, 1, 1, 1), _base("bottleneck", 2, 2, 2, 2), _base("bottleneck", 3, 4, 6, 3)
_101, _152, _200 = (_base("bottleneck", 3, *middle, 3) for middle in ((4, 23), (8, 36), (24, 36)))
_LIGHT = replace(_50, depths=(1, 1, 11, 3))


def _deep(base: Variant, name: str, *stem: int) -> Variant:
    """Return a network with a deep stem and average pooling in its shortcuts: timm's D and T."""
    return replace(base, name=name, stem="deep", stem_widths=stem, down="avg")


def _pruned(base: Variant, name: str, channels: tuple[tuple[int, ...], ...]) -> Variant:
    return replace(_deep(base, name, 32, 32, 64), attention="eca", channels=channels)


def _rs(base: Variant, name: str) -> Variant:
    return replace(_deep(base, name, 32, 32, 64), pool="conv", attention="se", reduction=4)


def _small(base: Variant, name: str) -> Variant:
    return replace(base, name=name, stem="cifar", classes=10, size=(32, 32))


def _wrn(name: str, depth: int, factor: int) -> Variant:
    blocks = (depth - 4) // 6
    widths = (16 * factor, 32 * factor, 64 * factor)
    base = Variant(name, "basic", (blocks, blocks, blocks), widths, "cifar", "B", classes=10, size=(32, 32))
    return replace(base, stem_widths=(16,), order="pre")


FAMILIES: dict[str, tuple[Variant, ...]] = {
    "ResNet": (  # He et al. 2015, arXiv 1512.03385; resnet26 is timm's
        _imagenet("resnet18", "basic", (2, 2, 2, 2), 1.8e9, 0.2788),
        _imagenet("resnet34", "basic", (3, 4, 6, 3), 3.6e9, 0.2452),
        _imagenet("resnet50", "bottleneck", (3, 4, 6, 3), 3.8e9, 0.2285),
        _imagenet("resnet101", "bottleneck", (3, 4, 23, 3), 7.6e9, 0.2175),
        _imagenet("resnet152", "bottleneck", (3, 8, 36, 3), 11.3e9, 0.2143),
        replace(_26, name="resnet26"),
    ),
    "Plain": (
        _imagenet("plain18", "basic", (2, 2, 2, 2), 1.8e9, 0.2794, residual=False),
        _imagenet("plain34", "basic", (3, 4, 6, 3), 3.6e9, 0.2854, residual=False),
    ),
    "ResNet, CIFAR": (
        _cifar("resnet20", 20, 0.27e6, 0.0875),
        _cifar("resnet32", 32, 0.46e6, 0.0751),
        _cifar("resnet44", 44, 0.66e6, 0.0717),
        _cifar("resnet56", 56, 0.85e6, 0.0697),
        _cifar("resnet110", 110, 1.7e6, 0.0643),
        _cifar("resnet1202", 1202, 19.4e6, 0.0793),
    ),
    "Plain, CIFAR": (
        _cifar("plain20", 20, None, None, residual=False),
        _cifar("plain32", 32, None, None, residual=False),
        _cifar("plain44", 44, None, None, residual=False),
        _cifar("plain56", 56, None, None, residual=False),
        _cifar("plain110", 110, None, None, residual=False),
    ),
    "ResNeXt": (  # Xie et al. 2016, arXiv 1611.05431
        replace(_50, name="resnext50_32x4d", groups=32, base_width=4),
        replace(_101, name="resnext101_32x8d", groups=32, base_width=8),
        replace(_101, name="resnext101_64x4d", groups=64, base_width=4),
    ),
    "Wide ResNet": (  # Zagoruyko and Komodakis 2016, arXiv 1605.07146
        replace(_50, name="wide_resnet50_2", base_width=128),
        replace(_101, name="wide_resnet101_2", base_width=128),
    ),
    "ResNet-D": (  # He et al. 2018, arXiv 1812.01187
        _deep(_18, "resnet18d", 32, 32, 64),
        _deep(_26, "resnet26d", 32, 32, 64),
        _deep(_34, "resnet34d", 32, 32, 64),
        _deep(_50, "resnet50d", 32, 32, 64),
        _deep(_101, "resnet101d", 32, 32, 64),
        _deep(_152, "resnet152d", 32, 32, 64),
        _deep(_200, "resnet200d", 32, 32, 64),
    ),
    "ResNet-T": (  # as D, with the tiered stem of timm
        _deep(_10, "resnet10t", 24, 32, 64),
        _deep(_14, "resnet14t", 24, 32, 64),
        _deep(_26, "resnet26t", 24, 32, 64),
    ),
    "SE-ResNet": (  # Hu et al. 2017, arXiv 1709.01507
        replace(_50, name="seresnet50", attention="se"),
        replace(_50, name="seresnext50_32x4d", groups=32, base_width=4, attention="se"),
    ),
    "ECA-ResNet": (  # Wang et al. 2019, arXiv 1910.03151
        replace(_deep(_50, "ecaresnet50d", 32, 32, 64), attention="eca"),
        replace(_deep(_50, "ecaresnet50t", 24, 32, 64), attention="eca"),
        replace(_LIGHT, name="ecaresnetlight", down="avg", attention="eca"),
    ),
    "Pruned": (  # Aflalo et al. 2020, arXiv 2002.08258
        _pruned(_50, "ecaresnet50d_pruned", pruned.ECARESNET50D),
        _pruned(_101, "ecaresnet101d_pruned", pruned.ECARESNET101D),
    ),
    "ResNet-RS": (  # Bello et al. 2021, arXiv 2103.07579
        _rs(_50, "resnetrs50"),
        _rs(_101, "resnetrs101"),
        _rs(_152, "resnetrs152"),
        _rs(_200, "resnetrs200"),
    ),
    "Anti-aliased": (  # Zhang 2019, arXiv 1904.11486
        replace(_50, name="resnetaa50", blur="average"),
        replace(_deep(_50, "resnetaa50d", 32, 32, 64), blur="average"),
        replace(_50, name="resnetblur50", blur="binomial"),
    ),
    "Group norm": (replace(_50, name="resnet50_gn", norm="group"),),  # Wu and He 2018, arXiv 1803.08494
    "Pre-activation": (  # He et al. 2016, arXiv 1603.05027
        replace(_18, name="resnetv2_18", order="pre"),
        replace(_34, name="resnetv2_34", order="pre"),
        replace(_50, name="resnetv2_50", order="pre"),
        replace(_101, name="resnetv2_101", order="pre"),
        replace(_152, name="resnetv2_152", order="pre"),
    ),
    "pytorch-cifar": (  # ImageNet's stages behind a CIFAR stem, as in kuangliu/pytorch-cifar
        _small(_18, "cifar-resnet18"),
        _small(_34, "cifar-resnet34"),
        _small(_50, "cifar-resnet50"),
        _small(_101, "cifar-resnet101"),
        _small(_152, "cifar-resnet152"),
        replace(_small(_18, "preact-resnet18"), order="pre", final_norm=False),
    ),
    "Wide ResNet, CIFAR": (  # Zagoruyko and Komodakis 2016, arXiv 1605.07146
        _wrn("wrn-16-8", 16, 8),
        _wrn("wrn-28-10", 28, 10),
        _wrn("wrn-40-2", 40, 2),
    ),
}
"""All variants by family, in the order of ``rexport list``."""

FAMILY_OF: dict[str, str] = {row.name: family for family, rows in FAMILIES.items() for row in rows}
"""The family of each variant by the variant's name."""

VARIANTS: dict[str, Variant] = {row.name: row for rows in FAMILIES.values() for row in rows}
"""All variants by name."""

_SPELLINGS = {re.sub("[-_]", "", name): name for name in VARIANTS}
"""The names of all variants by their letters and digits."""


def variant(name: str) -> Variant:
    """Return the variant with this name. Case, hyphens and underscores do not matter.

    Raises:
        UsageError: The name is unknown. The hint is the most similar name, or the command that lists all.
    """
    typed = name.lower()
    row = VARIANTS.get(typed) or VARIANTS.get(_SPELLINGS.get(re.sub("[-_]", "", typed), ""))
    if row is None:
        # timm's names end in the recipe of the weights, and begin with the owner on the hub: timm/resnet50.a1_in1k.
        typed = typed.rpartition("/")[2].partition(".")[0]
        longer = [known for known in VARIANTS if typed and known.startswith(f"{typed}_")]
        meant = longer[0] if longer else nearest(typed, VARIANTS)
        hint = f"did you mean {meant}?" if meant else "rexport list shows all variants"
        raise UsageError(f"unknown variant {quote(name)!r}", code="variant-unknown", hint=hint)
    return row


def assume_size(usual: tuple[int, int], resized: int | None) -> tuple[int, int]:
    """Return the size of the input where nobody says it: the usual one, or that of smaller images.

    A network of 224 x 224 pixels may crop images of 256 pixels, but those of 64 pixels would have a black margin.

    Args:
        usual: The usual (height, width) in pixels.
        resized: The height and width of square images after resizing and padding, or ``None`` if unknown.
    """
    return usual if resized is None or resized >= min(usual) else (resized, resized)


def customise(
    row: Variant,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    size: tuple[int, int] | None = None,
    stride: Stride | None = None,
    shortcut: Shortcut | None = None,
    resized: int | None = None,
) -> Variant:
    """Return a copy of a variant with some options replaced. ``None`` keeps the value of the variant.

    Args:
        row: The variant.
        classes: The number of classes.
        in_channels: The number of input channels.
        size: The (height, width) of the input in pixels.
        stride: The position of the stride in bottlenecks.
        shortcut: The shortcut option.
        resized: As for ``assume_size``, if there is no ``size``.

    Raises:
        UsageError: A number is below 1, a plain network is given a shortcut option, or a network of basic blocks is
            given stride ``v1``; or the network blurs and is given stride ``v1`` or too few pixels; or a pre-activation
            network is given shortcut A.
    """
    changed = replace(
        row,
        classes=row.classes if classes is None else classes,
        in_channels=row.in_channels if in_channels is None else in_channels,
        size=assume_size(row.size, resized) if size is None else size,
        stride=row.stride if stride is None else stride,
        shortcut=row.shortcut if shortcut is None else shortcut,
    )
    for name, value in (
        ("classes", 1 if classes is None else classes),
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
    if stride == "v1" and row.blur != "none":
        raise UsageError(
            f"{row.name} has its stride in the blur after the 3x3 convolution, so it takes no stride option",
            code="stride-in-blur",
            hint="omit --stride",
        )
    if changed.order == "pre" and changed.shortcut == "A":
        raise UsageError(
            f"{row.name} projects the activations of a block, so its shortcuts are B or C",
            code="preactivation-projects",
            hint="omit --shortcut",
        )
    if changed.blur != "none" and min(changed.size) < BLUR_SIZE:
        raise UsageError(
            f"{row.name} needs at least {BLUR_SIZE} x {BLUR_SIZE} pixels, because it blurs before each subsampling",
            code="size-below-blur",
        )
    return changed
