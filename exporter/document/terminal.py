"""Rendering of documents on a terminal, or as plain text in a file or a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
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
from runtimes.escaping import MAX_LINE, MAX_QUOTED, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text


MARK = ">"
"""The mark of the best rows in a table, which is visible also in a pipe and with NO_COLOR."""

_GAP = 2
"""The number of characters between two columns."""

_TEXT_WIDTH = 12
"""The smallest width of a column of text, whose cells are wrapped. Numbers are never broken."""


def print_document(document: Document, file: TextIO) -> None:
    """Print the blocks of a document in their order.

    On a terminal, the text is as wide as the terminal and has emphasis. In a file or a pipe, it is plain and
    ``document.plain_width`` columns wide. Plots, commands and definitions are skipped, except for the brief lines of
    definitions in an appendix.

    Args:
        document: The document.
        file: The text stream, which stays open.

    Raises:
        OSError: The stream cannot be written.
    """
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # in place of an exit with code 1

    width = None if file.isatty() else document.plain_width
    _print(document.blocks, PipeConsole(file=file, width=width, highlight=False, markup=False, emoji=False))


def as_text(document: Document) -> str:
    """Return the plain text of a document. No line ends in a space."""
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
            case Legend(entries):
                for has_terms, alike in groupby(entries, lambda entry: bool(entry[0])):
                    console.print(_legend(list(alike), has_terms))
                if block is not blocks[-1]:
                    console.print()


def _print_section(title: str, blocks: Sequence[Block], appendix: bool, console: Console) -> None:
    if appendix:
        briefs = dict.fromkeys(block.brief for block in blocks if isinstance(block, Definitions) and block.brief)
        for brief in briefs:
            console.print(_text(brief, "dim"))
        return
    if title:
        console.print(_text(title, "bold", MAX_QUOTED))
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
    table, left_out = _fit(_mark_best(table), console.width)
    rich_table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        side: Literal["left", "right"] = "left" if column.left else "right"
        unbroken = column.unbroken or not column.left
        rich_table.add_column(_text(column.heading), justify=side, no_wrap=unbroken, overflow="fold")
    for row in table.rows:
        if row.state == "total":
            rich_table.add_section()
        rich_table.add_row(*map(_cell, row.cells), style="bold" if row.state in ("best", "strong") else "")
    width = console.width
    least = [min(cell, _TEXT_WIDTH) if column.left and not column.unbroken else cell for column, cell in _widths(table)]
    console.width = max(width, _width(least))  # the terminal wraps long lines, so no number is cut
    console.print(rich_table)
    console.width = width
    if left_out:
        columns = ", ".join(column.heading for column in left_out)
        console.print(_text(f"Left out at {width} characters: {columns}. {table.elsewhere}".rstrip(), "dim"))
    console.print()


def _mark_best(table: Table) -> Table:
    """Return the table with a first column that marks the best rows, or unchanged if there are none."""
    if all(row.state != "best" for row in table.rows):
        return table
    rows = tuple(replace(row, cells=(MARK if row.state == "best" else "", *row.cells)) for row in table.rows)
    return replace(table, columns=(TableColumn("", left=True, unbroken=True), *table.columns), rows=rows)


def _fit(table: Table, width: int) -> tuple[Table, tuple[TableColumn, ...]]:
    """Return the table without the columns that have no room, and these columns in their order."""
    fitting = table
    while (
        _width([characters for _, characters in _widths(fitting)]) > width
        and (fewer := fitting.leave_out()) is not fitting
    ):
        fitting = fewer
    return fitting, tuple(column for column in table.columns if column not in fitting.columns)


def _widths(table: Table) -> Iterator[tuple[TableColumn, int]]:
    """Yield each column with the number of characters in its longest cell."""
    from rich.cells import cell_len

    for column, *cells in zip(table.columns, *table.cells, strict=True):
        yield column, max(cell_len(_cell(cell).plain) for cell in (column.heading, *cells))


def _width(columns: Sequence[int]) -> int:
    return sum(columns) + _GAP * (len(columns) - 1)


def _legend(entries: Sequence[tuple[str, str]], has_terms: bool) -> RichTable | Text:
    from rich.table import Table as RichTable
    from rich.text import Text

    if not has_terms:
        return Text("\n").join(_text(words, "dim") for _, words in entries)
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for term, words in entries:
        grid.add_row(_text(term, "dim"), _text(words, "dim"))
    return grid


def _verdict(verdict: Verdict) -> RichTable:
    from rich.table import Table as RichTable

    source = f" ({verdict.source})" if verdict.source else ""
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=len("contradicted"))
    grid.add_column()
    grid.add_row(_text(verdict.outcome), _text(f"{verdict.claim}{source}"))
    grid.add_row("", _text(f"found: {verdict.found}"))
    return grid


def _cell(text: str) -> Text:
    """Return the text of a table's cell, which is cut if it is long."""
    return _text(text, most=MAX_QUOTED)


def _text(text: str, style: str = "", most: int = MAX_LINE) -> Text:
    """Return the text as a line that cannot move the cursor of a terminal."""
    from rich.text import Text

    return Text(printable(text, most), style=style)
