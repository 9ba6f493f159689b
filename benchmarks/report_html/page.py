"""A document as one HTML page that needs nothing beside it and no network: the answer first, the method folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from benchmarks.format import count
from benchmarks.records.result import Result
from benchmarks.report.findings import FindingsPlots
from benchmarks.report.load import LoadPlots
from benchmarks.report.run import RunPlots
from benchmarks.report.tuning import FrontPlot
from benchmarks.report_html import findings_plots, latency, svg, tradeoffs
from benchmarks.report_html.bars import bar_charts
from benchmarks.report_html.svg import Plot, PlotStyle
from benchmarks.report_html.tables import format_table, format_verdicts
from exporter.document import blocks
from exporter.document.blocks import Block, Document, Folded, Remark, Section, Sentence, Table, Verdict
from runtimes.escaping import html_text as text

MARK = '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="rbench">'
"""The beginning of every page, by which a later command knows that it may be replaced."""

_HEAD = f'{MARK}<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'

VALIDITY = {"run-valid": "Valid", "run-invalid": "Invalid", "run-preliminary": "Preliminary"}
"""Badge of a run by the code of the remark that has the verdict on it."""


@dataclass(frozen=True)
class _Chapter:
    """A titled section of the document, with the untitled sections behind it."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def answer(self) -> Sentence | None:
        """The first headline."""
        return next((one for one in self.blocks if isinstance(one, Sentence) and one.role == "headline"), None)

    @property
    def warnings(self) -> list[Remark]:
        """The remarks that cast doubt on figures or explain missing ones."""
        return [block for block in self.blocks if isinstance(block, Remark) and block.kind != "note"]

    @property
    def has_rows(self) -> bool:
        """Whether its tables can be filtered."""
        tables = Section("", self.blocks).all_of(Table)
        return any(row.attributes for table in tables for row in table.rows)


def html(document: Document) -> str:
    """The page, with all text escaped. Without matplotlib it has no plots but the bar charts, and says so."""
    tables = [table for section in document.sections for table in section.all_of(Table)]
    of_rows = [row.attributes for table in tables for row in table.rows if row.attributes]
    backends, precisions = (list(dict.fromkeys(row[name] for row in of_rows)) for name in ("backend", "precision"))
    look = svg.choose_style(backends, precisions)
    filters = _filters(backend=backends, precision=precisions)
    chapters = _chapters(document)
    led = [] if document.summary.title else chapters[:1]
    page_title, header = _header(document, led)
    body = [header]
    if len(chapters) > 1:
        named = [(number, chapter.title) for number, chapter in enumerate(chapters) if chapter.title]
        links = (f'<li><a href="#s{number}">{text(title)}</a></li>' for number, title in named)
        body.append(f'<nav aria-label="Sections"><ul>{"".join(links)}</ul></nav>')
    body.append("<main>")
    for number, chapter in enumerate(chapters):
        heading = "" if chapter in led else _heading(chapter)
        shown = filters if chapter.has_rows else ""
        filters = "" if shown else filters
        content = _format_chapter(chapter, f"s{number}", look, shown)
        body += [f'<section id="s{number}">{heading}', *content, "</section>"]
    body += [*_format_appendices(document, look), "</main>"]
    style = f"<title>{text(page_title)}</title><style>\n{svg.read_asset('style.css')}</style></head><body>"
    script = f"<script>\n{svg.read_asset('script.js')}</script></body></html>"
    return "\n".join([_HEAD + style, *body, script]) + "\n"


def _chapters(document: Document) -> list[_Chapter]:
    chapters: list[_Chapter] = []
    for section in document.sections:
        if section.appendix:
            continue
        if section.title or not chapters:
            chapters.append(_Chapter(section.title, section.blocks))
        else:
            chapters[-1] = _Chapter(chapters[-1].title, chapters[-1].blocks + section.blocks)
    return chapters


