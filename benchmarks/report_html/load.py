"""Plots of load shapes: service beside response, so that neither hides a stall; sweeps; and the cold start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.ranking import name
from benchmarks.records.samples import STEADY, LoadResult
from benchmarks.report.load import SWEPT, shape
from benchmarks.report_html import svg as canvas
from benchmarks.report_html.svg import FAINT, INK, Plot, PlotStyle
from benchmarks.report_html.tradeoffs import sweep
from benchmarks.stats import intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTILES = ((0.5, "p50", "o"), (0.99, "p99", "s"), (0.999, "p99.9", "D"))
TITLES = {"clients": "Throughput by clients", "batches": "Throughput by batch"}


def plots(results: Sequence[Figures], look: PlotStyle, place: str) -> Iterator[Plot]:
    """What there is to show of these results, which are of one network."""
    measured = [figures for figures in results if figures.result.status == "ok"]
    loads = [(figures, figures.result.load) for figures in measured if figures.result.load is not None]
    warm = [(figures, load) for figures, load in loads if load.shape != "cold" and load.services_s]
    if warm:
        yield _responses(warm, look, f"{place}-responses")
    for kind, (word, size) in SWEPT.items():
        swept = [figures for figures, load in loads if load.shape == kind]
        found = sweep(swept, look, f"{place}-{kind}", kind, size, (TITLES[kind], word, "images/s"))
        if found is not None:
            yield found
    cold = [(figures, load) for figures, load in loads if load.shape == "cold" and load.steps_s]
    if cold:
        yield _cold(cold, f"{place}-cold")


def _responses(loads: Sequence[tuple[Figures, LoadResult]], look: PlotStyle, place: str) -> Plot:
    several = len({name(figures.result) for figures, _ in loads}) > 1

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        for at, (figures, load) in enumerate(loads):
            _span(axes, at - 0.17, load.services_s, look.colour(figures.result), filled=False)
            _span(axes, at + 0.17, load.responses_s, look.colour(figures.result), filled=True)
        labels = [shape(figures) + (f"\n{name(figures.result)}" if several else "") for figures, _ in loads]
        axes.set_yticks(range(len(loads)), labels)
        axes.set_ylim(len(loads) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("ms")
        canvas.plain_ticks(axes, "x")
        with canvas.legend_below(axes):
            _legend(axes)

    worst = max(loads, key=lambda pair: max(pair[1].responses_s))
    slowest = 1e3 * max(worst[1].responses_s)
    spoken = (
        f"Service and response times of {len(loads)} load shapes: the slowest response, {slowest:,.1f} ms, is of "
        f"{shape(worst[0])}"
    )
    caption = (
        "Upper line, hollow: how long a call itself took. Lower line, filled: from the moment the request was to "
        "start. In a closed loop the two are the same, since it asks again only when it has been answered: what a "
        "stall does to those who would have asked meanwhile shows in the open loop's responses alone."
    )
    height = 1.5 + (0.5 if several else 0.42) * len(loads)
    return Plot("responses", "Service and response", caption, spoken, canvas.render_svg(place, height, draw, spoken))


def _span(axes: Axes, at: float, samples_s: Sequence[float], colour: str, *, filled: bool) -> None:
    """A line from the median to the slowest, with a mark at each quantile that there are the samples for."""
    taken = 1e3 * np.asarray(samples_s)
    axes.plot([np.median(taken), taken.max()], [at, at], color=colour, linewidth=1)
    for q, _, marker in QUANTILES:
        if intervals.enough_for(taken, q):
            fill: Literal["full", "none"] = "full" if filled else "none"
            point = float(np.quantile(taken, q))
            axes.plot(point, at, color=colour, linestyle="none", marker=marker, markersize=5, fillstyle=fill)
    axes.plot(taken.max(), at, color=colour, marker="|", markersize=8)


def _legend(axes: Axes) -> None:
    for _, label, marker in QUANTILES:
        axes.plot([], [], color=INK, marker=marker, markersize=5, linestyle="none", label=label)
    axes.plot([], [], color=INK, marker="|", markersize=8, linestyle="none", label="slowest")
    axes.plot([], [], color=INK, marker="o", markersize=5, fillstyle="none", linewidth=1, label="service")
    axes.plot([], [], color=INK, marker="o", markersize=5, linewidth=1, label="response")


def _cold(loads: Sequence[tuple[Figures, LoadResult]], place: str) -> Plot:
    answered = [(name(figures.result), [one for one in load.steps_s if one[0] != STEADY]) for figures, load in loads]
    steps = list(dict.fromkeys(step for _, taken in answered for step, _ in taken))
    shades = np.linspace(1.0, 0.25, len(steps))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        with canvas.legend_below(axes):
            for at, (_, taken) in enumerate(answered):
                left = 0.0
                for step, seconds in taken:
                    shade = shades[steps.index(step)]
                    axes.barh(at, 1e3 * seconds, left=left, height=0.6, color=FAINT, alpha=shade, label=step)
                    left += 1e3 * seconds
        axes.set_yticks(range(len(answered)), [label for label, _ in answered])
        axes.set_ylim(len(answered) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("ms since the process began")

    totals = [(label, 1e3 * sum(seconds for _, seconds in taken)) for label, taken in answered]
    spoken = "Cold start: " + ", ".join(f"{label} {total:,.0f} ms" for label, total in totals)
    caption = (
        "A fresh process each time, its files in the system's cache already. Medians of the steps up to the first "
        "answer, one after another."
    )
    svg = canvas.render_svg(place, 1.3 + 0.4 * len(answered), draw, spoken)
    return Plot("cold", "Cold start", caption, spoken, svg)
