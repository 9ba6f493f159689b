"""Tables of a document as HTML. All text that comes in is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.report_html.svg import PlotStyle
from exporter.document.blocks import Table, TableColumn, TableRow, Verdict


def format_table(table: Table, look: PlotStyle, counted: bool) -> str:
    """A table that can be sorted, and filtered where its rows have attributes. What stands first at the left heads its
    row, with the runtime's colour. The filters count rows of ``counted`` tables."""
    filtered = any(row.attributes for row in table.rows)
    kinds = ("sortable", "counted" if counted and filtered else "", table.name)
    lines = [_format_row(row, table.columns, look) for row in table.rows]
    return _frame(table.columns, lines, table.caption or table.label, " ".join(filter(None, kinds)))


def format_verdicts(verdicts: Sequence[Verdict]) -> str:
    """A table whose cells are sentences, which wrap; on a telephone its rows are read one under the other. The style
    sheet knows the outcomes."""
    columns = [TableColumn(heading, left=True) for heading in ("outcome", "the paper says", "where", "found")]
    lines = []
    for verdict in verdicts:
        texts = zip(columns[1:], (verdict.claim, verdict.source, verdict.found), strict=True)
        cells = (
            f'<td class="left" data-heading="{escape(column.heading)}">{escape(text)}</td>' for column, text in texts
        )
        word = escape(verdict.outcome)
        lines.append(f'<tr><th scope="row" class="left" data-outcome="{word}">{word}</th>{"".join(cells)}</tr>')
    return _frame(columns, lines, "The paper's claims, and what was found", "sentences")


def _format_row(row: TableRow, columns: Sequence[TableColumn], look: PlotStyle) -> str:
    state = f' class="{row.state}"' if row.state else ""
    data = "".join(f' data-{name}="{escape(words)}"' for name, words in row.attributes.items())
    cells = [_cell("td", text, column) for text, column in zip(row.cells, columns, strict=True)]
    if columns[0].left:
        colour = look.colours[row.attributes["runtime"]] + 1 if row.attributes else 0
        swatch = f'<i class="swatch" style="color: var(--series-{colour})"></i>' if colour else ""
        cells[0] = f'<th scope="row" class="left">{swatch}{escape(row.cells[0])}</th>'
    return f"<tr{state}{data}>{''.join(cells)}</tr>"


def _cell(tag: str, text: str, column: TableColumn) -> str:
    kinds = " ".join(filter(None, ("left" if column.left else "", "theirs" if column.foreign and tag == "td" else "")))
    side = f' class="{kinds}"' if kinds else ""
    return f"<{tag}{side}>{escape(text)}</{tag.split(' ')[0]}>"


def _frame(columns: Sequence[TableColumn], lines: Sequence[str], caption: str, kind: str) -> str:
    head = "".join(_cell('th scope="col"', column.heading, column) for column in columns)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table class="{kind}">'
        f"<caption><span>{escape(caption)}</span></caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )
