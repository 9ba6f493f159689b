"""A document as one HTML page that needs nothing beside it and no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources
from itertools import groupby

from benchmarks.records.result import Result
from benchmarks.report.plots import FindingsPlots, LoadPlots, RunPlots
from benchmarks.report_html import findings_plots, latency, svg, tables, tradeoffs
from benchmarks.report_html import load as load_plots
from benchmarks.report_html.svg import Plot, PlotStyle
from exporter.document.blocks import (
    Block,
    Command,
    Definitions,
    Document,
    Folded,
    Remark,
    Section,
    Sentence,
    Table,
    Verdict,
)

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
    body += [_filters(runtimes, precisions), "<main>"] if of_rows else ["<main>"]
    number = -1
    for section in document.sections:
        number += bool(section.title) and not section.appendix
        body += format_section(section, f"s{number}", look)
    footer = [f"<footer><p>{escape(' '.join(document.legend))}</p></footer>"] if document.legend else []
    style = f"<title>{escape(document.title)}</title><style>\n{_read('style.css')}</style></head><body>"
    script = f"<script>\n{_read('script.js')}</script></body></html>"
    return "\n".join([_HEAD + style, *body, "</main>", *footer, script]) + "\n"


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


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


def _filters(runtimes: Iterable[str], precisions: Iterable[str]) -> str:
    """Controls that choose among the rows of all tables; without a script they stay hidden."""
    return (
        '<div class="filters" role="search" hidden>'
        '<label>Filter <input type="search" name="words" placeholder="words in a row"></label>'
        f"<label>runtime {_select('runtime', runtimes)}</label>"
        f"<label>precision {_select('precision', precisions)}</label>"
        '<output aria-live="polite"></output></div>'
    )


def _select(label: str, values: Iterable[str]) -> str:
    options = "".join(f'<option value="{escape(one)}">{escape(one)}</option>' for one in values if one)
    return f'<select name="{label}"><option value="">all</option>{options}</select>'


def format_section(section: Section, place: str, look: PlotStyle) -> Iterator[str]:
    """The section's elements; what is folded stands behind all else. ``place`` is its identifier on the page, or empty
    for none."""
    if section.title:
        identifier = f' id="{place}"' if place and not section.appendix else ""
        yield f"<section{identifier}><h2>{escape(section.title)}</h2>"
    ordered = section.blocks if section.appendix else sorted(section.blocks, key=lambda one: isinstance(one, Folded))
    yield from _format_blocks(ordered, place, look)
    if section.title:
        yield "</section>"


def _format_blocks(blocks: Iterable[Block], place: str, look: PlotStyle, counted: bool = True) -> Iterator[str]:
    for kind, alike in groupby(blocks, key=type):
        if issubclass(kind, Remark):
            items = (_format_remark(block) for block in alike if isinstance(block, Remark))
            yield f'<ul class="remarks">{"".join(items)}</ul>'
        elif issubclass(kind, Verdict):
            yield tables.format_verdicts([block for block in alike if isinstance(block, Verdict)])
        else:
            for block in alike:
                yield _format_block(block, place, look, counted)


def _format_block(block: Block, place: str, look: PlotStyle, counted: bool) -> str:
    match block:
        case Sentence(text, role, outcome):
            kind = {"headline": ' class="headline"', "aside": ' class="sub"', "plain": ""}[role]
            data = f' data-outcome="{escape(outcome)}"' if outcome else ""
            return f"<p{kind}{data}>{escape(text)}</p>"
        case Table():
            return tables.format_table(block, look, counted) if block.columns else ""
        case Definitions(pairs):
            terms = (f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in pairs)
            return f"<dl>{''.join(terms)}</dl>"
        case Command(text):
            button = '<button type="button" hidden>Copy</button>'
            return f'<div class="command"><pre><code>{escape(text)}</code></pre>{button}</div>'
        case Folded(summary, inner):
            content = "".join(_format_blocks(inner, place, look, counted=False))
            return f"<details><summary>{escape(summary)}</summary>{content}</details>"
    return _format_plots(block, place, look)


def _format_remark(remark: Remark) -> str:
    kind = "" if remark.kind == "note" else ' class="warning"'
    return f"<li{kind}>{escape(remark.text)}</li>"


def _format_plots(block: Block, place: str, look: PlotStyle) -> str:
    """The plots that can be drawn, as an element of the page; nothing where there are none."""
    if svg.missing() is not None:
        return ""
    shown = "\n".join(
        f'<figure class="plot" data-kind="{plot.kind}"><h3>{escape(plot.title)}</h3>\n{plot.svg}\n'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
        for plot in _plots(block, place, look)
        if plot is not None
    )
    return f'<div class="plots">{shown}</div>' if shown else ""


def _plots(block: Block, place: str, look: PlotStyle) -> Iterator[Plot | None]:
    match block:
        case RunPlots(results):
            batches: dict[int, list[Result]] = {}
            for figures in results:
                batches.setdefault(figures.result.identity.batch, []).append(figures.result)
            yield from (latency.distribution(alike, look, f"{place}-b{batch}") for batch, alike in batches.items())
            yield tradeoffs.front(results, look, place)
            yield tradeoffs.throughput(results, look, place)
            yield tradeoffs.roofline(results, look, place)
            yield from (latency.drift(alike, look, f"{place}-b{batch}") for batch, alike in batches.items())
        case LoadPlots(results):
            yield from load_plots.plots(results, look, place)
        case FindingsPlots(findings):
            yield from findings_plots.plots(findings, place)
