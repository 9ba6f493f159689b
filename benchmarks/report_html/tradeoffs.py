"""Plots of what a configuration is worth: speed against accuracy, throughput by batch, and the machine's roof."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.ranking import name
from benchmarks.records.result import Estimate, Result
from benchmarks.report_html import svg as canvas
from benchmarks.report_html.svg import FAINT, INK, Plot, PlotStyle
from benchmarks.stats.knee import KNEE, knee
from benchmarks.tuning import pareto
from benchmarks.tuning.pareto import ParetoPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_SPAN = 0.01
"""Of the axis of top-1: what differs by less than a point is not blown up."""


def front(results: Sequence[Figures], look: PlotStyle, place: str) -> Plot | None:
    """Latency against top-1 with the Pareto front; ``None`` where accuracy was not measured."""
    found = [
        pareto.candidate(figures, "latency", Estimate(-figures.top1.value, -figures.top1.high, -figures.top1.low))
        for figures in results
        if figures.top1 is not None
    ]
    candidates = [one for one in found if one is not None]
    if not candidates:
        return None
    batch = min(one.figures.result.identity.batch for one in candidates)
    candidates = [one for one in candidates if one.figures.result.identity.batch == batch]
    best = sorted(pareto.front(candidates), key=lambda one: one.cost_s.value)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        line = [(1e3 * one.cost_s.value, -100 * one.accuracy_drop.value) for one in best]
        axes.step(*zip(*line, strict=True), where="post", color=FAINT, linewidth=1.2, linestyle="--", label="front")
        with canvas.legend_below(axes):
            for one in candidates:
                _point(axes, one, look)
        _at_least(axes, 100 * LEAST_SPAN)
        axes.set_xlim(*_pad_limits(axes.get_xlim()))
        axes.set_xlabel("p50, ms a call")
        axes.set_ylabel("top-1, %")
        canvas.plain_ticks(axes, "x")

    names = ", ".join(name(one.figures.result) for one in best)
    spoken = f"Top-1 against p50 of {len(candidates)} configurations at batch {batch}. On the front: {names}"
    caption = (
        f"Further left is faster, further up is more often right, at batch {batch}. Bars: 95 % intervals. Nothing that "
        "was measured is both faster and more accurate than what lies on the dashed front."
    )
    rows_of_legend = -(-(len({name(one.figures.result) for one in candidates}) + 1) // 3)
    svg = canvas.render_svg(f"{place}-front", 3.0 + 0.2 * rows_of_legend, draw, spoken)
    return Plot("front", "Latency against accuracy", caption, spoken, svg)


def _point(axes: Axes, point: ParetoPoint, look: PlotStyle) -> None:
    result, cost, drop = point.figures.result, point.cost_s, point.accuracy_drop
    x, y = 1e3 * cost.value, -100 * drop.value
    axes.errorbar(
        x,
        y,
        xerr=[[max(0.0, x - 1e3 * cost.low)], [max(0.0, 1e3 * cost.high - x)]],
        yerr=[[max(0.0, y + 100 * drop.high)], [max(0.0, -100 * drop.low - y)]],
        color=look.colour(result),
        marker=look.marker(result),
        markersize=7,
        alpha=0.8,
        elinewidth=0.9,
        linestyle="none",
        label=name(result),
    )


def _at_least(axes: Axes, span: float) -> None:
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max(high - low, span) / 2
    axes.set_ylim(middle - half, middle + half)


def _pad_limits(limits: tuple[float, float]) -> tuple[float, float]:
    """The ends of a logarithmic axis, at least a factor of 1.5 from end to end."""
    low, high = limits
    factor = max(1.0, math.sqrt(1.5 / (high / low)))
    return low / factor, high * factor


def throughput(results: Sequence[Figures], look: PlotStyle, place: str) -> Plot | None:
    """Images a second by batch; ``None`` if nothing was measured with two batches."""
    words = ("Throughput by batch", "images a call", "images/s")
    return sweep(
        results, look, f"{place}-throughput", "throughput", lambda figures: figures.result.identity.batch, words
    )


def sweep(
    results: Sequence[Figures],
    look: PlotStyle,
    place: str,
    kind: str,
    size: Callable[[Figures], int],
    words: tuple[str, str, str],
) -> Plot | None:
    """Images a second by what grows, a line for each configuration, its knee marked. ``words``: the title and what
    stands at the two axes."""
    lines: dict[str, dict[int, Figures]] = {}
    for figures in results:
        if figures.images_per_s:
            lines.setdefault(name(figures.result), {})[size(figures)] = figures
    lines = {label: dict(sorted(line.items())) for label, line in lines.items() if len(line) > 1}
    if not lines:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        with canvas.legend_below(axes):
            for label, line in lines.items():
                _plot_line(axes, label, line, look)
        sizes = sorted({at for line in lines.values() for at in line})
        axes.set_xticks(sizes, [f"{at:,}" for at in sizes])
        axes.minorticks_off()
        axes.set_ylim(*_pad_limits(axes.get_ylim()))
        axes.set_xlabel(words[1])
        axes.set_ylabel(words[2])
        canvas.plain_ticks(axes, "y")

    fastest = {label: max(figures.images_per_s or 0 for figures in line.values()) for label, line in lines.items()}
    best = max(fastest, key=lambda label: fastest[label])
    spoken = f"{words[2]} by {words[1]} of {len(lines)} configurations: the most is {fastest[best]:,.0f} of {best}"
    caption = (
        f"The ring marks the knee: the smallest that comes within {KNEE:.0%} of the line's best. Both axes are "
        "logarithmic."
    )
    svg = canvas.render_svg(place, 3.0 + 0.2 * -(-len(lines) // 3), draw, spoken)
    return Plot(kind, words[0], caption, spoken, svg)


def _plot_line(axes: Axes, label: str, line: dict[int, Figures], look: PlotStyle) -> None:
    points = [(at, figures.images_per_s or 0.0) for at, figures in line.items()]
    first = next(iter(line.values()))
    colour = look.colour(first.result)
    axes.plot(*zip(*points, strict=True), markersize=5, label=label, color=colour, marker=look.marker(first.result))
    found = knee(points)
    if found is not None:
        axes.plot(found, dict(points)[found], markersize=12, fillstyle="none", color=colour, marker="o")


def roofline(results: Sequence[Figures], look: PlotStyle, place: str) -> Plot | None:
    """What was reached against what the machine's ceilings allow; ``None`` where they were not measured."""
    points: list[tuple[Result, float, float]] = []
    ceilings: dict[tuple[float, float], str] = {}
    shares: dict[str, float] = {}
    for figures in results:
        result, roof, compute = figures.result, figures.result.roof, figures.compute_p50
        if roof is None or compute is None or not compute.value:
            continue
        intensity = roof.multiply_adds / roof.traffic_bytes
        points.append((result, intensity, roof.multiply_adds / compute.value / 1e9))
        key = (roof.peak_multiply_adds_per_s, roof.bandwidth_bytes_per_s)
        ceilings.setdefault(key, (result.ran.arithmetic or "").split(",")[0].split(" ")[0])
        shares[f"{name(result)}, batch {result.identity.batch}"] = roof.least_s / compute.value
    if not points:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        least, most = min(x for _, x, _ in points) / 4, max(x for _, x, _ in points) * 8
        for (peak, bandwidth), label in ceilings.items():
            _ceiling(axes, peak, bandwidth, label, least, most)
        with canvas.legend_below(axes):
            for result, x, y in points:
                colour, marker = look.colour(result), look.marker(result)
                axes.plot(x, y, markersize=7, linestyle="none", label=name(result), color=colour, marker=marker)
        axes.set_xlim(least, most)
        axes.set_xlabel("multiply-adds for each byte that must move")
        axes.set_ylabel("billion multiply-adds a second")
        canvas.plain_ticks(axes, "y")
        canvas.plain_ticks(axes, "x")

    best = max(shares, key=lambda label: shares[label])
    spoken = f"Roofline of {len(shares)} configurations: {best} reaches {shares[best]:.0%} of what the machine allows"
    caption = (
        "The lines are ceilings that were measured on this machine with as many threads: to the left the memory's, to "
        "the right the arithmetic's. How far a point lies beneath its line is what the runtime leaves."
    )
    svg = canvas.render_svg(
        f"{place}-roofline", 3.2 + 0.2 * -(-len({name(result) for result, _, _ in points}) // 3), draw, spoken
    )
    return Plot("roofline", "Roofline", caption, spoken, svg)


def _ceiling(axes: Axes, peak: float, bandwidth: float, label: str, least: float, most: float) -> None:
    x = np.geomspace(least, most, 60)
    axes.plot(x, np.minimum(peak, bandwidth * x) / 1e9, color=FAINT, linewidth=1.2)
    axes.annotate(
        f"{label} {peak / 1e9:,.0f} G/s",
        (most, peak / 1e9),
        xytext=(-3, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=9,
        color=INK,
    )
