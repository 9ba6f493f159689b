"""Bar charts of medians, in HTML and SVG: they need no script and no library, and colour alone tells nothing."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.ranking import name
from benchmarks.format import TOO_NOISY, is_too_noisy, milliseconds
from benchmarks.records.result import Estimate
from benchmarks.report.columns import MAIN, search_attributes
from benchmarks.report.run import RunPlots
from benchmarks.report_html.markup import data_attributes
from benchmarks.report_html.svg import PlotStyle
from exporter.proportions import Interval
from runtimes.escaping import html_text as text


def bar_charts(plots: RunPlots, look: PlotStyle) -> str:
    """A chart of each batch size, the fastest configuration first; nothing where nothing was measured."""
    batches: dict[int, list[tuple[Estimate, Figures]]] = {}
    for figures in plots.results:
        if figures.p50 is not None and figures.p50.value:
            batches.setdefault(figures.result.identity.batch, []).append((figures.p50, figures))
    charts = "\n".join(_chart(batch, bars, plots.best, look) for batch, bars in batches.items())
    return f'<div class="charts">\n{charts}\n</div>' if charts else ""


def _chart(batch: int, bars: Sequence[tuple[Estimate, Figures]], best: Sequence[Figures], look: PlotStyle) -> str:
    ordered = sorted(bars, key=lambda bar: bar[0].value)
    ends = [end for p50, _ in bars for end in (p50.value, *(_interval(p50) or ()))]
    lines = [_bar(p50, figures, max(ends), any(figures is one for one in best), look) for p50, figures in ordered]
    whiskers = " Whiskers: 95 % intervals." if any(_interval(p50) for p50, _ in bars) else ""
    return (
        f'<figure class="bars"><h3>Median latency, batch {batch}</h3><ul>\n{chr(10).join(lines)}\n</ul>'
        f"<figcaption>p50 of one call in milliseconds; shorter is faster.{whiskers}</figcaption></figure>"
    )


def _interval(p50: Estimate) -> Interval | None:
    """The interval that has a whisker: one of some width, but not too noisy."""
    interval = p50.interval
    if interval is None or interval[0] == interval[1] or is_too_noisy(p50.value, interval):
        return None
    return interval


def _bar(p50: Estimate, figures: Figures, axis: float, best: bool, look: PlotStyle) -> str:
    colour = look.colours[figures.result.identity.backend] + 1
    whisker, noisy = "", p50.interval is not None and is_too_noisy(p50.value, p50.interval)
    if (interval := _interval(p50)) is not None:
        low, high = (100 * end / axis for end in interval)
        whisker = f'<path d="M{low:.2f} 6H{high:.2f}M{low:.2f} 2.5V9.5M{high:.2f} 2.5V9.5"/>'
    state, mark = (' class="best"', "<em>fastest</em> ") if best else ("", f"<small>{TOO_NOISY}</small> " * noisy)
    attributes = data_attributes(search_attributes(MAIN, figures))
    return (
        f"<li{state}{attributes}>"
        f'<span class="name">{text(name(figures.result))}</span>'
        f'<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * p50.value / axis:.2f}" height="12" fill="var(--series-{colour})"/>{whisker}</svg>'
        f'<span class="value">{mark}<strong>{milliseconds(p50.value)} ms</strong></span></li>'
    )
