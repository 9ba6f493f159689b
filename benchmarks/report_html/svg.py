"""Plots as SVG that takes its colours from the page: drawn by matplotlib, without its global state of figures.

matplotlib draws in placeholder colours, each of which becomes a CSS variable of the page's, so that one drawing is
right in light and in dark. Text stays text, in the page's font. The same results give the same bytes. A drawing for a
file takes the page's light colours.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from benchmarks.analysis.ranking import name
from benchmarks.records.result import Result
from exporter.precision.table import PRECISIONS
from runtimes import available_backends
from runtimes.errors import BackendUnavailableError, Reason
from runtimes.escaping import html_text as text
from runtimes.escaping import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Form: TypeAlias = Literal["svg", "png"]
Draw: TypeAlias = "Callable[[Figure], None]"

INSTALL = "pip install 'rexport[report]'"

WIDTH_IN = 5.2
"""Of every plot: 10-point text is still read when a telephone shows it at two thirds."""

LEGEND_ROW_IN = 0.2
"""Height of a row of a legend."""

INK, FAINT, GRID, PAPER = "#010101", "#020202", "#030303", "#050505"
SERIES = tuple(f"#0404{number:02x}" for number in range(1, 9))
"""Placeholders: of text and lines, of what stands back, of the grid, of the paper, and of what colour tells
apart."""

VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_SETTINGS: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), FAINT),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    **dict.fromkeys(("text.parse_math", "axes.formatter.use_mathtext", "legend.frameon"), False),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow", "path.simplify"), True),
    **dict.fromkeys(("svg.fonttype", "axes.facecolor"), "none"),
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Plot:
    """A drawing for a page.

    Attributes:
        kind: which of the plots it is, a word.
        title, caption: that stand over and under it.
        svg: an element, without anything that it must be given.
    """

    kind: str
    title: str
    caption: str
    svg: str


def missing() -> Reason | None:
    """Why no plots can be drawn, with the remedy, or ``None``."""
    if find_spec("matplotlib") is None:
        return Reason("plots-unavailable", f"matplotlib is not installed ({INSTALL})")
    return None


def require(what: str) -> None:
    """Nothing, where plots can be drawn; ``what`` is what they are needed for, as "the page's plots".

    Raises:
        BackendUnavailableError: matplotlib is not here.
    """
    if missing() is not None:
        raise BackendUnavailableError(
            f"{what} need matplotlib, which is not installed", code="matplotlib-missing", hint=INSTALL
        )


@dataclass(frozen=True)
class PlotStyle:
    """How configurations look in all plots of a page: a colour for each backend, a marker for each precision."""

    colours: dict[str, int]
    markers: dict[str, str]

    def colour(self, result: Result) -> str:
        """The placeholder of the result's backend."""
        return SERIES[self.colours[result.identity.backend]]

    def marker(self, result: Result) -> str:
        """Of the precision, as matplotlib names it."""
        return self.markers[result.identity.precision or ""]

    def of(self, result: Result) -> dict[str, Any]:
        """Colour and marker, as matplotlib's functions take them."""
        return {"color": self.colour(result), "marker": self.marker(result)}


def choose_style(backends: Iterable[str], precisions: Iterable[str]) -> PlotStyle:
    """The style of these backends and precisions. Known backends have the same colour on every page."""
    backends = dict.fromkeys([*(backend.name for backend in available_backends()), *backends])
    precisions = dict.fromkeys([*PRECISIONS, *precisions])
    return PlotStyle(
        {name: number % len(SERIES) for number, name in enumerate(backends)},
        {name: MARKERS[number % len(MARKERS)] for number, name in enumerate(precisions)},
    )


def short_name(result: Result) -> str:
    """The configuration's name, no longer than a drawing has room for."""
    return shorten(name(result))


def shorten(words: str, most: int = 40) -> str:
    """The words in one line of at most so many characters."""
    words = " ".join(printable(words).split())
    return words if len(words) <= most else words[: most - 1] + "…"


