"""How CPU time grows with the size of a job: measured cases, their exponents, and the picture of ``docs/growth.md``."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.figures.setting import Figure, FigureSettings

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results" / "growth"

DATA = FOLDER / "growth.jsonl"
"""The measured cases, one JSON object a line."""

PAGE = FOLDER.parents[1] / "growth.md"
"""The page with the table of the cases."""

BEGIN, END = "<!-- growth -->", "<!-- /growth -->"
"""The marks around the table in the page."""

SIZES: dict[str, tuple[int, ...]] = {
    "export": (20, 56, 110, 200, 404, 800, 1202),
    "export-whole": (20, 56, 110),
    "report": (10, 100, 1000),
    "compare": (10, 100, 1000),
    "reader": (1000, 10_000, 100_000),
    "label": (1000, 10_000, 100_000, 1_000_000),
}
"""The sizes of each kind: layers, rows, nodes or images."""

UNITS = {
    "export": "layers",
    "export-whole": "layers",
    "report": "rows",
    "compare": "rows",
    "reader": "nodes",
    "label": "images",
}
"""What the size of a kind counts."""

LARGEST_EXPONENT = 1.25
"""The largest exponent of what grows near linearly. 2 is a square."""


@dataclass(frozen=True)
class Case:
    """A measured case.

    Attributes:
        kind: A key of ``SIZES``.
        size: The size, in ``UNITS[kind]``.
        cpu_s: The CPU seconds.
        peak_bytes: The peak memory of the process.
    """

    kind: str
    size: int
    cpu_s: float
    peak_bytes: int


def read_cases(kind: str) -> list[Case]:
    """Return the recorded cases of a kind, the smallest first."""
    lines = DATA.read_text(encoding="utf-8").splitlines() if DATA.exists() else []
    cases = (Case(**json.loads(line)) for line in lines)
    return sorted((case for case in cases if case.kind == kind), key=lambda case: case.size)


def exponent(cases: Sequence[Case]) -> float:
    """Return the exponent between the two largest sizes, where constant costs count least: 1 is linear."""
    before, last = cases[-2:]
    return math.log(last.cpu_s / before.cpu_s) / math.log(last.size / before.size)


def fitted(cases: Sequence[Case]) -> tuple[float, float]:
    """Return the slope of log time over log size through all sizes, and its standard error."""
    x, y = (np.log([getattr(case, name) for case in cases]) for name in ("size", "cpu_s"))
    slope, offset = np.polyfit(x, y, 1)
    rest = y - (slope * x + offset)
    error = math.sqrt(float(rest @ rest) / max(1, len(x) - 2) / float(((x - x.mean()) ** 2).sum()))
    return float(slope), error


def _measure(kind: str) -> None:
    """Measure the cases of a kind, each in a process of its own, and record them in place of the older ones."""
    measured = []
    for size in SIZES[kind]:
        command = (sys.executable, "-m", "scripts.figures.growth_cases", kind, str(size))
        measured.append(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = DATA.read_text(encoding="utf-8").splitlines() if DATA.exists() else []
    kept = [line for line in lines if json.loads(line)["kind"] != kind]
    DATA.write_text("\n".join([*kept, *measured]) + "\n", encoding="utf-8")


def _grow(*kinds: str) -> Callable[[FigureSettings], Iterator[Figure]]:
    def measure(_: FigureSettings) -> Iterator[Figure]:
        for kind in kinds:
            _measure(kind)
            cases = read_cases(kind)
            power, (slope, error) = exponent(cases), fitted(cases)
            times = ", ".join(f"{case.size:,}: {case.cpu_s:.3g} s" for case in cases)
            yield Figure(
                f"{kind}: exponent of the CPU time",
                f"{power:.2f} between the largest two, {slope:.2f} ± {error:.2f} over all",
                f"<= {LARGEST_EXPONENT}",
                power <= LARGEST_EXPONENT,
                (f"{UNITS[kind]}: {times}",),
            )
        write_page()

    return measure


growth_export = _grow("export", "export-whole")
growth_report = _grow("report", "compare")
growth_reader = _grow("reader")
growth_label = _grow("label")


def draw() -> None:
    """Draw the recorded cases as SVG and PNG beside their data."""
    from matplotlib import ticker
    from matplotlib.figure import Figure as Drawing

    panels = (("export", "export-whole"), ("report", "compare"), ("reader",), ("label",))
    drawing = Drawing(figsize=(9, 6.4), layout="constrained", facecolor="white")
    for axes, kinds in zip(drawing.subplots(2, 2).flat, panels, strict=True):
        for kind, marker in zip(kinds, "os", strict=False):
            cases = read_cases(kind)
            if len(cases) < 2:
                continue
            sizes, seconds = ([getattr(case, name) for case in cases] for name in ("size", "cpu_s"))
            axes.loglog(sizes, seconds, marker=marker, label=f"{kind}: exponent {exponent(cases):.2f}")
        low, high = axes.get_xlim()
        first = read_cases(kinds[0])
        if first:
            last = first[-1]
            guide = [last.cpu_s * size / last.size for size in (low, high)]
            axes.loglog((low, high), guide, linestyle=":", color="grey", label="linear")
            axes.set_ylim(bottom=min(case.cpu_s for kind in kinds for case in read_cases(kind)[:1]) / 2)
            axes.set_xlim(low, high)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlabel(UNITS[kinds[0]])
        axes.set_ylabel("CPU seconds")
        axes.grid(visible=True, alpha=0.3)
        bottom, top = axes.get_ylim()
        axes.set_ylim(top=top * (top / bottom) ** 0.4)  # room for the legend
        axes.legend(loc="upper left", fontsize=8)
    drawing.savefig(FOLDER / "growth.svg", metadata={"Date": None})
    drawing.savefig(FOLDER / "growth.png", dpi=110)


def tabulate() -> str:
    """Return the recorded cases as a table in Markdown."""
    lines = [
        "| job | size | CPU time | peak memory | exponent, last two sizes | exponent, all sizes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in SIZES:
        cases = read_cases(kind)
        if len(cases) < 2:
            continue
        least, most = cases[0], cases[-1]
        slope, error = fitted(cases)
        lines.append(
            f"| `{kind}` | {least.size:,} to {most.size:,} {UNITS[kind]} | "
            f"{_seconds(least.cpu_s)} to {_seconds(most.cpu_s)} s | "
            f"{least.peak_bytes >> 20} to {most.peak_bytes >> 20} MiB | {exponent(cases):.2f} | "
            f"{slope:.2f} ± {error:.2f} |"
        )
    return "\n".join(lines)


def _seconds(value: float) -> str:
    """Return seconds with two digits, and whole ones from 10 on."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def write_page() -> None:
    """Put the table into the page, and draw the picture."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{tabulate()}\n{END}{tail}", encoding="utf-8")
    draw()
