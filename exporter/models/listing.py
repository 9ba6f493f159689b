"""Tables and JSON of the variants, with the figures of the paper beside those computed here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from exporter.document.blocks import Document, Legend, Sentence, Table, TableColumn, TableRow
from exporter.models.layers import VariantLayer, block_plans, layers, multiply_adds, parameters
from exporter.models.variants import FAMILIES, FAMILY_OF, VARIANTS, Variant
from runtimes import codec


@dataclass(frozen=True)
class Stage:
    """A stage of a variant: a row of Table 1 in the paper.

    Attributes:
        name: The name of the stage: ``stem``, ``layer1`` to ``layer4``, or ``head``.
        blocks: A description of the layers.
        shape: The shape of the output: (channels, height, width), or (classes,) for the head.
        parameters: The number of learnt parameters.
        multiply_adds: The number of multiply-adds for one image.
    """

    name: str
    blocks: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class CatalogueEntry:
    """A variant with the figures that follow from it.

    Attributes:
        variant: The variant.
        family: The family of the variant in ``rexport list``.
        parameters: The number of learnt parameters.
        multiply_adds: The number of multiply-adds for one image.
        stages: The stages in the order of the forward pass.
    """

    variant: Variant
    family: str
    parameters: int
    multiply_adds: int
    stages: tuple[Stage, ...]


def entry(variant: Variant) -> CatalogueEntry:
    """Return the variant with its stages, whose figures are sums over layers."""
    stages = []
    for name, group in groupby(layers(variant), key=lambda layer: layer.stage):
        members = list(group)
        stages.append(
            Stage(
                name=name,
                blocks=_blocks(variant, name),
                shape=_shape(variant, name, members),
                parameters=sum(layer.parameters for layer in members),
                multiply_adds=sum(layer.multiply_adds for layer in members),
            )
        )
    family = FAMILY_OF[variant.name]
    return CatalogueEntry(variant, family, parameters(variant), multiply_adds(variant), tuple(stages))


def _shape(variant: Variant, stage: str, members: Sequence[VariantLayer]) -> tuple[int, ...]:
    if stage == "head":
        return (variant.classes,)
    if stage == "stem":
        return (members[-1].out_channels, *members[-1].out_size)
    last = [layer for layer in members if re.search(r"\.conv\d$", layer.name)][-1]
    return (last.out_channels, *last.out_size)


def _blocks(variant: Variant, stage: str) -> str:
    if stage == "stem":
        return _stem(variant)
    if stage == "head":
        return "average pool, linear"
    blocks = [plan.outputs for plan in block_plans(variant) if plan.stage == stage]
    kernels = ("3x3", "3x3") if variant.block == "basic" else ("1x1", "3x3", "1x1")
    groups = f" in {variant.groups} groups" if variant.groups > 1 else ""
    parts = []
    for position, (kernel, outputs) in enumerate(zip(kernels, zip(*blocks, strict=True), strict=True)):
        least, most = min(outputs), max(outputs)  # the blocks of a pruned network differ
        width = str(least) if least == most else f"{least}-{most}"
        parts.append(f"{kernel} {width}{groups if position == 1 else ''}")
    attention = {"none": (), "se": ("SE",), "eca": ("ECA",)}[variant.attention]
    return f"{len(blocks)} x [{', '.join((*parts, *attention))}]"


def _stem(variant: Variant) -> str:
    if variant.stem == "cifar":
        return "3x3" if not variant.stem_widths else f"3x3 {variant.stem_widths[0]}"
    convolutions = [f"3x3 {width}" for width in variant.stem_channels] if variant.stem == "deep" else ["7x7"]
    pools = {"none": "3x3 max pool", "average": "2x2 average pool", "binomial": "3x3 max pool, blur"}
    pool = "3x3 convolution" if variant.pool == "conv" else pools[variant.blur]
    return ", ".join((*convolutions, pool))


def _options(variant: Variant) -> tuple[str, ...]:
    """Return the options that distinguish the network from those of He et al. 2015, in words."""
    texts = (
        (variant.groups > 1, f"{variant.groups} groups of {variant.base_width} channels for 64 planes"),
        (variant.groups == 1 and variant.base_width != 64, f"{variant.base_width} channels for 64 planes"),
        (variant.stem == "deep", "a stem of three 3x3 convolutions"),
        (variant.pool == "conv", "a convolution in place of the max pooling"),
        (variant.down == "avg", "average pooling in the shortcuts"),
        (variant.attention == "se", f"squeeze-and-excitation with reduction {variant.reduction}"),
        (variant.attention == "eca", "efficient channel attention"),
        (variant.blur == "average", "average pooling for subsampling"),
        (variant.blur == "binomial", "a binomial filter before subsampling"),
        (variant.norm == "group", "group norm with 32 groups"),
        (bool(variant.channels), "pruned channels"),
        (variant.order == "pre", "norm and ReLU before each convolution"),
        (variant.order == "pre" and not variant.final_norm, "no norm before the average pooling"),
    )
    return tuple(text for applies, text in texts if applies)


def all_as_json() -> str:
    """Return a JSON array with all variants, without stages."""
    rows = []
    for variant in VARIANTS.values():
        row = codec.encode(entry(variant))
        del row["stages"]
        rows.append(row)
    return json.dumps(rows, indent=2)


def one_as_json(variant: Variant) -> str:
    """Return a JSON object with one variant and its stages."""
    return codec.dumps(entry(variant), indent=2)


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _millions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


def _billions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e9:.2f}"


def catalogue_document() -> Document:
    """Return a document with one table row for each variant, under headings of their families."""
    texts = ("variant", "block", "blocks")
    numbers = ("input", "params (M)", "paper", "MACs (G)", "paper", "error %")
    columns = (
        *(TableColumn(heading, left=True, unbroken=heading == "variant") for heading in texts),
        *map(TableColumn, numbers),
    )
    rows = []
    for family, variants in FAMILIES.items():
        rows.append(TableRow((family, *[""] * (len(columns) - 1)), state="strong"))
        rows.extend(TableRow(_cells(variant)) for variant in variants)
    legend = Legend(
        (
            ("MACs", "multiply-adds for one image"),
            ("paper, error", "He et al. 2015, arXiv 1512.03385, Tables 1 to 3 and 6; error is top-1"),
            (
                "stride",
                "in the 3x3 convolution of a bottleneck (v1.5), as in torchvision's published weights; the paper has "
                "it in the first 1x1 convolution (--stride v1)",
            ),
            ("", "rexport info VARIANT shows the layers and options of a network."),
        )
    )
    return Document("rexport list", (Table(columns, tuple(rows)), legend))


def _cells(variant: Variant) -> tuple[str, ...]:
    paper = variant.paper
    return (
        variant.name,
        variant.block,
        "-".join(map(str, variant.depths)),
        _size(variant.size),
        _millions(parameters(variant)),
        _millions(paper.parameters),
        _billions(multiply_adds(variant)),
        _billions(paper.multiply_adds),
        "" if paper.top1_error is None else f"{paper.top1_error * 100:.2f}",
    )


def variant_document(variant: Variant) -> Document:
    """Return a document with one table row for each stage of the variant."""
    row, paper = entry(variant), variant.paper
    columns = (
        *(TableColumn(heading, left=True, unbroken=heading == "stage") for heading in ("stage", "layers")),
        *map(TableColumn, ("output", "parameters", "multiply-adds")),
    )
    rows = [
        TableRow((stage.name, stage.blocks, "x".join(map(str, stage.shape)), *_counts(stage))) for stage in row.stages
    ]
    total = TableRow(("total", "", "", *_counts(row)), state="total")
    shortcut = f"shortcut {variant.shortcut}" if variant.residual else "no shortcuts"
    stride = f", stride {variant.stride}" if variant.block == "bottleneck" else ""
    title = (
        f"{variant.name}: {row.family}, {variant.block} blocks, {shortcut}{stride}, "
        f"input {variant.in_channels}x{_size(variant.size)}, {variant.classes} classes"
    )
    figures = [
        text
        for value, text in (
            (paper.parameters, f"{_millions(paper.parameters)} M parameters"),
            (paper.multiply_adds, f"{_billions(paper.multiply_adds)} G multiply-adds (Table 1)"),
            (paper.top1_error, f"{100 * (paper.top1_error or 0):.2f} % top-1 error ({paper.error_source})"),
        )
        if value is not None
    ]
    printed = [Sentence(f"paper: {', '.join(figures)}")] if figures else []
    options = [Sentence(f"options: {'; '.join(_options(variant))}")] if _options(variant) else []
    blocks = (Sentence(title, "headline"), *options, Table(columns, (*rows, total)), *printed)
    return Document("rexport info", blocks)


def _counts(row: Stage | CatalogueEntry) -> tuple[str, str]:
    return f"{row.parameters:,}", f"{row.multiply_adds:,}"
