"""A document on a terminal, or as plain text in a file or a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TextIO

from exporter.document.blocks import (
    Block,
    Definitions,
    Document,
    Folded,
    Legend,
    Remark,
    Section,
    Sentence,
    Summary,
    Table,
    TableColumn,
    Verdict,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text


MARK = ">"
"""Stands before the best rows of a table; neither a pipe nor NO_COLOR takes it away."""

_GAP = 2
"""Characters between two columns."""

_TEXT_WIDTH = 12
"""The least characters of a column of text, whose cells are wrapped. Numbers are never broken."""


def print_document(document: Document, file: TextIO) -> None:
    """Prints the blocks in their order: as wide as the terminal is and with emphasis there, else plain and
    ``plain_width`` columns wide. Plots, commands and definitions stay out, but for what is brief."""
    from rich.console import Console

    width = None if file.isatty() else document.plain_width
    _print(document.blocks, Console(file=file, width=width, highlight=False, markup=False, emoji=False))


def as_text(document: Document) -> str:
    """The plain text of a document; no line ends in a space."""
    file = io.StringIO()
    print_document(document, file)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _print(blocks: Sequence[Block], console: Console) -> None:
    for block in blocks:
        match block:
            case Section(title, inner, _, appendix):
                _print_section(title, inner, appendix, console)
            case Folded(_, inner):
                _print(inner, console)
            case Table():
                _print_table(block.narrow(), console)
            case Sentence(text, role):
                console.print(_text(text, {"headline": "bold", "aside": "dim", "plain": ""}[role]))
            case Remark(text, kind):
                console.print(_text(text, "" if kind == "note" else "yellow"))
            case Verdict():
                console.print()
                console.print(_verdict(block))
            case Summary(remarks, title):
                _print([*([Sentence(title, "headline")] if title else []), *remarks], console)
                if title:
                    console.print()
            case Legend(lines):
                console.print(_text("\n".join(lines), "dim"))
                if block is not blocks[-1]:
                    console.print()


def _print_section(title: str, blocks: Sequence[Block], appendix: bool, console: Console) -> None:
    if appendix:
        briefs = dict.fromkeys(block.brief for block in blocks if isinstance(block, Definitions) and block.brief)
        for brief in briefs:
            console.print(_text(brief, "dim"))
        return
    if title:
        console.print(_text(title, "bold"))
    _print(blocks, console)
    console.print()


def _print_table(table: Table, console: Console) -> None:
    from rich import box
    from rich.table import Table as RichTable

    if not table.rows:
        return
    if table.caption:
        console.print()
        console.print(_text(table.caption))
    table, left_out = _fit(_marked(table), console.width)
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        side: Literal["left", "right"] = "left" if column.left else "right"
        whole = column.unbroken or not column.left
        shown.add_column(_text(column.heading), justify=side, no_wrap=whole, overflow="fold")
    for row in table.rows:
        if row.state == "total":
            shown.add_section()
        shown.add_row(*map(_text, row.cells), style="bold" if row.state in ("best", "strong") else "")
    width = console.width
    least = [min(cell, _TEXT_WIDTH) if column.left and not column.unbroken else cell for column, cell in _widths(table)]
    console.width = max(width, _width(least))  # a terminal wraps the lines itself before a number is cut
    console.print(shown)
    console.width = width
    if left_out:
        columns = ", ".join(column.heading for column in left_out)
        console.print(_text(f"Left out at {width} characters: {columns}. {table.elsewhere}".rstrip(), "dim"))
    console.print()


def _marked(table: Table) -> Table:
    """The table with a first column that marks the best rows, if it has any."""
    if all(row.state != "best" for row in table.rows):
        return table
    rows = tuple(replace(row, cells=(MARK if row.state == "best" else "", *row.cells)) for row in table.rows)
    return replace(table, columns=(TableColumn("", left=True, unbroken=True), *table.columns), rows=rows)


def _fit(table: Table, width: int) -> tuple[Table, tuple[TableColumn, ...]]:
    """The table without the columns that have no room, by their priority; and these columns in their order."""
    fitting = table
    while _width([each for _, each in _widths(fitting)]) > width and (fewer := fitting.leave_out()) is not fitting:
        fitting = fewer
    return fitting, tuple(column for column in table.columns if column not in fitting.columns)


def _widths(table: Table) -> Iterator[tuple[TableColumn, int]]:
    """Each column with the characters of its longest cell."""
    from rich.cells import cell_len

    for column, *cells in zip(table.columns, *table.cells, strict=True):
        yield column, max(map(cell_len, (column.heading, *cells)))


def _width(columns: Sequence[int]) -> int:
    return sum(columns) + _GAP * (len(columns) - 1)


def _verdict(verdict: Verdict) -> RichTable:
    from rich.table import Table as RichTable

    source = f" ({verdict.source})" if verdict.source else ""
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=len("contradicted"))
    grid.add_column()
    grid.add_row(_text(verdict.outcome), _text(f"{verdict.claim}{source}"))
    grid.add_row("", _text(f"found: {verdict.found}"))
    return grid


def _text(text: str, style: str = "") -> Text:
    """Without what moves a terminal's cursor."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() or c == "\n" else " " for c in text), style=style)
