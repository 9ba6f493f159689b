"""Tables and lists as HTML. All text that comes in is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.format import ABSENT
from benchmarks.records.result import Row
from benchmarks.report import columns as report_columns
from benchmarks.report import sections
from benchmarks.report.columns import Column, Table
from benchmarks.report_html.svg import PlotStyle

COUNTED = "sortable counted"
"""Of tables whose rows the filters count: each is in one of these."""


def rows_table(
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    look: PlotStyle,
    caption: str,
    best: Sequence[Row] | None = None,
) -> str:
    """A table of rows that can be sorted and filtered; the first column heads its row, with the runtime's colour.

    ``best`` are marked. A table that is given them, be they none, is the one that its rows are counted in.
    """
    kept = [column for column in columns if any(column.cell(row) != ABSENT for row in rows)]
    lines = [_row_of(kept, row, look, any(row is one for one in best or ())) for row in rows]
    kind = "sortable" if best is None else f"{COUNTED} main"
    return _table([(column.heading, column.left) for column in kept], lines, caption, kind)


def _row_of(columns: Sequence[Column[Row]], row: Row, look: PlotStyle, best: bool) -> str:
    first, *others = columns
    words = " ".join(column.cell(row) for column in columns if column.left or column is report_columns.BATCH)
    state = ' class="best"' if best else "" if row.status == "ok" else ' class="missing"'
    swatch = f'<i class="swatch" style="color: var(--series-{look.colours[row.runtime] + 1})"></i>'
    head = f'<th scope="row" class="left">{swatch}{escape(first.cell(row))}</th>'
    cells = "".join(_cell("td", column.cell(row), column.left) for column in others)
    return f"<tr{state} {_filter_attributes(row, words)}>{head}{cells}</tr>"


def _filter_attributes(row: Row, words: str) -> str:
    """What the filters look at in a line of this row."""
    return (
        f'data-runtime="{escape(row.runtime)}" data-precision="{escape(row.precision or "")}" '
        f'data-words="{escape(words.lower())}"'
    )


def plain_table(table: Table, caption: str, of: Row | None = None) -> str:
    """A table of text that is ready. All its lines are of configurations like ``of``, by whose runtime and precision
    they can be filtered; if there is none they are not."""
    sides = [left for _, left in table.headings]

    def format_line(cells: Sequence[str]) -> str:
        named = [cell for cell, left in zip(cells, sides, strict=True) if left]
        data = "" if of is None else " " + _filter_attributes(of, " ".join((of.runtime, of.precision or "", *named)))
        return f"<tr{data}>" + "".join(map(_cell, ["td"] * len(cells), cells, sides)) + "</tr>"

    lines = [format_line(cells) for cells in table.cells]
    return _table(table.headings, lines, caption, "sortable" if of is None else COUNTED)


def format_headed_table(table: Table, caption: str, theirs: Sequence[int]) -> str:
    """A table of text that is ready, whose first column heads its row; ``theirs`` are the places of columns that hold
    somebody else's numbers."""
    sides = [left for _, left in table.headings]
    lines = []
    for row in table.cells:
        cells = [
            _cell("td", text, left, "theirs" if place in theirs else "")
            for place, (text, left) in enumerate(zip(row, sides, strict=True))
        ]
        head = f'<th scope="row" class="left">{escape(row[0])}</th>'
        lines.append(f"<tr>{head}{''.join(cells[1:])}</tr>")
    return _table(table.headings, lines, caption, "sortable")


def sentences(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table whose cells are sentences, which wrap; on a telephone its rows are read one under the other. The first
    cell of a row is a word that the style sheet knows."""
    lines = []
    for row in rows:
        cells = (
            f'<td class="left" data-heading="{escape(heading)}">{escape(text)}</td>'
            for heading, text in zip(headings[1:], row[1:], strict=True)
        )
        word = escape(row[0])
        lines.append(f'<tr><th scope="row" class="left" data-outcome="{word}">{word}</th>{"".join(cells)}</tr>')
    return _table([(heading, True) for heading in headings], lines, caption, "sentences")


def _table(headings: Sequence[tuple[str, bool]], lines: Sequence[str], caption: str, kind: str) -> str:
    head = "".join(_cell('th scope="col"', heading, left) for heading, left in headings)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table class="{kind}">'
        f"<caption><span>{escape(caption)}</span></caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )


def _cell(tag: str, text: str, left: bool, kind: str = "") -> str:
    kinds = " ".join(filter(None, ("left" if left else "", kind)))
    side = f' class="{kinds}"' if kinds else ""
    return f"<{tag}{side}>{escape(text)}</{tag.split(' ')[0]}>"


def remarks(lines: Sequence[str]) -> str:
    """What is said of rows; what is missing or doubtful stands out."""
    loud = sections.MISSING + sections.DOUBTFUL
    items = (
        f'<li class="warning">{escape(line)}</li>' if any(word in line for word in loud) else f"<li>{escape(line)}</li>"
        for line in lines
    )
    return f'<ul class="remarks">{"".join(items)}</ul>' if lines else ""


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and what they are."""
    return "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in pairs) + "</dl>"


def command(text: str) -> str:
    """A command line, with a button that copies it where a script may."""
    button = '<button type="button" hidden>Copy</button>'
    return f'<div class="command"><pre><code>{escape(text)}</code></pre>{button}</div>'


def fold(summary: str, content: str) -> str:
    """What is shown when the summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def filters(rows: Sequence[Row]) -> str:
    """Controls that choose among the rows of all tables; without a script they stay hidden."""
    return (
        '<div class="filters" role="search" hidden>'
        '<label>Filter <input type="search" name="words" placeholder="words in a row"></label>'
        f"<label>runtime {_select('runtime', [row.runtime for row in rows])}</label>"
        f"<label>precision {_select('precision', [row.precision or '' for row in rows])}</label>"
        '<output aria-live="polite"></output></div>'
    )


def _select(label: str, values: Sequence[str]) -> str:
    options = "".join(f'<option value="{escape(one)}">{escape(one)}</option>' for one in dict.fromkeys(values) if one)
    return f'<select name="{label}"><option value="">all</option>{options}</select>'
