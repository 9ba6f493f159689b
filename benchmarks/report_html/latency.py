"""Plots of time: distribution and drift of latency; service and response time of load shapes, sweeps, cold start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.figures import Figures
from benchmarks.format import milliseconds
from benchmarks.records.result import Result
from benchmarks.records.samples import STEADY, LoadResult
from benchmarks.report.load import SWEPT, shape
from benchmarks.report_html import svg as canvas
from benchmarks.report_html.svg import FAINT, INK, Plot, PlotStyle, short_name, shorten
from benchmarks.report_html.tradeoffs import sweep
from benchmarks.stats import intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST = 5
"""Samples that a distribution is drawn of."""

QUANTILES = ((0.5, "p50", "o"), (0.99, "p99", "s"), (0.999, "p99.9", "D"))


def distribution(results: Sequence[Result], look: PlotStyle, place: str) -> Plot | None:
    """The density of each result's latencies on a logarithmic axis; ``None`` if no result has enough."""
    shown = [result for result in results if len(_latencies(result)) >= FEWEST]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set(xscale="log", xlabel="ms per call")
        for row, result in enumerate(shown):
            _violin(axes, row, result, look)
        canvas.label_rows(axes, [short_name(result) for result in shown])
        canvas.plain_ticks(axes, "x")

    medians = [intervals.quantile(_latencies(result), 0.5) for result in shown]
    span = f"from {milliseconds(min(medians))} to {milliseconds(max(medians))} ms"
    spoken = f"Latencies of {_list_names(shown)}: medians {span}"
    caption = (
        "Distribution of the latency of single calls over all processes, on a logarithmic axis. Long tick: p50. Short "
        f"tick: p99, where there are {intervals.MIN_SAMPLES[0.99]:,} calls. Dot: slowest call."
    )
    title, height_in = f"Latency, batch {shown[0].identity.batch}", 0.9 + 0.34 * len(shown)
    return canvas.render(f"{place}-distribution", "distribution", title, caption, spoken, height_in, draw)


def _latencies(result: Result) -> NDArray[np.float64]:
    samples = [sample for process in result.samples for sample in process.latency.samples_s]
    return np.asarray([sample for sample in samples if sample > 0], dtype=np.float64)


def _violin(axes: Axes, row: int, result: Result, look: PlotStyle) -> None:
    from matplotlib.cbook import violin_stats
    from matplotlib.mlab import GaussianKDE

    def density(values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
        if values[0] == values[-1]:
            return np.ones_like(at)
        return np.asarray(GaussianKDE(values).evaluate(at), dtype=np.float64)

    taken = 1e3 * _latencies(result)
    logs = np.quantile(np.log(taken), np.linspace(0, 1, min(2000, len(taken))))  # they stand for all
    (shape,) = violin_stats(logs, density, points=120)
    half = 0.38 * shape["vals"] / shape["vals"].max()
    x, colour = np.exp(shape["coords"]), look.colour(result)
    axes.fill_between(x, row - half, row + half, color=colour, alpha=0.55, linewidth=0.6)
    axes.plot([np.median(taken)] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=1.6)
    if intervals.enough_for(taken, 0.99):
        axes.plot([np.quantile(taken, 0.99)] * 2, [row - 0.2, row + 0.2], color=INK, linewidth=1.2)
    axes.plot(taken.max(), row, marker=".", color=FAINT, markersize=4)


def drift(results: Sequence[Result], look: PlotStyle, place: str) -> Plot | None:
    """Each round's median against its result's, by when the round began; ``None`` if there are not two rounds."""
    shown = [result for result in results if sum(len(process.latency.rounds_s) for process in result.samples) > 1]
    shown = [result for result in shown if len(_latencies(result)) >= FEWEST]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=FAINT, linewidth=1)
        for result in shown:
            for when, change in _rounds(result):
                axes.plot(
                    when, change, markersize=4, linewidth=1, alpha=0.85, label=short_name(result), **look.of(result)
                )
        canvas.legend_below(figure, axes)
        low, high = axes.get_ylim()
        axes.set(
            ylim=(min(low, -1), max(high, 1)),
            xlabel="seconds since the run began",
            ylabel="deviation from the median, %",
        )

    largest = max(abs(change) for result in shown for _, changes in _rounds(result) for change in changes)
    spoken = f"Medians of the rounds of {_list_names(shown)} over time: at most {largest:.1f} % from the median of all"
    caption = (
        "Each point is the median of one round, each line one process. A change of all configurations at once comes "
        "from the machine. A step between two lines comes from the new process."
    )
    title, height_in = (
        f"Drift over the run, batch {shown[0].identity.batch}",
        2.9 + canvas.legend_in({short_name(result) for result in shown}),
    )
    return canvas.render(f"{place}-drift", "drift", title, caption, spoken, height_in, draw)


def _rounds(result: Result) -> list[tuple[list[float], list[float]]]:
    """Of each process: when its rounds began, and by how many percent their medians are off the result's."""
    median = float(np.median(_latencies(result)))
    found = []
    for process in result.samples:
        pairs = [(when, samples) for when, samples in zip(process.starts_s, process.latency.rounds_s, strict=False)]
        kept = [(when, 100 * (float(np.median(samples)) / median - 1)) for when, samples in pairs if samples]
        if kept:
            found.append(([when for when, _ in kept], [change for _, change in kept]))
    return found


