"""Plots of what a configuration is worth: speed against accuracy, throughput by batch, and the machine's roof."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.analysis.ranking import name
from benchmarks.records.result import Row
from benchmarks.records.roof import Roof
from benchmarks.report_html import svg as canvas
from benchmarks.report_html.svg import FAINT, INK, Plot, PlotStyle
from benchmarks.stats.knee import KNEE, knee
from benchmarks.tuning import pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_SPAN = 0.01
"""Of the axis of top-1: what differs by less than a point is not blown up."""


def front(rows: Sequence[Row], look: PlotStyle, place: str) -> Plot | None:
    """Latency against top-1 with the Pareto front; ``None`` where accuracy was not measured."""
    found = [(row, pareto.candidate(row, "latency", -row.top1)) for row in rows if row.top1 is not None]
    candidates = [one for _, one in found if one is not None]
    if not candidates:
        return None
    batch = min(one.row.batch for one in candidates)
    candidates = [one for one in candidates if one.row.batch == batch]
    best = sorted(pareto.front(candidates), key=lambda one: one.cost_s)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        line = [(1e3 * one.cost_s, -100 * one.accuracy_drop) for one in best]
        axes.step(*zip(*line, strict=True), where="post", color=FAINT, linewidth=1.2, linestyle="--", label="front")
        with canvas.legend_below(axes):
            for one in candidates:
                _point(axes, one.row, look)
        _at_least(axes, 100 * LEAST_SPAN)
        axes.set_xlim(*_pad_limits(axes.get_xlim()))
        axes.set_xlabel("p50, ms a call")
        axes.set_ylabel("top-1, %")
        canvas.plain_ticks(axes, "x")

    names = ", ".join(name(one.row) for one in best)
    spoken = f"Top-1 against p50 of {len(candidates)} configurations at batch {batch}. On the front: {names}"
    caption = (
        f"Further left is faster, further up is more often right, at batch {batch}. Bars: 95 % intervals. Nothing that "
        "was measured is both faster and more accurate than what lies on the dashed front."
    )
    rows_of_legend = -(-(len({name(one.row) for one in candidates}) + 1) // 3)
    svg = canvas.render_svg(f"{place}-front", 3.0 + 0.2 * rows_of_legend, draw, spoken)
    return Plot("front", "Latency against accuracy", caption, spoken, svg)


def _point(axes: Axes, row: Row, look: PlotStyle) -> None:
    assert row.p50_s is not None
    assert row.top1 is not None
    x, y = 1e3 * row.p50_s, 100 * row.top1
    low, high = row.p50_interval_s or (row.p50_s, row.p50_s)
    worst, best = row.top1_interval or (row.top1, row.top1)
    axes.errorbar(
        x,
        y,
        xerr=[[max(0.0, x - 1e3 * low)], [max(0.0, 1e3 * high - x)]],
        yerr=[[max(0.0, y - 100 * worst)], [max(0.0, 100 * best - y)]],
        color=look.colour(row),
        marker=look.marker(row),
        markersize=7,
        alpha=0.8,
        elinewidth=0.9,
        linestyle="none",
        label=name(row),
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


def throughput(rows: Sequence[Row], look: PlotStyle, place: str) -> Plot | None:
    """Images a second by batch; ``None`` if nothing was measured with two batches."""
    words = ("Throughput by batch", "images a call", "images/s")
    return sweep(rows, look, f"{place}-throughput", "throughput", lambda row: row.batch, words)


def sweep(
    rows: Sequence[Row], look: PlotStyle, place: str, kind: str, size: Callable[[Row], int], words: tuple[str, str, str]
) -> Plot | None:
    """Images a second by what grows, a line for each configuration, its knee marked. ``words``: the title and what
    stands at the two axes."""
    lines: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row.images_per_s:
            lines.setdefault(name(row), {})[size(row)] = row
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

    fastest = {label: max(row.images_per_s or 0 for row in line.values()) for label, line in lines.items()}
    best = max(fastest, key=lambda label: fastest[label])
    spoken = f"{words[2]} by {words[1]} of {len(lines)} configurations: the most is {fastest[best]:,.0f} of {best}"
    caption = (
        f"The ring marks the knee: the smallest that comes within {KNEE:.0%} of the line's best. Both axes are "
        "logarithmic."
    )
    svg = canvas.render_svg(place, 3.0 + 0.2 * -(-len(lines) // 3), draw, spoken)
    return Plot(kind, words[0], caption, spoken, svg)


def _plot_line(axes: Axes, label: str, line: dict[int, Row], look: PlotStyle) -> None:
    points = [(at, row.images_per_s or 0.0) for at, row in line.items()]
    first = next(iter(line.values()))
    colour = look.colour(first)
    axes.plot(*zip(*points, strict=True), markersize=5, label=label, color=colour, marker=look.marker(first))
    found = knee(points)
    if found is not None:
        axes.plot(found, dict(points)[found], markersize=12, fillstyle="none", color=colour, marker="o")


def roofline(rows: Sequence[Row], look: PlotStyle, place: str) -> Plot | None:
    """What was reached against what the machine's ceilings allow; ``None`` where they were not measured."""
    found = [(row, row.roof, row.compute_p50_s) for row in rows if row.roof and row.compute_p50_s]
    if not found:
        return None
    points = [(row, _intensity(roof), roof.multiply_adds / seconds / 1e9) for row, roof, seconds in found]
    ceilings: dict[tuple[float, float], str] = {}
    for row, roof, _ in found:
        key = (roof.peak_multiply_adds_per_s, roof.bandwidth_bytes_per_s)
        ceilings.setdefault(key, (row.arithmetic or "").split(",")[0].split(" ")[0])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        least, most = min(x for _, x, _ in points) / 4, max(x for _, x, _ in points) * 8
        for (peak, bandwidth), label in ceilings.items():
            _ceiling(axes, peak, bandwidth, label, least, most)
        with canvas.legend_below(axes):
            for row, x, y in points:
                colour, marker = look.colour(row), look.marker(row)
                axes.plot(x, y, markersize=7, linestyle="none", label=name(row), color=colour, marker=marker)
        axes.set_xlim(least, most)
        axes.set_xlabel("multiply-adds for each byte that must move")
        axes.set_ylabel("billion multiply-adds a second")
        canvas.plain_ticks(axes, "y")
        canvas.plain_ticks(axes, "x")

    shares = {f"{name(row)}, batch {row.batch}": roof.share for row, roof, _ in found}
    best = max(shares, key=lambda label: shares[label])
    spoken = f"Roofline of {len(shares)} configurations: {best} reaches {shares[best]:.0%} of what the machine allows"
    caption = (
        "The lines are ceilings that were measured on this machine with as many threads: to the left the memory's, to "
        "the right the arithmetic's. How far a point lies beneath its line is what the runtime leaves."
    )
    svg = canvas.render_svg(
        f"{place}-roofline", 3.2 + 0.2 * -(-len({name(row) for row, _, _ in points}) // 3), draw, spoken
    )
    return Plot("roofline", "Roofline", caption, spoken, svg)


def _intensity(roof: Roof) -> float:
    return roof.multiply_adds / roof.traffic_bytes


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
