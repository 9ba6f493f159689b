"""Rendering of documents on a terminal, or as plain text in a file or a pipe."""

from __future__ import annotations

import io
from collections.abc import Sequence
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
    Verdict,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text


def print_document(document: Document, file: TextIO) -> None:
    """Print the blocks of a document in their order.

    On a terminal, the text is as wide as the terminal and has emphasis. In a file or a pipe, it is plain and
    ``document.plain_width`` columns wide. Plots, commands and definitions are skipped, except for the brief lines of
    definitions in an appendix.

    Args:
        document: The document.
        file: The text stream, which stays open.
    """
    from rich.console import Console

    width = None if file.isatty() else document.plain_width
    _print(document.blocks, Console(file=file, width=width, highlight=False, markup=False, emoji=False))


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
    rich_table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        side: Literal["left", "right"] = "left" if column.left else "right"
        rich_table.add_column(_text(column.heading), justify=side, no_wrap=column.unbroken, overflow="fold")
    for row in table.rows:
        if row.state == "total":
            rich_table.add_section()
        rich_table.add_row(*map(_text, row.cells), style="bold" if row.state == "strong" else "")
    console.print(rich_table)
    console.print()


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
    """Return the text without control characters, which could move the cursor of a terminal."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() or c == "\n" else " " for c in text), style=style)
