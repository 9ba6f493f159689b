"""Tables of a page: they are sorted and filtered by its script, and fit on a telephone by its style sheet."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report_html.markup import cell_text, data_attributes
from benchmarks.report_html.svg import PlotStyle
from exporter.document.blocks import Table, TableColumn, TableRow, Verdict
from exporter.format import ABSENT
from runtimes.escaping import html_text as text


def format_table(table: Table, look: PlotStyle, counted: bool) -> str:
    """A table that can be sorted, and filtered where its rows have attributes. The first column, if it stands at the
    left, heads its row, with the backend's colour. The filters count rows of ``counted`` tables."""
    filtered = any(row.attributes for row in table.rows)
    kinds = ("sortable", "counted" if counted and filtered else "", table.name)
    name = table.caption or table.label
    caption = f"<caption><span>{text(table.caption)}</span></caption>" if table.caption else ""
    lines = [_format_row(row, table.columns, look) for row in table.rows]
    hidden = any(column.priority or column.stacked for column in table.columns)
    switch = '<label class="all"><input type="checkbox"> All columns</label>' if hidden else ""
    head = "".join(_cell('th scope="col"', column.heading, column) for column in table.columns)
    return (
        f'<div class="table">{switch}<div class="scroll" role="region" tabindex="0" aria-label="{text(name)}">'
        f'<table class="{" ".join(filter(None, kinds))}" aria-label="{text(name)}">{caption}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody></table></div></div>"
    )


def _format_row(row: TableRow, columns: Sequence[TableColumn], look: PlotStyle) -> str:
    state = f' class="{row.state}"' if row.state else ""
    cells = [_cell("td", words, column) for words, column in zip(row.cells, columns, strict=True)]
    if columns[0].left:
        colour = look.colours[row.attributes["backend"]] + 1 if row.attributes else 0
        swatch = f'<i class="swatch" style="color: var(--series-{colour})"></i>' if colour else ""
        stacked = [_stack(words, column) for words, column in zip(row.cells, columns, strict=True) if column.stacked]
        data = data_attributes({"stacked": ", ".join(filter(None, stacked))} if any(stacked) else {})
        cells[0] = f'<th scope="row" class="left"{data}>{swatch}{cell_text(row.cells[0])}</th>'
    return f"<tr{state}{data_attributes(row.attributes)}>{''.join(cells)}</tr>"


def _stack(words: str, column: TableColumn) -> str:
    if words == ABSENT:
        return ""
    return words if column.left else f"{column.heading} {words}"


def _cell(tag: str, words: str, column: TableColumn) -> str:
    flags = {"left": column.left, "minor": column.priority > 0, "stacked": column.stacked}
    kinds = " ".join(name for name, there in flags.items() if there)
    side = f' class="{kinds}"' if kinds else ""
    return f"<{tag}{side}>{cell_text(words)}</{tag.split(' ')[0]}>"


def format_verdicts(verdicts: Sequence[Verdict]) -> str:
    """The claims with their outcomes, as a list: each has its own lines, as what was found may be long."""
    items = "".join(
        f'<li><p><span class="badge" data-outcome="{text(one.outcome)}">{text(one.outcome.capitalize())}</span> '
        f'<strong>{text(one.claim)}</strong> <span class="sub">{text(one.source)}</span></p>'
        f"<p>{text(one.found)}</p></li>"
        for one in verdicts
    )
    return f'<ul class="claims" aria-label="Claims of the paper">{items}</ul>'
