"""Tables and JSON of the variants, with the figures of the paper beside those computed here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby

from exporter.document.blocks import Document, Legend, Sentence, Table, TableColumn, TableRow
from exporter.models.variants import EXPANSION, VARIANTS, Variant, VariantLayer, layers, multiply_adds, parameters
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
        parameters: The number of learnt parameters.
        multiply_adds: The number of multiply-adds for one image.
        stages: The stages in the order of the forward pass.
    """

    variant: Variant
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
                shape=_shape(variant, name, members[-1]),
                parameters=sum(layer.parameters for layer in members),
                multiply_adds=sum(layer.multiply_adds for layer in members),
            )
        )
    return CatalogueEntry(variant, parameters(variant), multiply_adds(variant), tuple(stages))


def _number(stage: str) -> int:
    return int(stage.removeprefix("layer")) - 1


def _shape(variant: Variant, stage: str, last: VariantLayer) -> tuple[int, ...]:
    if stage == "head":
        return (variant.classes,)
    if stage == "stem":
        return (variant.widths[0], *last.out_size)
    return (variant.widths[_number(stage)] * EXPANSION[variant.block], *last.out_size)


def _blocks(variant: Variant, stage: str) -> str:
    if stage == "stem":
        return "7x7, 3x3 max pool" if variant.stem == "imagenet" else "3x3"
    if stage == "head":
        return "average pool, linear"
    width = variant.widths[_number(stage)]
    inside = f"3x3 {width}, 3x3 {width}" if variant.block == "basic" else f"1x1 {width}, 3x3 {width}, 1x1 {4 * width}"
    return f"{variant.depths[_number(stage)]} x [{inside}]"


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
    """Return a document with one table row for each variant."""
    texts = ("variant", "block", "blocks", "shortcut")
    numbers = ("input", "params (M)", "paper", "MACs (G)", "paper", "error %")
    columns = (
        *(TableColumn(heading, left=True, unbroken=heading == "variant") for heading in texts),
        *map(TableColumn, numbers),
    )
    rows = []
    for variant in VARIANTS.values():
        row, paper = entry(variant), variant.paper
        cells = (
            variant.name,
            variant.block,
            "-".join(map(str, variant.depths)),
            variant.shortcut if variant.residual else "none",
            _size(variant.size),
            _millions(row.parameters),
            _millions(paper.parameters),
            _billions(row.multiply_adds),
            _billions(paper.multiply_adds),
            "" if paper.top1_error is None else f"{paper.top1_error * 100:.2f}",
        )
        rows.append(TableRow(cells))
    legend = Legend(
        (
            ("MACs", "multiply-adds for one image"),
            ("paper, error", "He et al. 2015, arXiv 1512.03385, Tables 1 to 3 and 6; error is top-1"),
            (
                "stride",
                "in the 3x3 convolution of a bottleneck (v1.5), as in torchvision's published weights; the paper has "
                "it in the first 1x1 convolution (--stride v1)",
            ),
        )
    )
    return Document("rexport list", (Table(columns, tuple(rows)), legend))


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
        f"{variant.name}: {variant.family}, {variant.block} blocks, {shortcut}{stride}, "
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
    blocks = (Sentence(title, "headline"), Table(columns, (*rows, total)), *printed)
    return Document("rexport info", blocks)


def _counts(row: Stage | CatalogueEntry) -> tuple[str, str]:
    return f"{row.parameters:,}", f"{row.multiply_adds:,}"