def render(place: str, kind: str, title: str, caption: str, spoken: str, height_in: float, draw: Draw) -> Plot:
    """The plot of what ``draw`` puts on an empty figure. ``place`` is its own on the page: letters, digits and hyphens.
    ``spoken`` is what it shows, for who cannot see it.

    The figure takes care of its own layout; what is drawn outside the axes finds place.
    """
    settings = {**_SETTINGS, "svg.hashsalt": place}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # the browser has other fonts
        svg = _save("svg", (WIDTH_IN, height_in), draw, settings, transparent=True)
    return Plot(kind, title, caption, _embed_svg(svg.decode(), place, spoken))


def picture(form: Form, size_in: tuple[float, float], draw: Draw) -> bytes:
    """A file of what ``draw`` puts on an empty figure, on white, in the colours of ``shades``; the same bytes for the
    same drawing."""
    shade = shades()
    settings = {key: shade.get(value, value) for key, value in _SETTINGS.items()}
    fonts = ["DejaVu Sans", "Verdana", "Arial", "sans-serif"]  # whichever is there first, where the picture is shown
    settings |= {"font.family": "sans-serif", "font.sans-serif": fonts, "svg.hashsalt": "picture"}
    return _save(form, size_in, draw, settings, facecolor=shade[PAPER], dpi=150)


def _save(form: Form, size_in: tuple[float, float], draw: Draw, settings: dict[Any, Any], **options: Any) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    out = io.BytesIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type") if form == "svg" else ("Software",))
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size_in, layout="constrained")
        draw(figure)
        figure.savefig(out, format=form, metadata=no_metadata, **options)
    return out.getvalue()


def read_asset(name: str) -> str:
    """The style sheet or the script of a page."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def shades() -> dict[str, str]:
    """What each placeholder is on the page by day, as the style sheet has it."""
    values = dict(re.findall(r"(--[\w-]+): (?:light-dark|var)\(([#\w-]+)", read_asset("style.css")))

    def resolve(value: str) -> str:
        return resolve(values[value]) if value.startswith("--") else value

    return {placeholder: resolve(variable[4:-1]) for placeholder, variable in VARIABLES.items()}


def _embed_svg(svg: str, name: str, spoken: str) -> str:
    """A document as an element of a page: identifiers that are the page's only ones, colours that are the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' id="', f' id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r"#0[0-9a-f]{5}\b", lambda found: VARIABLES.get(found[0], found[0]), svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {view[0] if view else ""} role="img" aria-label="{text(spoken)}"'
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f"{opening} {namespaces}>{svg[svg.index('>') + 1 :].rstrip()}"


def plain_ticks(axes: Axes, which: str) -> None:
    """Numbers on a logarithmic axis (``x`` or ``y``) as people write them, and enough of them on a short one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    axis, limits = (axes.xaxis, axes.get_xlim()) if which == "x" else (axes.yaxis, axes.get_ylim())
    span = max(limits) / min(limits)
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    if span > 4:
        subs = (1.0,) if span > 3000 else (1.0, 3.0) if span > 30 else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(base=10, subs=subs))
    else:
        axis.set_major_locator(MaxNLocator(nbins=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}" if value < 1e6 else f"{value:.0e}"))


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Names what is drawn at 0, 1, 2 and so on, from the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def legend_columns(labels: Collection[str], width_in: float = WIDTH_IN) -> int:
    """The number of entries that fit side by side into a legend."""
    widest = max(map(len, labels), default=0)
    return max(1, min(len(labels), int(72 * width_in / (5.2 * widest + 48))))


def legend_in(labels: Collection[str], width_in: float = WIDTH_IN) -> float:
    """The height of a legend."""
    return LEGEND_ROW_IN * math.ceil(len(labels) / legend_columns(labels, width_in))


def legend_below(figure: Figure, axes: Axes) -> None:
    """Puts a legend under the axes, with each label once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=legend_columns(once))