def _header(document: Document, led: Sequence[_Chapter]) -> tuple[str, str]:
    """The title of the page, and its head: the answer of the chapter that the page begins with, and how far the answer
    can be trusted."""
    summary = document.summary
    answers = [one.answer.text if one.answer else one.title for one in led]
    answer = next(filter(None, [summary.title, *answers]), document.title)
    subjects = [one.title for one in led if one.title and one.title != answer]
    badges = [
        f'<details class="badge" data-validity="{VALIDITY[remark.code].lower()}">'
        f"<summary>{VALIDITY[remark.code]}</summary><p>{text(remark.text)}</p></details>"
        for remark in summary.remarks
        if remark.code in VALIDITY
    ]
    others = [remark for remark in summary.remarks if remark.code not in VALIDITY]
    doubts = [remark for remark in others if remark.kind == "warning"]
    badges += _outcome(led[0]) if led else []
    badges += _warnings([*doubts, *(remark for one in led for remark in one.warnings)])
    alarms = [remark.text for remark in others if remark.kind == "failure"]
    if (reason := svg.missing()) is not None:
        alarms.append(f"This page has no plots: {reason}.")
    about = " · ".join(
        filter(None, [document.title, document.about, *(one.text for one in others if one.kind == "note")])
    )
    lines = (
        f'<header><div class="about"><p class="sub">{text(about)}</p>',
        '<button id="theme" type="button" hidden></button></div>',
        f"<h1>{text(answer)}</h1>",
        *(f'<p class="sub">{text(subject)}</p>' for subject in subjects),
        f'<div class="badges">{"".join(badges)}</div>' if badges else "",
        *(f'<p class="alarm" role="alert"><strong>{text(alarm)}</strong></p>' for alarm in alarms),
        "</header>",
    )
    title = answer if answer == document.title else f"{answer} – {document.title}"
    return title, "".join(lines)


def _heading(chapter: _Chapter) -> str:
    """The chapter's answer over its title, or the title alone; with the chapter's badges."""
    if chapter.answer is None:
        lines = f"<h2>{text(chapter.title)}</h2>" if chapter.title else ""
    else:
        subject = f'<p class="sub">{text(chapter.title)}</p>' if chapter.title else ""
        lines = f"<h2>{text(chapter.answer.text)}</h2>{subject}"
    badges = "".join([*_outcome(chapter), *_warnings(chapter.warnings)])
    return lines + (f'<div class="badges">{badges}</div>' if badges else "")


def _outcome(chapter: _Chapter) -> list[str]:
    word = chapter.answer.outcome if chapter.answer else ""
    return [f'<span class="badge" data-outcome="{text(word)}">{text(word.capitalize())}</span>'] if word else []


def _warnings(remarks: Sequence[Remark]) -> list[str]:
    if not remarks:
        return []
    items = "".join(f"<li>{text(remark.text)}</li>" for remark in dict.fromkeys(remarks))
    words = count(len(dict.fromkeys(remarks)), "warning")
    return [f'<details class="badge warnings"><summary>{words}</summary><ul>{items}</ul></details>']


def _filters(**values: Iterable[str]) -> str:
    """Controls that choose among the rows of all tables and charts; without a script they stay hidden."""
    selects = ""
    for name, words in values.items():
        options = "".join(f'<option value="{text(one)}">{text(one)}</option>' for one in words if one)
        label = name.capitalize()
        selects += f'<label>{label} <select name="{name}"><option value="">all</option>{options}</select></label>'
    return (
        '<div class="filters" role="search" hidden>'
        '<label>Filter <input type="search" name="words" placeholder="words in a row"></label>'
        f'{selects}<output aria-live="polite"></output></div>'
    )


def _format_chapter(chapter: _Chapter, place: str, look: PlotStyle, filters: str) -> Iterator[str]:
    """Further headlines, bar charts, and what else is not folded; then the folds."""
    shown = [block for block in chapter.blocks if block is not chapter.answer and not isinstance(block, Remark)]
    head = takewhile(lambda block: not isinstance(block, Table), shown)
    sentences = [block for block in head if isinstance(block, Sentence)]
    method = [block for block in shown if isinstance(block, blocks.Command | blocks.Definitions)]
    folds = [block for block in shown if isinstance(block, Folded)]
    notes = tuple(block for block in chapter.blocks if isinstance(block, Remark) and block.kind == "note")
    yield from format_blocks(sentences, place, look)
    yield from filter(None, (bar_charts(block, look) for block in shown if isinstance(block, RunPlots)))
    yield filters
    aside = [*sentences, *method, *folds]
    yield from format_blocks([block for block in shown if block not in aside], place, look)
    yield from format_blocks(folds, place, look)
    for block in shown:
        if isinstance(block, RunPlots):
            yield from _fold_plots(block, place, look)
    if notes:
        yield from format_blocks([Folded("Notes", notes)], place, look)
    if method:
        yield from format_blocks([Folded("Method and machine", tuple(method))], place, look)


