"""Plots of trade-offs: latency against accuracy, throughput by batch size, and the roofline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.analysis.figures import Figures, negate
from benchmarks.analysis.ranking import name
from benchmarks.format import count
from benchmarks.records.result import Result
from benchmarks.report_html import svg as canvas
from benchmarks.report_html.svg import FAINT, INK, Plot, PlotStyle, short_name, shorten
from benchmarks.stats.knee import KNEE, knee
from benchmarks.tuning import pareto
from benchmarks.tuning.findings import TuningResult
from benchmarks.tuning.pareto import Choice, ParetoPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Tradeoff:
    """Candidates with their cost and accuracy as a plot shows them.

    Attributes:
        points: The candidates.
        front: The Pareto-optimal ones.
        labels: The words beside a candidate, by its identity.
        best: The chosen candidate, which has a ring.
        limit: The accuracy limit as a change in percentage points; ``None`` for none.
        axes: The labels of both axes.
    """

    points: Sequence[ParetoPoint]
    front: Sequence[ParetoPoint]
    axes: tuple[str, str]
    labels: Mapping[int, str] = field(default_factory=dict)
    best: ParetoPoint | None = None
    limit: float | None = None

    def draw(self, figure: Figure, look: PlotStyle) -> None:
        """Draws all of it on an empty figure."""
        axes = figure.subplots()
        axes.set(xscale="log", xlabel=self.axes[0], ylabel=self.axes[1])
        ordered = sorted(self.front, key=lambda one: one.cost_s.value)
        line = [(1e3 * one.cost_s.value, -100 * one.accuracy_drop.value) for one in ordered]
        axes.step(
            *zip(*line, strict=True), where="post", color=FAINT, linewidth=1.2, linestyle="--", label="Pareto front"
        )
        if self.limit is not None:
            axes.axhline(self.limit, color=FAINT, linewidth=1.0, linestyle=":", label="accuracy limit")
        for one in self.points:
            dominated = bool(self.labels) and not any(one is other for other in self.front)
            _draw_point(axes, one, look, 0.3 if dominated else 0.8)
        for one, (x, y) in zip(ordered, line, strict=True):
            if (words := self.labels.get(id(one))) is not None:
                axes.annotate(words, (x, y), xytext=(7, -12), textcoords="offset points", fontsize=8, color=INK)
        if self.best is not None:
            at = 1e3 * self.best.cost_s.value, -100 * self.best.accuracy_drop.value
            axes.plot(*at, label="chosen", color=INK, marker="o", markersize=15, fillstyle="none", linestyle="none")
        canvas.legend_below(figure, axes)
        low, high = axes.get_ylim()
        middle, half = (low + high) / 2, max(high - low, 1) / 2  # less than a point is not blown up
        axes.set(xlim=_pad_limits(axes.get_xlim()), ylim=(middle - half, middle + half))
        canvas.plain_ticks(axes, "x")

    @property
    def legend(self) -> set[str]:
        """The entries of its legend."""
        extra = {"Pareto front"} | {name for name, there in self._marks.items() if there}
        return extra | {short_name(one.figures.result) for one in self.points}

    @property
    def _marks(self) -> dict[str, bool]:
        return {"chosen": self.best is not None, "accuracy limit": self.limit is not None}


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
    best = pareto.front(candidates)
    drawn = _Tradeoff(candidates, best, ("p50, ms per call", "top-1, %"))
    names = ", ".join(short_name(one.figures.result) for one in sorted(best, key=lambda one: one.cost_s.value))
    spoken = f"Top-1 against p50 of {len(candidates)} configurations at batch {batch}. Pareto-optimal: {names}"
    caption = (
        f"Left is faster, up is more accurate, at batch {batch}. Bars: 95 % intervals. No configuration is both faster "
        "and more accurate than one on the dashed Pareto front."
    )
    return _render(drawn, look, f"{place}-front", caption, spoken)


def tuning_front(findings: TuningResult, choice: Choice, look: PlotStyle, place: str) -> Plot:
    """Latency against the change in accuracy of all candidates of a search, with the Pareto front and the chosen one;
    without labels against the error of the logits."""
    points, latency = findings.points, findings.goal.objective == "latency"
    several = len(findings.subjects) > 1
    words: dict[int, str] = {}
    for one in sorted(choice.front, key=lambda one: one.cost_s.value):  # the fastest of each network has its name
        result = one.figures.result
        label = (result.identity.subject or "") if several else count(result.ran.threads, "thread")
        if label not in words.values():
            words[id(one)] = label
    baseline = findings.baseline
    against = "fp32" if baseline is None or not several else f"{baseline.identity.subject} in fp32"
    accuracy = "change in top-1, pp" if findings.labelled else "minus the logit error, %"
    limit = -100 * findings.goal.max_drop if findings.labelled and findings.goal.relative_to == "best" else None
    cost = "p50, ms per call" if latency else "ms per image"
    drawn = _Tradeoff(points, choice.front, (cost, accuracy), words, choice.best, limit)
    named = ", ".join(f"{one.figures.result.identity.subject} {short_name(one.figures.result)}" for one in choice.front)
    spoken = f"Accuracy against latency of {len(points)} candidates. Pareto-optimal: {named}"
    caption = (
        f"Left is faster, up is more accurate, against {against}. Bars: 95 % intervals; a time that was measured in "
        "one process has none. Faint: another candidate is both faster and more accurate. Ring: the chosen one."
    )
    return _render(drawn, look, f"{place}-front", caption, spoken)


def _render(drawn: _Tradeoff, look: PlotStyle, place: str, caption: str, spoken: str) -> Plot:
    height_in = 3.0 + canvas.legend_in(drawn.legend)
    title = "Latency against accuracy"
    return canvas.render(place, "front", title, caption, spoken, height_in, lambda figure: drawn.draw(figure, look))


def _draw_point(axes: Axes, point: ParetoPoint, look: PlotStyle, alpha: float) -> None:
    result, cost, drop = point.figures.result, point.cost_s, point.accuracy_drop
    x, y = 1e3 * cost.value, -100 * drop.value
    (low, high), (least, most) = (each.interval or (each.value, each.value) for each in (cost, drop))
    sides = [[max(0.0, x - 1e3 * low)], [max(0.0, 1e3 * high - x)]]
    ends = [[max(0.0, y + 100 * most)], [max(0.0, -100 * least - y)]]
    dots = {**look.of(result), "markersize": 7, "alpha": alpha, "elinewidth": 0.9, "linestyle": "none"}
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
