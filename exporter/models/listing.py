"""The variants as people read them: tables and JSON with the paper's figures beside ours."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from exporter.models.variants import EXPANSION, VARIANTS, Variant, VariantLayer, layers, multiply_adds, parameters
from runtimes import codec

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 100


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


def _render(*parts: object) -> str:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def _table(*columns: str, left: int = 1) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=number == 0)
    return table


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _millions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


def _billions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e9:.2f}"


def all_as_table() -> str:
    """Every variant, a line each."""
    columns = ("variant", "block", "blocks", "shortcut", "input", "param M", "paper", "madd G", "paper", "error %")
    table = _table(*columns, left=4)
    for variant in VARIANTS.values():
        row, paper = entry(variant), variant.paper
        table.add_row(
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
    return _render(
        table,
        "madd: multiply-adds for one image. paper, error (top-1): He et al. 2015, arXiv 1512.03385, Tables\n"
        "1 to 3 and 6. It counts 50, 101 and 152 with the stride in the first 1x1 (--stride v1); ours is in\n"
        "the 3x3 (v1.5), as torchvision's published weights need.",
    )


def one_as_table(variant: Variant) -> str:
    """A variant stage by stage."""
    row, paper = entry(variant), variant.paper
    table = _table("stage", "layers", "output", "parameters", "multiply-adds", left=2)
    for stage in row.stages:
        table.add_row(
            stage.name,
            stage.blocks,
            "x".join(map(str, stage.shape)),
            f"{stage.parameters:,}",
            f"{stage.multiply_adds:,}",
        )
    table.add_section()
    table.add_row("total", "", "", f"{row.parameters:,}", f"{row.multiply_adds:,}")
    shortcut = f"shortcut {variant.shortcut}" if variant.residual else "no shortcuts"
    stride = f", stride {variant.stride}" if variant.block == "bottleneck" else ""
    lines: list[object] = [
        f"{variant.name}: {variant.family}, {variant.block} blocks, {shortcut}{stride}, "
        f"input {variant.in_channels}x{_size(variant.size)}, {variant.classes} classes",
        table,
    ]
    told = [
        text
        for value, text in (
            (paper.parameters, f"{_millions(paper.parameters)} M parameters"),
            (paper.multiply_adds, f"{_billions(paper.multiply_adds)} G multiply-adds (Table 1)"),
            (paper.top1_error, f"{paper.top1_error or 0:.2%} top-1 error ({paper.error_source})"),
        )
        if value is not None
    ]
    if told:
        lines.append(f"the paper: {', '.join(told)}")
    return _render(*lines)
