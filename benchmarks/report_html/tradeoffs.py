"""Plots of trade-offs: latency against accuracy, throughput by batch size, and the roofline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.analysis.figures import Figures, negate
from benchmarks.analysis.ranking import name
from benchmarks.records.result import Result
from benchmarks.report_html import svg as canvas
from benchmarks.report_html.svg import FAINT, INK, Plot, PlotStyle, short_name, shorten
from benchmarks.stats.knee import KNEE, knee
from benchmarks.tuning import pareto
from benchmarks.tuning.pareto import ParetoPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def front(results: Sequence[Figures], look: PlotStyle, place: str) -> Plot | None:
    """Latency against top-1 with the Pareto front; ``None`` where accuracy was not measured."""
    found = [
        pareto.candidate(figures, "latency", negate(figures.top1)) for figures in results if figures.top1 is not None
    ]
    candidates = [one for one in found if one is not None]
    if not candidates:
        return None
    batch = min(one.figures.result.identity.batch for one in candidates)
    candidates = [one for one in candidates if one.figures.result.identity.batch == batch]
    best = sorted(pareto.front(candidates), key=lambda one: one.cost_s.value)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set(xscale="log", xlabel="p50, ms per call", ylabel="top-1, %")
        line = [(1e3 * one.cost_s.value, -100 * one.accuracy_drop.value) for one in best]
        axes.step(
            *zip(*line, strict=True), where="post", color=FAINT, linewidth=1.2, linestyle="--", label="Pareto front"
        )
        for one in candidates:
            _point(axes, one, look)
        canvas.legend_below(figure, axes)
        low, high = axes.get_ylim()
        middle, half = (low + high) / 2, max(high - low, 1) / 2  # less than a point is not blown up
        axes.set(xlim=_pad_limits(axes.get_xlim()), ylim=(middle - half, middle + half))
        canvas.plain_ticks(axes, "x")

    names = ", ".join(short_name(one.figures.result) for one in best)
    spoken = f"Top-1 against p50 of {len(candidates)} configurations at batch {batch}. Pareto-optimal: {names}"
    caption = (
        f"Left is faster, up is more accurate, at batch {batch}. Bars: 95 % intervals. No configuration is both faster "
        "and more accurate than one on the dashed Pareto front."
    )
    height_in = 3.0 + canvas.legend_in({"Pareto front", *(short_name(one.figures.result) for one in candidates)})
    return canvas.render(f"{place}-front", "front", "Latency against accuracy", caption, spoken, height_in, draw)


def _point(axes: Axes, point: ParetoPoint, look: PlotStyle) -> None:
    result, cost, drop = point.figures.result, point.cost_s, point.accuracy_drop
    x, y = 1e3 * cost.value, -100 * drop.value
    (low, high), (least, most) = (each.interval or (each.value, each.value) for each in (cost, drop))
    sides = [[max(0.0, x - 1e3 * low)], [max(0.0, 1e3 * high - x)]]
    ends = [[max(0.0, y + 100 * most)], [max(0.0, -100 * least - y)]]
    dots = {**look.of(result), "markersize": 7, "alpha": 0.8, "elinewidth": 0.9, "linestyle": "none"}
    axes.errorbar(x, y, xerr=sides, yerr=ends, label=short_name(result), **dots)


def _pad_limits(limits: tuple[float, float]) -> tuple[float, float]:
    """The ends of a logarithmic axis, at least a factor of 1.5 from end to end."""
    low, high = limits
    factor = max(1.0, math.sqrt(1.5 / (high / low)))
    return low / factor, high * factor


def sweep(
    results: Sequence[Figures],
    look: PlotStyle,
    place: str,
    kind: str,
    size: Callable[[Figures], int],
    words: tuple[str, str],
) -> Plot | None:
    """Images a second by what grows, a line for each configuration, its knee marked; ``None`` if nothing was measured
    with two sizes. ``words``: the title and what grows."""
    lines: dict[str, dict[int, float]] = {}
    looks: dict[str, dict[str, Any]] = {}
    for figures in results:
        if figures.images_per_s:
            label = name(figures.result)
            lines.setdefault(label, {})[size(figures)] = figures.images_per_s
            looks[label] = look.of(figures.result)
    lines = {label: dict(sorted(line.items())) for label, line in lines.items() if len(line) > 1}
    if not lines:
        return None
    title, grows = words

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log", base=2)
        axes.set(yscale="log", xlabel=grows, ylabel="images/s")
        for label, line in lines.items():
            axes.plot(list(line), list(line.values()), markersize=5, label=shorten(label), **looks[label])
            ring = knee(list(line.items()))
            if ring is not None:
                faces = {**looks[label], "marker": "o", "markersize": 12, "fillstyle": "none"}
                axes.plot(ring, line[ring], **faces)
        canvas.legend_below(figure, axes)
        sizes = sorted({at for line in lines.values() for at in line})
        axes.set_xticks(sizes, [f"{at:,}" for at in sizes])
        axes.minorticks_off()
        axes.set_ylim(*_pad_limits(axes.get_ylim()))
        canvas.plain_ticks(axes, "y")

    fastest = {label: max(line.values()) for label, line in lines.items()}
    best = max(fastest, key=lambda label: fastest[label])
    spoken = f"images/s by {grows} of {len(lines)} configurations: {shorten(best)} reaches {fastest[best]:,.0f}"
    within = f"the smallest value within {100 * KNEE:.0f} % of the line's best"
    caption = f"Ring: the knee, {within}. Both axes are logarithmic."
    return canvas.render(
        f"{place}-{kind}", kind, title, caption, spoken, 3.0 + canvas.legend_in({*map(shorten, lines)}), draw
    )


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
        shares[f"{short_name(result)}, batch {result.identity.batch}"] = roof.least_s / compute.value
    if not points:
        return None
    least, most = min(x for _, x, _ in points) / 4, max(x for _, x, _ in points) * 8

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log")
        axes.set(xlabel="multiply-adds per byte of memory traffic", ylabel="billion multiply-adds/s")
        around: dict[str, Any] = {
            "textcoords": "offset points",
            "ha": "right",
            "va": "bottom",
            "fontsize": 9,
            "color": INK,
        }
        for (peak, bandwidth), label in ceilings.items():
            x = np.geomspace(least, most, 60)
            axes.plot(x, np.minimum(peak, bandwidth * x) / 1e9, color=FAINT, linewidth=1.2)
            axes.annotate(f"{shorten(label)} {peak / 1e9:,.0f} G/s", (most, peak / 1e9), xytext=(-3, 2), **around)
        for result, at, reached in points:
            axes.plot(at, reached, markersize=7, linestyle="none", label=short_name(result), **look.of(result))
        canvas.legend_below(figure, axes)
        axes.set_xlim(least, most)
        canvas.plain_ticks(axes, "y")
        canvas.plain_ticks(axes, "x")

    best = max(shares, key=lambda label: shares[label])
    spoken = f"Roofline of {len(shares)} configurations: {best} reaches {100 * shares[best]:.0f} % of its ceiling"
    caption = (
        "Lines: ceilings measured on this machine with the same number of threads. The slope is the memory bandwidth, "
        "the level the peak arithmetic. The distance of a point below its line is the unused part."
    )
    height_in = 3.2 + canvas.legend_in({short_name(result) for result, _, _ in points})
    return canvas.render(f"{place}-roofline", "roofline", "Roofline", caption, spoken, height_in, draw)
