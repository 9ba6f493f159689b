"""The variants as people read them: tables and JSON with the paper's figures beside ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby

from exporter.document.blocks import Document, Legend, Sentence, Table, TableColumn, TableRow
from exporter.models.variants import EXPANSION, VARIANTS, Variant, VariantLayer, layers, multiply_adds, parameters
from runtimes import codec


@dataclass(frozen=True)
class Stage:
    """A row of the paper's Table 1 for one variant. ``shape`` is the output's (channels, height, width)."""

    name: str
    blocks: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class CatalogueEntry:
    """A variant with what follows from it."""

    variant: Variant
    parameters: int
    multiply_adds: int
    stages: tuple[Stage, ...]


def entry(variant: Variant) -> CatalogueEntry:
    """The variant with its stages, summed from its layers."""
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
    """A JSON list of every variant, without stages."""
    rows = []
    for variant in VARIANTS.values():
        row = codec.encode(entry(variant))
        del row["stages"]
        rows.append(row)
    return json.dumps(rows, indent=2)


def one_as_json(variant: Variant) -> str:
    """A JSON object of one variant, with its stages."""
    return codec.dumps(entry(variant), indent=2)


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _millions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


def _billions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e9:.2f}"


def catalogue_document() -> Document:
    """Every variant, a line each."""
    texts = ("variant", "block", "blocks", "shortcut")
    numbers = ("input", "param M", "paper", "madd G", "paper", "error %")
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
            "madd: multiply-adds for one image. paper, error (top-1): He et al. 2015, arXiv 1512.03385, Tables",
            "1 to 3 and 6. It counts 50, 101 and 152 with the stride in the first 1x1 (--stride v1); ours is in",
            "the 3x3 (v1.5), as torchvision's published weights need.",
        )
    )
    return Document("rexport list", (Table(columns, tuple(rows)), legend))


def variant_document(variant: Variant) -> Document:
    """A variant stage by stage."""
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
            (paper.top1_error, f"{paper.top1_error or 0:.2%} top-1 error ({paper.error_source})"),
        )
        if value is not None
    ]
    printed = [Sentence(f"the paper: {', '.join(figures)}")] if figures else []
    blocks = (Sentence(title, "headline"), Table(columns, (*rows, total)), *printed)
    return Document("rexport info", blocks)


def _counts(of: Stage | CatalogueEntry) -> tuple[str, str]:
    return f"{of.parameters:,}", f"{of.multiply_adds:,}"
