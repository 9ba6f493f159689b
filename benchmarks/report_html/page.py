"""A document as one HTML page that needs nothing beside it and no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby

from benchmarks.records.result import Result
from benchmarks.report.findings import FindingsPlots
from benchmarks.report.load import LoadPlots
from benchmarks.report.run import RunPlots
from benchmarks.report_html import findings_plots, latency, svg, tradeoffs
from benchmarks.report_html.svg import Plot, PlotStyle
from exporter.document import blocks
from exporter.document.blocks import Block, Document, Section, Table, TableColumn, TableRow, Verdict

_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
)


def html(document: Document) -> str:
    """The page. All text in it is escaped. Without matplotlib it has no plots, and says so."""
    tabled = [table for section in document.sections for table in section.all_of(Table)]
    of_rows = [row.attributes for table in tabled for row in table.rows if row.attributes]
    runtimes, precisions = (list(dict.fromkeys(row[name] for row in of_rows)) for name in ("runtime", "precision"))
    look = svg.choose_style(runtimes, precisions)
    titled = [section for section in document.sections if section.title and not section.appendix]
    body = [_header(document)]
    if len(titled) > 1:
        links = (f'<li><a href="#s{n}">{escape(section.title)}</a></li>' for n, section in enumerate(titled))
        body.append(f"<nav><ul>{''.join(links)}</ul></nav>")
    body += [_filters(runtime=runtimes, precision=precisions), "<main>"] if of_rows else ["<main>"]
    number = -1
    for section in document.sections:
        number += bool(section.title) and not section.appendix
        body += format_section(section, f"s{number}", look)
    footer = [f"<footer><p>{escape(' '.join(document.legend))}</p></footer>"] if document.legend else []
    style = f"<title>{escape(document.title)}</title><style>\n{svg.read_asset('style.css')}</style></head><body>"
    script = f"<script>\n{svg.read_asset('script.js')}</script></body></html>"
    return "\n".join([_HEAD + style, *body, "</main>", *footer, script]) + "\n"


def _header(document: Document) -> str:
    remarks = document.summary.remarks
    alarms = [remark.text for remark in remarks if remark.kind != "note"]
    if (reason := svg.missing()) is not None:
        alarms.append(f"This page has no plots: {reason}.")
    about = " · ".join(filter(None, [document.about, *(one.text for one in remarks if one.kind == "note")]))
    return (
        f'<header><div><h1>{escape(document.title)}</h1><p class="sub">{escape(about)}</p></div>'
        '<button id="theme" type="button" hidden></button></header>'
        + "".join(f'<p class="alarm"><strong>{escape(alarm)}</strong></p>' for alarm in alarms)
    )


def _filters(**values: Iterable[str]) -> str:
    """Controls that choose among the rows of all tables; without a script they stay hidden."""
    selects = ""
    for name, words in values.items():
        options = "".join(f'<option value="{escape(one)}">{escape(one)}</option>' for one in words if one)
        selects += f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>'
    return (
        '<div class="filters" role="search" hidden>'
        '<label>Filter <input type="search" name="words" placeholder="words in a row"></label>'
        f'{selects}<output aria-live="polite"></output></div>'
    )


def format_section(section: Section, place: str, look: PlotStyle) -> Iterator[str]:
    """The section's elements; what is folded stands behind all else. ``place`` is its identifier on the page, or empty
    for none."""
    if section.title:
        identifier = f' id="{place}"' if place and not section.appendix else ""
        yield f"<section{identifier}><h2>{escape(section.title)}</h2>"
    ordered = sorted(section.blocks, key=lambda one: isinstance(one, blocks.Folded) and not section.appendix)
    yield from _format_blocks(ordered, place, look)
    if section.title:
        yield "</section>"


def _format_blocks(shown: Iterable[Block], place: str, look: PlotStyle, counted: bool = True) -> Iterator[str]:
    for kind, alike in groupby(shown, key=type):
        if issubclass(kind, Verdict):
            yield _format_verdicts([block for block in alike if isinstance(block, Verdict)])
            continue
        formatted = [_format_block(block, place, look, counted) for block in alike]
        yield from [f'<ul class="remarks">{"".join(formatted)}</ul>'] if issubclass(kind, blocks.Remark) else formatted


def _format_block(block: Block, place: str, look: PlotStyle, counted: bool) -> str:
    match block:
        case blocks.Sentence(text, role, outcome):
            kind = {"headline": ' class="headline"', "aside": ' class="sub"', "plain": ""}[role]
            data = f' data-outcome="{escape(outcome)}"' if outcome else ""
            return f"<p{kind}{data}>{escape(text)}</p>"
        case blocks.Remark(text, kind):
            warned = "" if kind == "note" else ' class="warning"'
            return f"<li{warned}>{escape(text)}</li>"
        case Table():
            return _format_table(block, look, counted) if block.columns else ""
        case blocks.Definitions(pairs):
            terms = (f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in pairs)
            return f"<dl>{''.join(terms)}</dl>"
        case blocks.Command(text):
            button = '<button type="button" hidden>Copy</button>'
            return f'<div class="command"><pre><code>{escape(text)}</code></pre>{button}</div>'
        case blocks.Folded(summary, inner):
            content = "".join(_format_blocks(inner, place, look, counted=False))
            return f"<details><summary>{escape(summary)}</summary>{content}</details>"
    return _format_plots(block, place, look)


def _format_plots(block: Block, place: str, look: PlotStyle) -> str:
    """The plots that can be drawn, as an element of the page; nothing where there are none."""
    plots = [] if svg.missing() is not None else [plot for plot in _plots(block, place, look) if plot is not None]
    shown = "\n".join(
        f'<figure class="plot" data-kind="{plot.kind}"><h3>{escape(plot.title)}</h3>\n{plot.svg}\n'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
        for plot in plots
    )
    return f'<div class="plots">{shown}</div>' if plots else ""


def _plots(block: Block, place: str, look: PlotStyle) -> Iterator[Plot | None]:
    match block:
        case RunPlots(results):
            batches: dict[int, list[Result]] = {}
            for figures in results:
                batches.setdefault(figures.result.identity.batch, []).append(figures.result)
            yield from (latency.distribution(alike, look, f"{place}-b{batch}") for batch, alike in batches.items())
            yield tradeoffs.front(results, look, place)
            words = ("Throughput by batch", "images a call")
            yield tradeoffs.sweep(results, look, place, "throughput", lambda each: each.result.identity.batch, words)
            yield tradeoffs.roofline(results, look, place)
            yield from (latency.drift(alike, look, f"{place}-b{batch}") for batch, alike in batches.items())
        case LoadPlots(results):
            yield from latency.load_plots(results, look, place)
        case FindingsPlots(findings):
            yield from findings_plots.plots(findings, place)


def _format_table(table: Table, look: PlotStyle, counted: bool) -> str:
    """A table that can be sorted, and filtered where its rows have attributes. What stands first at the left heads its
    row, with the runtime's colour. The filters count rows of ``counted`` tables."""
    filtered = any(row.attributes for row in table.rows)
    kinds = ("sortable", "counted" if counted and filtered else "", table.name)
    lines = [_format_row(row, table.columns, look) for row in table.rows]
    return _frame(table.columns, lines, table.caption or table.label, " ".join(filter(None, kinds)))


def _format_verdicts(verdicts: Sequence[Verdict]) -> str:
    """A table whose cells are sentences, which wrap; on a telephone its rows are read one under the other. The style
    sheet knows the outcomes."""
    columns = [TableColumn(heading, left=True) for heading in ("outcome", "the paper says", "where", "found")]
    lines = []
    for verdict in verdicts:
        texts = {"the paper says": verdict.claim, "where": verdict.source, "found": verdict.found}
        cells = (f'<td class="left" data-heading="{name}">{escape(text)}</td>' for name, text in texts.items())
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
