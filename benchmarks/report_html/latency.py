"""Plots of time: how the calls' durations are distributed, and how they drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.ranking import name
from benchmarks.format import milliseconds
from benchmarks.records.result import Result
from benchmarks.report_html import svg as canvas
from benchmarks.report_html.svg import FAINT, INK, Plot, PlotStyle
from benchmarks.stats import intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT = 2000
"""Quantiles that stand for all of a result's samples in the drawing of their density."""

FEWEST = 5
"""Samples that a distribution is drawn of."""

ROW_IN, FRAME_IN = 0.34, 0.9
"""Height of a result in a drawing, and of all around them."""


def distribution(results: Sequence[Result], look: PlotStyle, place: str) -> Plot | None:
    """The density of each result's latencies on a logarithmic axis; ``None`` if no result has enough."""
    shown = [result for result in results if len(_latencies(result)) >= FEWEST]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        for place, result in enumerate(shown):
            _violin(axes, place, result, look)
        axes.set_yticks(range(len(shown)), [name(result) for result in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("ms a call")
        canvas.plain_ticks(axes, "x")

    medians = [intervals.quantile(_latencies(result), 0.5) for result in shown]
    span = f"from {milliseconds(min(medians))} to {milliseconds(max(medians))} ms"
    spoken = f"Latencies of {_list_names(shown)}: medians {span}"
    caption = (
        "How often a call took how long, of all processes together, on a logarithmic axis. The long tick is p50, "
        f"the short one p99, from {intervals.MIN_SAMPLES[0.99]:,} calls on; the dot is the slowest call."
    )
    title = f"Latency, batch {shown[0].identity.batch}"
    svg = canvas.render_svg(f"{place}-distribution", FRAME_IN + ROW_IN * len(shown), draw, spoken)
    return Plot("distribution", title, caption, spoken, svg)


def _latencies(result: Result) -> NDArray[np.float64]:
    samples = [sample for process in result.samples for sample in process.latency.samples_s]
    return np.asarray([sample for sample in samples if sample > 0], dtype=np.float64)


def _violin(axes: Axes, place: int, result: Result, look: PlotStyle) -> None:
    from matplotlib.cbook import violin_stats
    from matplotlib.mlab import GaussianKDE

    def density(values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
        if values[0] == values[-1]:
            return np.ones_like(at)
        return np.asarray(GaussianKDE(values).evaluate(at), dtype=np.float64)

    taken = 1e3 * _latencies(result)
    logs = np.quantile(np.log(taken), np.linspace(0, 1, min(KEPT, len(taken))))
    (shape,) = violin_stats(logs, density, points=120)
    axes.fill_between(
        np.exp(shape["coords"]),
        place - 0.38 * shape["vals"] / shape["vals"].max(),
        place + 0.38 * shape["vals"] / shape["vals"].max(),
        color=look.colour(result),
        alpha=0.55,
        linewidth=0.6,
    )
    axes.plot([np.median(taken)] * 2, [place - 0.36, place + 0.36], color=INK, linewidth=1.6)
    if intervals.enough_for(taken, 0.99):
        axes.plot([np.quantile(taken, 0.99)] * 2, [place - 0.2, place + 0.2], color=INK, linewidth=1.2)
    axes.plot(taken.max(), place, marker=".", color=FAINT, markersize=4)


def drift(results: Sequence[Result], look: PlotStyle, place: str) -> Plot | None:
    """Each round's median against its result's, by when the round began; ``None`` if there are not two rounds."""
    shown = [result for result in results if sum(len(process.latency.rounds_s) for process in result.samples) > 1]
    shown = [result for result in shown if len(_latencies(result)) >= FEWEST]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=FAINT, linewidth=1)
        with canvas.legend_below(axes):
            for result in shown:
                for when, change in _rounds(result):
                    axes.plot(
                        when,
                        change,
                        color=look.colour(result),
                        marker=look.marker(result),
                        markersize=4,
                        linewidth=1,
                        alpha=0.85,
                        label=name(result),
                    )
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -1), max(high, 1))
        axes.set_xlabel("seconds since the run began")
        axes.set_ylabel("% off the row's median")

    largest = max(abs(change) for result in shown for _, changes in _rounds(result) for change in changes)
    spoken = f"Medians of the rounds of {_list_names(shown)} over time: at most {largest:.1f} % off their row's median"
    caption = (
        "Each point is the median of one round's turn, each line one process. What all rows show at the same time the "
        "machine did; a step between lines is what another process of the same program makes."
    )
    legend = 0.2 * -(-len(shown) // 3)
    return Plot(
        "drift",
        f"Drift over the run, batch {shown[0].identity.batch}",
        caption,
        spoken,
        canvas.render_svg(f"{place}-drift", 2.9 + legend, draw, spoken),
    )


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
    names = list(dict.fromkeys(map(name, results)))
    return ", ".join(names) if len(names) <= 6 else f"{len(names)} configurations"
