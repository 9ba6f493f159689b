"""Plots as SVG that takes its colours from the page: drawn by matplotlib, without its global state of figures.

matplotlib draws in placeholder colours, each of which becomes a CSS variable of the page's, so that one drawing is
right in light and in dark. Text stays text, in the page's font. The same results give the same bytes. A drawing for a
file takes the page's light colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.records.result import Result
from exporter.precision.table import PRECISIONS
from runtimes.errors import BackendUnavailableError, Reason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = "pip install 'rexport[report]'"

WIDTH_IN = 5.2
"""Of every plot: 10-point text is still read when a telephone shows it at two thirds."""

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

PICTURE_DPI = 150
"""Of the pictures that are files of pixels."""

_FONTS = ("DejaVu Sans", "Verdana", "Arial", "sans-serif")
"""Of a picture's text, in the order that whoever shows it has them."""

_SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "path.simplify": True,
}
_NO_METADATA: dict[str, dict[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Plot:
    """A drawing for a page.

    Attributes:
        kind: which of the plots it is, a word.
        title, caption: that stand over and under it.
        spoken: what it shows, for who cannot see it.
        svg: an element, without anything that it must be given.
    """

    kind: str
    title: str
    caption: str
    spoken: str
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
    """How configurations look in all plots of a page: a colour for each runtime, a marker for each precision."""

    colours: dict[str, int]
    markers: dict[str, str]

    def colour(self, result: Result) -> str:
        """The placeholder of the result's backend."""
        return SERIES[self.colours[result.identity.backend]]

    def marker(self, result: Result) -> str:
        """Of the precision, as matplotlib names it."""
        return self.markers[result.identity.precision or ""]


def choose_style(runtimes: Iterable[str], precisions: Iterable[str]) -> PlotStyle:
    """Of runtimes that rexport knows, the same on every page as far as the colours go round."""
    from runtimes import available_backends

    runtimes = dict.fromkeys([*(backend.name for backend in available_backends()), *runtimes])
    precisions = dict.fromkeys([*PRECISIONS, *precisions])
    return PlotStyle(
        {name: number % len(SERIES) for number, name in enumerate(runtimes)},
        {name: MARKERS[number % len(MARKERS)] for number, name in enumerate(precisions)},
    )


def render_svg(name: str, height_in: float, draw: Callable[[Figure], None], spoken: str) -> str:
    """The SVG of what ``draw`` puts on an empty figure. ``name`` is its own on the page: letters, digits and hyphens.

    The figure takes care of its own layout; what is drawn outside the axes finds place.
    """
    svg = _save_figure("svg", (WIDTH_IN, height_in), draw, {**_SETTINGS, "svg.hashsalt": name}, transparent=True)
    return _embed_svg(svg.decode(), name, spoken)


def picture(form: Literal["svg", "png"], size_in: tuple[float, float], draw: Callable[[Figure], None]) -> bytes:
    """A file of what ``draw`` puts on an empty figure, on white, in the colours of ``shades``; the same bytes for the
    same drawing."""
    shade = shades()
    settings = {key: shade.get(value, value) for key, value in _SETTINGS.items()}
    settings |= {"font.family": "sans-serif", "font.sans-serif": list(_FONTS), "svg.hashsalt": "picture"}
    return _save_figure(form, size_in, draw, settings, facecolor=shade[PAPER], dpi=PICTURE_DPI)


def _save_figure(
    form: Literal["svg", "png"],
    size_in: tuple[float, float],
    draw: Callable[[Figure], None],
    settings: Mapping[Any, Any],
    **options: Any,
) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    out = io.BytesIO()
    with matplotlib.rc_context(dict(settings)):
        figure = Figure(figsize=size_in, layout="constrained")
        draw(figure)
        figure.savefig(out, format=form, metadata=_NO_METADATA[form], **options)
    return out.getvalue()


def shades() -> dict[str, str]:
    """What each placeholder is on the page by day, as the style sheet has it."""
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    values = dict(re.findall(r"(--[\w-]+): (?:light-dark|var)\(([#\w-]+)", style))

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
    opening = (
        f'<svg {view[0] if view else ""} role="img" aria-label="{escape(spoken)}" xmlns="http://www.w3.org/2000/svg"'
    )
    return opening + ' xmlns:xlink="http://www.w3.org/1999/xlink">' + svg[svg.index(">") + 1 :].rstrip()


def plain_ticks(axes: Axes, which: str) -> None:
    """Numbers on a logarithmic axis (``x`` or ``y``) as people write them, and enough of them on a short one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    if high / low > 30:
        axis.set_major_locator(LogLocator(base=10, subs=(1.0,) if high / low > 3000 else (1.0, 3.0)))
    elif high / low > 4:
        axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    else:
        axis.set_major_locator(MaxNLocator(nbins=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}" if value < 1e6 else f"{value:.0e}"))


@contextmanager
def legend_below(axes: Axes) -> Iterator[None]:
    """What is drawn with a label meanwhile is explained under the axes, each label once."""
    yield
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure = axes.get_figure()
    if once and figure is not None:
        figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=min(3, len(once)))
