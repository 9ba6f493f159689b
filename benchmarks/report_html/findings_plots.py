"""Findings as drawings: each panel once, for a page as for the pictures that are files.

The levels that the paper prints are dotted lines, named at their right end.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.records.findings import Findings, Mark, Panel
from benchmarks.report import findings as view
from benchmarks.report_html import findings_legend, svg
from benchmarks.report_html.findings_legend import PAPER_SUFFIX, Paint, cut
from benchmarks.report_html.svg import INK, Plot
from runtimes.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS: tuple[Literal["svg", "png"], ...] = ("svg", "png")

PANEL_IN, LEGEND_ROW_IN, TITLE_LINE_IN = 3.0, 0.2, 0.17
"""Heights: of a panel, of each row of the legend under all of them, and of a line of a picture's titles."""

TITLE_POINTS, NAME_POINTS, LONGEST_NAME_LINE = 10, 9, 16
"""Sizes of titles and of a mark's name beside the axes, which has so many characters in a line."""

MOST_SPOKEN = 8
"""Lines whose ends are told to who cannot see them."""


def plots(findings: Findings, place: str) -> Iterator[Plot]:
    """A drawing of each panel for a page. ``place`` is their own on the page: letters, digits and hyphens.

    Raises:
        BackendUnavailableError: matplotlib is not here.
    """
    svg.require("plots")
    look = findings_legend.paint(findings)
    for number, panel in enumerate(findings.panels):
        yield _plot(panel, look, findings.experiment, f"{place}-{number}")


def _plot(panel: Panel, look: Paint, kind: str, place: str) -> Plot:
    explained = findings_legend.entries((panel,), look)
    columns = findings_legend.columns(explained, svg.WIDTH_IN)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _draw(axes, panel, look)
        findings_legend.put(figure, explained, columns)
        figure.draw_without_rendering()
        _name_marks(figure, axes, panel, look)

    spoken = _describe_panel(panel)
    height_in = PANEL_IN + LEGEND_ROW_IN * math.ceil(len(explained) / columns)
    return Plot(kind, panel.title, caption(panel), spoken, svg.render_svg(place, height_in, draw, spoken))


def write_pictures(findings: Findings, folder: Path, stem: str | None = None) -> tuple[Path, ...]:
    """Puts all panels side by side into ``folder``, as ``STEM.svg`` and ``STEM.png``, whose paths are given; the stem
    is the experiment's name by default. The same findings give the same bytes. Without panels there are no pictures.

    Raises:
        BackendUnavailableError: matplotlib is not here.
        ResourceError: as ``write_atomically``.
    """
    if not findings.panels:
        return ()
    svg.require("pictures")
    look = findings_legend.paint(findings, svg.shades())
    explained = findings_legend.entries(findings.panels, look)
    across = min(2, len(findings.panels))
    down = math.ceil(len(findings.panels) / across)
    width_in = across * svg.WIDTH_IN
    columns = findings_legend.columns(explained, width_in)
    provenance = view.describe_provenance(findings.provenance)
    titles = f"{_fill_lines(findings.title, width_in)}\n{_fill_lines(provenance, width_in)}"
    height_in = (
        TITLE_LINE_IN * (titles.count("\n") + 2)
        + down * (PANEL_IN + 2 * TITLE_LINE_IN)
        + LEGEND_ROW_IN * math.ceil(len(explained) / columns)
    )

    def draw(figure: Figure) -> None:
        grid = list(figure.subplots(down, across, squeeze=False).flat)
        shown = list(zip(grid, findings.panels, strict=False))
        for axes, panel in shown:
            _draw(axes, panel, look)
            axes.set_title(_format_title(panel), fontsize=TITLE_POINTS)
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        figure.suptitle(titles, fontsize=TITLE_POINTS)
        findings_legend.put(figure, explained, columns)
        figure.draw_without_rendering()
        for axes, panel in shown:
            _name_marks(figure, axes, panel, look)

    contents = {form: svg.picture(form, (width_in, height_in), draw) for form in FORMS}
    paths = {form: folder / f"{stem or findings.experiment}.{form}" for form in FORMS}
    for form, path in paths.items():
        with write_atomically(path) as temporary:
            temporary.write_bytes(contents[form])
    return tuple(paths.values())


def _draw(axes: Axes, panel: Panel, look: Paint) -> None:
    """All of it but the marks' names, which need the axes' height."""
    if panel.x_scale == "log" and any(x > 0 for line in panel.lines for x in line.x):
        axes.set_xscale("log")
    if panel.y_scale == "log" and any(y > 0 for line in panel.lines for y in line.y):
        axes.set_yscale("log")
    for line in panel.lines:
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=look.colour(line.family), alpha=0.16, linewidth=0)
    for mark in panel.marks:
        axes.axhline(mark.y, color=look.colour(mark.family), linestyle=findings_legend.DOTTED, linewidth=1.2)
    for line in sorted(panel.lines, key=lambda one: not one.thin):
        axes.plot(line.x, line.y, **findings_legend.style(line, look))
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)
    axes.margins(x=0.02)
    axes.set_xlabel(cut(panel.x_label))
    axes.set_ylabel(cut(panel.y_label))
    _number(axes, panel)


