"""How the lines of findings look, and the legend that explains it: a colour a family, the same in all their panels.

The legend explains each look once, however many seeds there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.records.findings import Findings, Line, Mark, Panel
from benchmarks.report_html.svg import FAINT, INK, MARKERS, SERIES, VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DASHED, DOTTED = (0, (4, 2)), (0, (1, 1.6))

MOST_POINTS_MARKED = 16
"""A line of as many points, or fewer, has a marker on each."""

LONGEST_LABEL = 40

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


@dataclass(frozen=True)
class LegendEntry:
    """What the legend explains: a label, and the line before it, as matplotlib names its style."""

    label: str
    style: dict[str, Any]


def paint(findings: Findings, shades: Mapping[str, str] | None = None) -> Paint:
    """Of all families, in ``shades``, or in the placeholders that become the page's colours."""
    families: dict[str, int] = {}
    for panel in findings.panels:
        for family in (*(line.family for line in panel.lines), *(mark.family for mark in panel.marks)):
            families.setdefault(family, len(families))
    return Paint(families, shades if shades is not None else {colour: colour for colour in VARIABLES})


def style(line: Line, look: Paint) -> dict[str, Any]:
    """Of a line, as matplotlib names it."""
    found: dict[str, Any] = {"color": look.colour(line.family), "linestyle": DASHED if line.dashed else "-"}
    if line.thin:
        return {**found, "linewidth": 0.7, "alpha": 0.55}
    few = len(line.x) <= MOST_POINTS_MARKED
    if few or look.needs_marker(line.family):
        every = 1 if few else len(line.x) // 8
        found |= {"marker": look.marker(line.family), "markersize": 4, "markevery": every}
    return found


def entries(panels: Sequence[Panel], look: Paint) -> tuple[LegendEntry, ...]:
    """What is to be explained of these panels, each once: the families' colours, and what a dashed line is, where the
    labels have one word for all that are dashed and one for the others beside the family's name; else the labels.
    Single seeds and the paper's levels have one entry each."""
    lines = [line for panel in panels for line in panel.lines]
    named = [line for line in lines if not line.thin]
    words = _name_styles(named)
    found: dict[str, dict[str, Any]] = {}
    if words is None:
        for line, label in zip(named, _labels(named), strict=True):
            alike = found.setdefault(label, style(line, look))
            if not line.dashed:
                alike["linestyle"] = "-"  # dashed in another panel: the colour is what the label is of
    else:
        found = {cut(line.family): _whole(line.family, look) for line in named}
        found[words[False]] = {"color": look.shades[INK], "linestyle": "-"}
        found[words[True]] = {"color": look.shades[INK], "linestyle": DASHED}
    known = {line.family for line in named}
    found |= {cut(line.family): style(line, look) for line in lines if line.family not in known}
    if any(line.thin and line.family in known for line in lines):
        found["single seeds"] = {"color": look.shades[FAINT], "linewidth": 0.7}
    if any(is_papers(mark) for panel in panels for mark in panel.marks):
        found["the paper"] = {"color": look.shades[FAINT], "linestyle": DOTTED, "linewidth": 1.2}
    return tuple(LegendEntry(label, one) for label, one in found.items())


def _name_styles(lines: Sequence[Line]) -> dict[bool, str] | None:
    """The word for the dashed lines and the one for the others; ``None`` if the labels do not tell."""
    words: dict[bool, set[str]] = {True: set(), False: set()}
    for line in lines:
        words[line.dashed].add(line.label.removeprefix(line.family).strip(" ,:"))
    if any(len(found) != 1 or "" in found for found in words.values()):
        return None
    return {dashed: cut("".join(found)) for dashed, found in words.items()}


def _labels(lines: Sequence[Line]) -> list[str]:
    """Of each line, with its family where another family has the same."""
    families: dict[str, set[str]] = {}
    for line in lines:
        families.setdefault(line.label, set()).add(line.family)
    return [cut(line.label if len(families[line.label]) == 1 else f"{line.family}, {line.label}") for line in lines]


def _whole(family: str, look: Paint) -> dict[str, Any]:
    marker = {"marker": look.marker(family), "markersize": 4} if look.needs_marker(family) else {}
    return {"color": look.colour(family), **marker}


def is_papers(mark: Mark) -> bool:
    """Whether the level is one that the paper prints."""
    return mark.label.endswith(PAPER_SUFFIX)


def columns(explained: Sequence[LegendEntry], width_in: float) -> int:
    """How many entries have room side by side."""
    widest = max((len(entry.label) for entry in explained), default=0)
    return max(1, min(len(explained), int(72 * width_in / (5.2 * widest + 48))))


def put(figure: Figure, explained: Sequence[LegendEntry], across: int) -> None:
    """Explains them under all axes of the figure, so many side by side."""
    from matplotlib.lines import Line2D

    if explained:
        handles = [Line2D([], [], **entry.style) for entry in explained]
        labels = [entry.label for entry in explained]
        figure.legend(handles, labels, loc="outside lower center", ncols=across, handlelength=2.4)


def cut(text: str, most: int = LONGEST_LABEL) -> str:
    """In one line, and no longer than a drawing has room for."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= most else text[: most - 1] + "…"