def _format_appendices(document: Document, look: PlotStyle) -> Iterator[str]:
    """What belongs to the whole document, each section folded, and what the columns mean."""
    folds = [Folded(section.title, section.blocks) for section in document.sections if section.appendix]
    if document.legend:
        folds.append(Folded("Definitions of the columns", (blocks.Definitions(document.legend),)))
    if folds:
        yield from ("<section><h2>Machine and method</h2>", *format_blocks(folds, "appendix", look), "</section>")


def format_blocks(shown: Iterable[Block], place: str, look: PlotStyle, counted: bool = True) -> Iterator[str]:
    """The elements of the blocks. ``place`` begins their identifiers; the filters count rows of ``counted`` tables."""
    for kind, alike in groupby(shown, key=type):
        if issubclass(kind, Verdict):
            yield format_verdicts([block for block in alike if isinstance(block, Verdict)])
            continue
        formatted = [_format_block(block, place, look, counted) for block in alike]
        yield from [f'<ul class="remarks">{"".join(formatted)}</ul>'] if issubclass(kind, Remark) else formatted


def _format_block(block: Block, place: str, look: PlotStyle, counted: bool) -> str:
    match block:
        case Sentence(words, role):
            kind = {"headline": ' class="headline"', "aside": ' class="sub"', "plain": ""}[role]
            return f"<p{kind}>{text(words)}</p>"
        case Remark(words, kind):
            warned = "" if kind == "note" else ' class="warning"'
            return f"<li{warned}>{text(words)}</li>"
        case Table():
            return format_table(block, look, counted) if block.columns else ""
        case blocks.Definitions(pairs):
            terms = (f"<dt>{text(name)}</dt><dd>{text(words)}</dd>" for name, words in pairs)
            return f"<dl>{''.join(terms)}</dl>"
        case blocks.Command(words):
            button = '<button type="button" hidden>Copy</button>'
            return f'<div class="command"><pre tabindex="0"><code>{text(words)}</code></pre>{button}</div>'
        case Folded(summary, inner):
            content = "".join(format_blocks(inner, place, look, counted=False))
            return f"<details><summary>{text(summary)}</summary>{content}</details>"
    return _format_plots(_plots(block, place, look))


def _format_plots(plots: Iterable[Plot | None]) -> str:
    """The plots that can be drawn, as an element of the page; nothing where there are none."""
    drawn = [] if svg.missing() is not None else [plot for plot in plots if plot is not None]
    shown = "\n".join(
        f'<figure class="plot" data-kind="{plot.kind}"><h3>{text(plot.title)}</h3>\n{plot.svg}\n'
        f"<figcaption>{text(plot.caption)}</figcaption></figure>"
        for plot in drawn
    )
    return f'<div class="plots">{shown}</div>' if shown else ""


def _plots(block: Block, place: str, look: PlotStyle) -> Iterator[Plot | None]:
    """The plots of a block that are seen without unfolding anything."""
    match block:
        case RunPlots(results):
            yield tradeoffs.front(results, look, place)
            words = ("Throughput by batch", "images per call")
            yield tradeoffs.sweep(results, look, place, "throughput", lambda each: each.result.identity.batch, words)
        case FrontPlot(findings, choice):
            yield tradeoffs.tuning_front(findings, choice, look, place)
        case LoadPlots(results):
            yield from latency.load_plots(results, look, place)
        case FindingsPlots(findings):
            yield from findings_plots.plots(findings, place)


def _fold_plots(block: RunPlots, place: str, look: PlotStyle) -> Iterator[str]:
    """The plots that explain the measurement, each kind in a fold."""
    batches: dict[int, list[Result]] = {}
    for figures in block.results:
        batches.setdefault(figures.result.identity.batch, []).append(figures.result)
    folded = {
        "Latency distribution": (latency.distribution(of, look, f"{place}-b{n}") for n, of in batches.items()),
        "Drift over the run": (latency.drift(of, look, f"{place}-b{n}") for n, of in batches.items()),
        "Roofline": iter([tradeoffs.roofline(block.results, look, place)]),
    }
    for summary, plots in folded.items():
        if shown := _format_plots(plots):
            yield f"<details><summary>{summary}</summary>{shown}</details>"