def _list_names(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(map(short_name, results)))
    return ", ".join(names) if len(names) <= 6 else f"{len(names)} configurations"


def load_plots(results: Sequence[Figures], look: PlotStyle, place: str) -> Iterator[Plot]:
    """The plots of load shapes of one network."""
    measured = [figures for figures in results if figures.result.status == "ok"]
    loads = [(figures, figures.result.load) for figures in measured if figures.result.load is not None]
    warm = [(figures, load) for figures, load in loads if load.shape != "cold" and load.services_s]
    if warm:
        yield _responses(warm, look, f"{place}-responses")
    for kind, (word, size) in SWEPT.items():
        swept = [figures for figures, load in loads if load.shape == kind]
        found = sweep(swept, look, place, kind, size, (f"Throughput by {word}", word))
        if found is not None:
            yield found
    cold = [(figures, load) for figures, load in loads if load.shape == "cold" and load.steps_s]
    if cold:
        yield _cold(cold, f"{place}-cold")


def _responses(loads: Sequence[tuple[Figures, LoadResult]], look: PlotStyle, place: str) -> Plot:
    several = len({short_name(figures.result) for figures, _ in loads}) > 1

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set(xscale="log", xlabel="ms")
        for at, (figures, load) in enumerate(loads):
            _span(axes, at - 0.17, load.services_s, look.colour(figures.result), "none")
            _span(axes, at + 0.17, load.responses_s, look.colour(figures.result), "full")
        labels = [shape(figures) + (f"\n{short_name(figures.result)}" if several else "") for figures, _ in loads]
        canvas.label_rows(axes, labels)
        canvas.plain_ticks(axes, "x")
        for _, label, marker in QUANTILES:
            axes.plot([], [], color=INK, marker=marker, markersize=5, linestyle="none", label=label)
        axes.plot([], [], color=INK, marker="|", markersize=8, linestyle="none", label="slowest")
        axes.plot([], [], color=INK, marker="o", markersize=5, fillstyle="none", linewidth=1, label="service")
        axes.plot([], [], color=INK, marker="o", markersize=5, linewidth=1, label="response")
        canvas.legend_below(figure, axes)

    worst, slowest_s = max(((figures, max(load.responses_s)) for figures, load in loads), key=lambda pair: pair[1])
    slowest = f"the slowest response, {1e3 * slowest_s:,.1f} ms, belongs to {shape(worst)}"
    spoken = f"Service and response times of {len(loads)} load shapes: {slowest}"
    caption = (
        "Upper line, hollow: service time, the duration of the call. Lower line, filled: response time, from the "
        "intended start of the request. In a single stream the two are equal, because each request waits for the "
        "answer before it. Only a server shows how long requests wait behind a stall."
    )
    height_in = 1.5 + (0.5 if several else 0.42) * len(loads)
    return canvas.render(place, "responses", "Service and response time", caption, spoken, height_in, draw)


def _span(axes: Axes, at: float, samples_s: Sequence[float], colour: str, fill: Literal["full", "none"]) -> None:
    """A line from the median to the slowest, with a mark at each quantile that there are the samples for."""
    taken = 1e3 * np.asarray(samples_s)
    axes.plot([np.median(taken), taken.max()], [at, at], color=colour, linewidth=1)
    for q, _, marker in QUANTILES:
        if intervals.enough_for(taken, q):
            point = float(np.quantile(taken, q))
            axes.plot(point, at, color=colour, linestyle="none", marker=marker, markersize=5, fillstyle=fill)
    axes.plot(taken.max(), at, color=colour, marker="|", markersize=8)


def _cold(loads: Sequence[tuple[Figures, LoadResult]], place: str) -> Plot:
    answered = [
        (short_name(figures.result), [one for one in load.steps_s if one[0] != STEADY]) for figures, load in loads
    ]
    steps = list(dict.fromkeys(step for _, taken in answered for step, _ in taken))
    shades = dict(zip(steps, np.linspace(1.0, 0.25, len(steps)), strict=True))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for at, (_, taken) in enumerate(answered):
            left = 0.0
            for step, seconds in taken:
                shade = {"color": FAINT, "alpha": shades[step]}
                axes.barh(at, 1e3 * seconds, left=left, height=0.6, label=shorten(step), **shade)
                left += 1e3 * seconds
        canvas.legend_below(figure, axes)
        canvas.label_rows(axes, [label for label, _ in answered])
        axes.set_xlabel("ms since the process began")

    totals = [(label, 1e3 * sum(seconds for _, seconds in taken)) for label, taken in answered]
    spoken = "Cold start: " + ", ".join(f"{label} {total:,.0f} ms" for label, total in totals)
    caption = (
        "A fresh process for each sample; its files are already in the system's cache. Medians of the steps up to the "
        "first answer."
    )
    return canvas.render(place, "cold", "Cold start", caption, spoken, 1.3 + 0.4 * len(answered), draw)
