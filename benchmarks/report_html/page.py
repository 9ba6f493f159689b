"""Rows and findings as one HTML page that needs nothing beside it and no network: headline, tables, plots, machine,
command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from importlib import resources

from benchmarks.analysis.ranking import format_headline, headlines
from benchmarks.records import naming
from benchmarks.records.findings import Findings
from benchmarks.records.result import Row
from benchmarks.report import answers as answered
from benchmarks.report import columns as report_columns
from benchmarks.report import sections
from benchmarks.report.markdown import commands, meaning
from benchmarks.report_html import findings as paper
from benchmarks.report_html import latency, svg, tables, tradeoffs
from benchmarks.report_html import load as loadplots
from benchmarks.report_html.svg import Plot, PlotStyle

MAIN = (*report_columns.SPEED[:-1], report_columns.TOP1, report_columns.DROP, report_columns.SPEED[-1])
"""The columns of the table that compares: of speed, and of what it is worth."""

MORE = {
    "other spans and quantiles": report_columns.SPANS,
    "what the answers are worth": report_columns.WORTH,
    "what it takes": report_columns.COST,
    "the GPU": report_columns.GPU,
}
"""Further tables."""

_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
)


def html(rows: Sequence[Row], heading: str, complete: bool = True, findings: Sequence[Findings] = ()) -> str:
    """The page; what experiments found stands behind all that is said of rows. All text in it is escaped. Without
    matplotlib it has no plots, and says so.

    Raises:
        ArtifactError: the answers in a row are damaged.
    """
    look = svg.choose_style(rows)
    body = [_header(rows, findings, heading, complete)]
    groups = sections.groups(rows)
    titles = {f"s{n}": sections.title(group) for n, group in enumerate(groups)}
    titles |= {f"f{n}": found.title for n, found in enumerate(findings)}
    if len(titles) > 1:
        links = (f'<li><a href="#{place}">{escape(title)}</a></li>' for place, title in titles.items())
        body.append(f"<nav><ul>{''.join(links)}</ul></nav>")
    body += [tables.filters(rows), "<main>"] if rows else ["<main>"]
    for number, group in enumerate(groups):
        body += [f'<section id="s{number}">', *_group(group, look, f"s{number}"), "</section>"]
    body += [*_machines(rows), *_reproduce(rows)]
    for number, found in enumerate(findings):
        body += paper.section(found, f"f{number}")
    body += ["</main>", *_footer(rows)]
    style = f"<title>{escape(heading)}</title><style>\n{_part('style.css')}</style></head><body>"
    return "\n".join([_HEAD + style, *body, f"<script>\n{_part('script.js')}</script></body></html>"]) + "\n"


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _header(rows: Sequence[Row], findings: Sequence[Findings], heading: str, complete: bool) -> str:
    sources = [found.provenance for found in findings]
    times = [*(row.time for row in rows), *(source.time for source in sources if source.time)]
    days = sorted({time[:10] for time in times})
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "no rows"
    machines = dict.fromkeys(filter(None, (*(row.environment.cpu for row in rows), *(one.machine for one in sources))))
    alarms = [] if complete else ["Incomplete: the run ended early."]
    quiet = sections.quiet(rows) or ""
    if quiet.startswith(sections.DISTURBED):
        alarms.append(f"The machine was {quiet}.")
        quiet = ""
    if (reason := svg.missing()) is not None:
        alarms.append(f"This page has no plots: {reason}.")
    about = " · ".join(filter(None, [when, *machines, quiet]))
    return (
        f'<header><div><h1>{escape(heading)}</h1><p class="sub">{escape(about)}</p></div>'
        '<button id="theme" type="button" hidden></button></header>'
        + "".join(f'<p class="alarm"><strong>{escape(alarm)}</strong></p>' for alarm in alarms)
    )


def _group(rows: Sequence[Row], look: PlotStyle, place: str) -> Iterator[str]:
    plain = [row for row in rows if row.load is None]
    loads = [row for row in rows if row.load is not None]
    yield f"<h2>{escape(sections.title(rows))}</h2>"
    if plain:
        yield from _compare_section(plain, look, place)
    if loads:
        yield from _loads(loads, look, place)


def _compare_section(rows: Sequence[Row], look: PlotStyle, place: str) -> Iterator[str]:
    found = headlines(rows)
    yield from (f'<p class="headline">{escape(format_headline(one))}</p>' for one in found)
    best = [row for one in found for row in ((one.fastest, *one.tied) if one.lead else ())]
    caption = "Configurations compared. Marked: the fastest of each batch, and what ties with it."
    yield tables.rows_table(MAIN, rows, look, caption, best)
    yield tables.remarks(list(sections.remarks(rows)))
    measured = [row for row in rows if row.status == "ok"]
    yield svg.figures(_plots(measured, look, place))
    for caption, columns in MORE.items():
        of = [row for row in measured if sections.has_values(columns, row)]
        if of:
            yield tables.fold(caption, tables.rows_table(columns, of, look, caption.capitalize()))
    for one in answered.tabulate_predictions(measured):
        yield tables.fold(one.summary, tables.plain_table(one.table, one.caption))


def _loads(rows: Sequence[Row], look: PlotStyle, place: str) -> Iterator[str]:
    from benchmarks.report import load as loadtable

    for alike in loadtable.groups(rows):
        found = loadtable.section(alike)
        yield "<h3>Load shapes</h3>"
        yield from (f'<p class="headline">{escape(said)}</p>' for said in found.headlines)
        yield from (tables.plain_table(table, found.title, alike[0]) for table in found.tables)
        yield tables.remarks(found.remarks)
    yield svg.figures(lambda: loadplots.plots(rows, look, place))


def _plots(rows: Sequence[Row], look: PlotStyle, place: str) -> Callable[[], Iterator[Plot | None]]:
    """All there are of configurations that are compared."""

    def draw_plots() -> Iterator[Plot | None]:
        batches = {batch: [row for row in rows if row.batch == batch] for batch in dict.fromkeys(r.batch for r in rows)}
        yield from (latency.distribution(alike, look, f"{place}-b{batch}") for batch, alike in batches.items())
        yield tradeoffs.front(rows, look, place)
        yield tradeoffs.throughput(rows, look, place)
        yield tradeoffs.roofline(rows, look, place)
        yield from (latency.drift(alike, look, f"{place}-b{batch}") for batch, alike in batches.items())

    return draw_plots


def _machines(rows: Sequence[Row]) -> Iterator[str]:
    """Each machine that rows were taken on, as it was for the first of them."""
    if rows:
        yield "<section><h2>Environment</h2>"
    firsts: dict[tuple[str, ...], Row] = {}
    for row in rows:
        firsts.setdefault(naming.locate(row), row)
    for first in firsts.values():
        about = first.environment
        pairs = [
            ("machine", sections.machine(first)),
            ("system", about.system),
            ("governor, frequency", f"{about.governor}, {_mhz(about.frequency_mhz)}"),
            *((f"{one.name}", f"driver {one.driver}, CUDA {one.cuda}") for one in about.gpus),
            *about.variables.items(),
        ]
        yield tables.definitions(pairs)
        packages = tables.definitions(sorted(about.packages.items()))
        yield tables.fold(f"{len(about.packages)} installed packages", packages)
    if rows:
        yield "</section>"


def _mhz(value: float | None) -> str:
    return "frequency unknown" if value is None else f"{value:,.0f} MHz"


def _reproduce(rows: Sequence[Row]) -> Iterator[str]:
    found = commands(rows)
    if not rows:
        return
    yield "<section><h2>Reproduce</h2>"
    yield from map(tables.command, found)
    if not found:
        yield "<p>These rows were kept before rbench noted its command line.</p>"
    plans = dict.fromkeys(
        f"{len(row.sittings)} processes; in each {row.rounds} rounds of turns, {row.duration_s:g} s by each clock; "
        f"seed {row.seed}"
        for row in rows
        if row.sittings and row.rounds is not None and row.duration_s is not None
    )
    yield tables.remarks(list(plans))
    yield "</section>"


def _footer(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        yield f"<footer><p>{escape(' '.join(meaning(rows)))}</p></footer>"
