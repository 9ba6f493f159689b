"""Print sections of results to a terminal or a plain file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from benchmarks.format import ABSENT as ABSENT
from benchmarks.format import milliseconds as milliseconds
from benchmarks.format import points as points
from benchmarks.records.result import Row

if TYPE_CHECKING:
    from rich.table import Table as RichTable
from benchmarks.report.columns import Table, is_cpu_only, meaning
from benchmarks.report.sections import DISTURBED, DOUBTFUL, MISSING, Section, machine, quiet, sections

PLAIN_WIDTH = 100


GPU_WIDTH = 120
"""Columns of a table that goes to a file or a pipe; one of a GPU has more to tell."""


def print_table(rows: Sequence[Row], file: TextIO, complete: bool = True) -> None:
    """Prints the rows: as wide as the terminal is and with emphasis there, else plain and 100 columns wide, or
    120 for a GPU."""
    print_sections(sections(rows), rows, meaning(rows), file, complete)


def print_sections(
    shown: Sequence[Section], rows: Sequence[Row], meaning: Sequence[str], file: TextIO, complete: bool
) -> None:
    """The same of sections that were made already of these rows; ``meaning`` are lines that explain their columns."""
    from rich.console import Console
    from rich.text import Text

    plain = PLAIN_WIDTH if is_cpu_only(rows) else GPU_WIDTH
    console = Console(file=file, width=None if file.isatty() else plain, highlight=False, markup=False, emoji=False)
    for section in shown:
        console.print(Text(section.title, style="bold"))
        for said in section.headlines:
            console.print(Text(said))
        for found in section.tables:
            console.print(_rich_table(found))
            console.print()
        for remark in section.remarks:
            console.print(Text(remark, style="yellow" if any(word in remark for word in MISSING + DOUBTFUL) else ""))
        console.print()
    if not complete:
        console.print(Text("incomplete: the run ended early", style="bold red"))
    if (verdict := quiet(rows)) is not None:
        console.print(Text(verdict, style="yellow" if verdict.startswith(DISTURBED) else ""))
    if rows:
        console.print(Text(machine(rows[0]), style="dim"))
        console.print(Text("\n".join(meaning), style="dim"))


def _rich_table(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    result = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for heading, left in table.headings:
        result.add_column(heading, justify="left" if left else "right")
    for row in table.cells:
        result.add_row(*(Text(cell) for cell in row))
    return result