def _number(axes: Axes, panel: Panel) -> None:
    """Ticks as people write them; whole numbers where lines have points at such alone."""
    from matplotlib.ticker import MaxNLocator

    if axes.get_xscale() != "log" and all(float(x).is_integer() for line in panel.lines for x in line.x):
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    for which, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if axis.get_scale() == "log":
            svg.plain_ticks(axes, which)
        else:
            axis.set_major_formatter("{x:,.6g}")


def _name_marks(figure: Figure, axes: Axes, panel: Panel, look: Paint) -> None:
    """Names the marks beside the axes, one under the other where they lie close."""
    low, high = sorted(axes.get_ylim())
    shown = sorted((mark for mark in dict.fromkeys(panel.marks) if low <= mark.y <= high), key=lambda mark: mark.y)
    names = [textwrap.fill(cut(mark.label.removesuffix(PAPER_SUFFIX)), LONGEST_NAME_LINE) for mark in shown]
    height = axes.get_window_extent().height * 72 / figure.dpi
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [height * float(to_axes.transform((axes.get_xlim()[0], mark.y))[1]) for mark in shown]
    gap = 1.2 * NAME_POINTS * max((name.count("\n") + 1 for name in names), default=1)
    for mark, name, at in zip(shown, names, spread(wanted, gap, height), strict=True):
        _name_mark(axes, mark, name, at / height, look)


def _name_mark(axes: Axes, mark: Mark, name: str, at: float, look: Paint) -> None:
    axes.annotate(
        name,
        (1, mark.y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(1.03, at),
        textcoords="axes fraction",
        va="center",
        fontsize=NAME_POINTS,
        color=look.shades[INK],
        arrowprops={
            "arrowstyle": "-",
            "color": look.colour(mark.family),
            "linewidth": 0.8,
            "shrinkA": 0,
            "shrinkB": 0,
            "relpos": (0, 0.5),
        },
    )


def spread(wanted: Sequence[float], gap: float, height: float) -> list[float]:
    """Ascending places as near to those wanted as can be, at least ``gap`` apart, within 0..height if there is room."""
    blocks: list[tuple[float, int]] = []  # the mean of places that lie side by side, and how many
    for number, value in enumerate(wanted):
        level, count = value - number * gap, 1
        while blocks and blocks[-1][0] > level:
            other, more = blocks.pop()
            level, count = (level * count + other * more) / (count + more), count + more
        blocks.append((level, count))
    levels = [level for level, count in blocks for _ in range(count)]
    most = max(0.0, height - (len(levels) - 1) * gap)
    return [min(max(level, 0.0), most) + number * gap for number, level in enumerate(levels)]


def caption(panel: Panel) -> str:
    """What stands under the panel: which of the paper's figures it is to be held against, and what its lines are."""
    parts = (
        f"Beside the paper's {panel.source}." if panel.source else "",
        "Thin: single seeds." if any(line.thin for line in panel.lines) else "",
        "Bands: the least to the most of the seeds." if any(line.low for line in panel.lines) else "",
        "Dotted: what the paper prints." if any(map(findings_legend.is_papers, panel.marks)) else "",
    )
    return " ".join(filter(None, parts))


def _fill_lines(text: str, width_in: float) -> str:
    """As many lines as it takes, three at the most."""
    width = int(72 * width_in / (0.57 * TITLE_POINTS))
    return textwrap.fill(cut(text, 3 * width), width, max_lines=3, placeholder="…", break_on_hyphens=False)


def _format_title(panel: Panel) -> str:
    source = f"\nbeside the paper's {cut(panel.source, 60)}" if panel.source else ""
    return _fill_lines(panel.title, svg.WIDTH_IN) + source


def _describe_panel(panel: Panel) -> str:
    """The panel for who cannot see it: where its lines end."""
    named = [line for line in panel.lines if not line.thin and line.y] or [line for line in panel.lines if line.y]
    ends = [f"{line.label} ends at {line.y[-1]:.4g}" for line in named[:MOST_SPOKEN]]
    more = [f"and {len(named) - MOST_SPOKEN} more lines"] if len(named) > MOST_SPOKEN else []
    marks = [f"{mark.label} {mark.y:.4g}" for mark in panel.marks]
    return f"{panel.title}. {panel.y_label} by {panel.x_label}: {', '.join([*ends, *more, *marks]) or 'nothing'}"
