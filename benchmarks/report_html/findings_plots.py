"""Findings as drawings: each panel once, for a page as for the pictures that are files.

A colour is a family's, the same in all panels; the legend explains each look once, however many seeds there are. The
levels that the paper prints are dotted lines, named at their right end.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.records.findings import Findings, Line, Mark, Panel
from benchmarks.report import findings as view
from benchmarks.report_html import svg
from benchmarks.report_html.svg import FAINT, INK, MARKERS, SERIES, VARIABLES, Plot, shorten
from runtimes.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS: tuple[svg.Form, ...] = ("svg", "png")

PANEL_IN, TITLE_LINE_IN = 3.0, 0.17
"""Heights of a panel, and of a line of a picture's titles."""

TITLE_POINTS, NAME_POINTS, LONGEST_NAME_LINE = 10, 9, 16
"""Sizes of titles and of a mark's name beside the axes, which has so many characters in a line."""

MOST_SPOKEN = 8
"""Lines whose ends are told to who cannot see them."""

DASHED, DOTTED = (0, (4, 2)), (0, (1, 1.6))

PAPER_SUFFIX = ", paper"
"""Of a mark's label, where the level is one that the paper prints; the legend says it once instead."""


@dataclass(frozen=True)
class Paint:
    """How families look.

    Attributes:
        places: the number of each family, in the order that they come in.
        shades: what each placeholder of the canvas is drawn in.
    """

    places: dict[str, int]
    shades: Mapping[str, str]

    def colour(self, family: str) -> str:
        """Of its lines, bands and marks."""
        return self.shades[SERIES[self.places[family] % len(SERIES)]]

    def marker(self, family: str) -> str:
        """Of its points: another one when the colours have gone round."""
        return MARKERS[self.places[family] // len(SERIES) % len(MARKERS)]

    def needs_marker(self, family: str) -> bool:
        """Whether its colour alone does not tell it."""
        return self.places[family] >= len(SERIES)

    def family(self, family: str) -> dict[str, Any]:
        """An unbroken line of the family, as matplotlib names its style."""
        marker = {"marker": self.marker(family), "markersize": 4} if self.needs_marker(family) else {}
        return {"color": self.colour(family), **marker}

    def line(self, line: Line) -> dict[str, Any]:
        """The same of a line as it is drawn."""
        style: dict[str, Any] = {"color": self.colour(line.family), "linestyle": DASHED if line.dashed else "-"}
        if line.thin:
            return {**style, "linewidth": 0.7, "alpha": 0.55}
        few = len(line.x) <= 16  # few enough for a marker on each
        if few or self.needs_marker(line.family):
            every = 1 if few else len(line.x) // 8
            style |= {"marker": self.marker(line.family), "markersize": 4, "markevery": every}
        return style


def paint(findings: Findings, shades: Mapping[str, str] | None = None) -> Paint:
    """Of all families, in ``shades``, or in the placeholders that become the page's colours."""
    families: dict[str, int] = {}
    for panel in findings.panels:
        for family in [line.family for line in panel.lines] + [mark.family for mark in panel.marks]:
            families.setdefault(family, len(families))
    return Paint(families, shades if shades is not None else {colour: colour for colour in VARIABLES})


def legend_entries(panels: Sequence[Panel], look: Paint) -> dict[str, dict[str, Any]]:
    """What is to be explained of these panels, each once, and how the line before it looks: the families' colours, and
    what a dashed line is, where the labels have one word for all that are dashed and one for the others beside the
    family's name; else the labels. Single seeds and the paper's levels have one entry each."""
    lines = [line for panel in panels for line in panel.lines]
    named = [line for line in lines if not line.thin]
    words = _name_styles(named)
    found: dict[str, dict[str, Any]] = {}
    if words is None:
        families = {(line.label, line.family) for line in named}
        shared = Counter(label for label, _ in families)
        for line in named:
            label = line.label if shared[line.label] == 1 else f"{line.family}, {line.label}"
            alike = found.setdefault(shorten(label), look.line(line))
            if not line.dashed:
                alike["linestyle"] = "-"  # dashed in another panel: the colour is what the label is of
    else:
        found = {shorten(line.family): look.family(line.family) for line in named}
        found[words[False]] = {"color": look.shades[INK], "linestyle": "-"}
        found[words[True]] = {"color": look.shades[INK], "linestyle": DASHED}
    known = {line.family for line in named}
    found |= {shorten(line.family): look.line(line) for line in lines if line.family not in known}
    if any(line.thin and line.family in known for line in lines):
        found["single seeds"] = {"color": look.shades[FAINT], "linewidth": 0.7}
    if any(_is_papers(mark) for panel in panels for mark in panel.marks):
        found["the paper"] = {"color": look.shades[FAINT], "linestyle": DOTTED, "linewidth": 1.2}
    return found


def _name_styles(lines: Sequence[Line]) -> dict[bool, str] | None:
    """The word for the dashed lines and the one for the others; ``None`` if the labels do not tell."""
    words: dict[bool, set[str]] = {True: set(), False: set()}
    for line in lines:
        words[line.dashed].add(line.label.removeprefix(line.family).strip(" ,:"))
    if any(len(found) != 1 or "" in found for found in words.values()):
        return None
    return {dashed: shorten("".join(found)) for dashed, found in words.items()}


def _is_papers(mark: Mark) -> bool:
    """Whether the level is one that the paper prints."""
    return mark.label.endswith(PAPER_SUFFIX)


class _Legend:
    """The entries under all axes of a figure, as many side by side as there is room for."""

    def __init__(self, panels: Sequence[Panel], look: Paint, width_in: float) -> None:
        self._entries = legend_entries(panels, look)
        self._columns = svg.legend_columns(self._entries, width_in)
        self.height_in = svg.legend_in(self._entries, width_in)

    def put(self, figure: Figure) -> None:
        """Explains them, and lays the figure out."""
        from matplotlib.lines import Line2D

        if self._entries:
            handles = [Line2D([], [], **style) for style in self._entries.values()]
            spacing = {"ncols": self._columns, "handlelength": 2.4}
            figure.legend(handles, list(self._entries), loc="outside lower center", **spacing)
        figure.draw_without_rendering()


def plots(findings: Findings, place: str) -> Iterator[Plot]:
    """A drawing of each panel for a page. ``place`` is their own on the page: letters, digits and hyphens.

    Raises:
        BackendUnavailableError: matplotlib is not here.
    """
    svg.require("plots")
    look = paint(findings)
    for number, panel in enumerate(findings.panels):
        yield _plot(panel, look, findings.experiment, f"{place}-{number}")


def _plot(panel: Panel, look: Paint, kind: str, place: str) -> Plot:
    legend = _Legend((panel,), look, svg.WIDTH_IN)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _draw(axes, panel, look)
        legend.put(figure)
        _name_marks(figure, axes, panel, look)

    height_in = PANEL_IN + legend.height_in
    return svg.render(place, kind, panel.title, caption(panel), _describe_panel(panel), height_in, draw)


def write_pictures(findings: Findings, folder: Path) -> tuple[Path, ...]:
    """Puts all panels side by side into ``folder``, as an SVG and a PNG named after the experiment, whose paths are
    given. The same findings give the same bytes. Without panels there are no pictures.

    Raises:
        BackendUnavailableError: matplotlib is not here.
        ResourceError: as ``write_atomically``.
    """
    if not findings.panels:
        return ()
    svg.require("pictures")
    look = paint(findings, svg.shades())
    across = min(2, len(findings.panels))
    down = math.ceil(len(findings.panels) / across)
    width_in = across * svg.WIDTH_IN
    legend = _Legend(findings.panels, look, width_in)
    provenance = view.describe_provenance(findings.provenance)
    titles = f"{_fill_lines(findings.title, width_in)}\n{_fill_lines(provenance, width_in)}"
    titles_in = TITLE_LINE_IN * (titles.count("\n") + 2)
    height_in = titles_in + down * (PANEL_IN + 2 * TITLE_LINE_IN) + legend.height_in

    def draw(figure: Figure) -> None:
        grid = list(figure.subplots(down, across, squeeze=False).flat)
        shown = list(zip(grid, findings.panels, strict=False))
        for axes, panel in shown:
            _draw(axes, panel, look)
            source = f"\ncompare with the paper's {shorten(panel.source, 60)}" if panel.source else ""
            axes.set_title(_fill_lines(panel.title, svg.WIDTH_IN) + source, fontsize=TITLE_POINTS)
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        figure.suptitle(titles, fontsize=TITLE_POINTS)
        legend.put(figure)
        for axes, panel in shown:
            _name_marks(figure, axes, panel, look)

    size_in = (width_in, height_in)
    pictures = {folder / f"{findings.experiment}.{form}": svg.picture(form, size_in, draw) for form in FORMS}
    for path, picture in pictures.items():
        with write_atomically(path) as temporary:
            temporary.write_bytes(picture)
    return tuple(pictures)


def _draw(axes: Axes, panel: Panel, look: Paint) -> None:
    """All of it but the marks' names, which need the axes' height."""
    from matplotlib.ticker import MaxNLocator

    if panel.x_scale == "log" and any(x > 0 for line in panel.lines for x in line.x):
        axes.set_xscale("log")
    if panel.y_scale == "log" and any(y > 0 for line in panel.lines for y in line.y):
        axes.set_yscale("log")
    for line in panel.lines:
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=look.colour(line.family), alpha=0.16, linewidth=0)
    for mark in panel.marks:
        axes.axhline(mark.y, color=look.colour(mark.family), linestyle=DOTTED, linewidth=1.2)
    for line in sorted(panel.lines, key=lambda one: not one.thin):
        axes.plot(line.x, line.y, **look.line(line))
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)
    axes.margins(x=0.02)
    axes.set(xlabel=shorten(panel.x_label), ylabel=shorten(panel.y_label))
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
    names = [textwrap.fill(shorten(mark.label.removesuffix(PAPER_SUFFIX)), LONGEST_NAME_LINE) for mark in shown]
    height = axes.get_window_extent().height * 72 / figure.dpi
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [height * float(to_axes.transform((axes.get_xlim()[0], mark.y))[1]) for mark in shown]
    gap = 1.2 * NAME_POINTS * max((name.count("\n") + 1 for name in names), default=1)
    style: dict[str, Any] = {"textcoords": "axes fraction", "va": "center", "fontsize": NAME_POINTS}
    arrow = {"arrowstyle": "-", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
    for mark, name, at in zip(shown, names, spread(wanted, gap, height), strict=True):
        style |= {"xycoords": axes.get_yaxis_transform(), "xytext": (1.03, at / height), "color": look.shades[INK]}
        axes.annotate(name, (1, mark.y), arrowprops={**arrow, "color": look.colour(mark.family)}, **style)


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
    """The figure of the paper that compares with the panel, and the meaning of its lines."""
    parts = (
        f"Compare with the paper's {panel.source}." if panel.source else "",
        "Thin: single seeds." if any(line.thin for line in panel.lines) else "",
        "Bands: range of the seeds." if any(line.low for line in panel.lines) else "",
        "Dotted: error in the paper, on its own data." if any(map(_is_papers, panel.marks)) else "",
    )
    return " ".join(filter(None, parts))


def _fill_lines(text: str, width_in: float) -> str:
    """As many lines as it takes, three at the most."""
    width = int(72 * width_in / (0.57 * TITLE_POINTS))
    return textwrap.fill(shorten(text, 3 * width), width, max_lines=3, placeholder="…", break_on_hyphens=False)


def _describe_panel(panel: Panel) -> str:
    """The panel for who cannot see it: where its lines end."""
    named = [line for line in panel.lines if not line.thin and line.y] or [line for line in panel.lines if line.y]
    ends = [f"{line.label} ends at {line.y[-1]:.4g}" for line in named[:MOST_SPOKEN]]
    more = [f"and {len(named) - MOST_SPOKEN} more lines"] if len(named) > MOST_SPOKEN else []
    marks = [f"{mark.label} {mark.y:.4g}" for mark in panel.marks]
    return f"{panel.title}. {panel.y_label} by {panel.x_label}: {', '.join([*ends, *more, *marks]) or 'nothing'}"
