"""How many names, calls and options the code asks of the libraries for GPUs, and how many of them are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scripts.figures.setting import Figure, FigureSettings
from tests.bindings.surface import RECORDED, recorded
from tests.bindings.uses import problems, uses

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("runtimes", "exporter", "benchmarks", "rexport", "scripts")


def measure_bindings(setting: FigureSettings) -> Iterator[Figure]:  # noqa: ARG001
    """Each library's names that the code uses, against the releases whose surfaces are recorded."""
    sources = [path.read_text(encoding="utf-8") for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    surfaces = {library: {one: recorded(library, one) for one in versions} for library, versions in RECORDED.items()}
    asked = [use for source in sources for use in uses(source, surfaces)]
    missing = [line for source in sources for line in problems(source, surfaces)]
    for library, versions in RECORDED.items():
        own = [use for use in asked if use.library == library]
        lacking = tuple(line for line in missing if f": {library} " in line)
        called = sum(use.call is not None for use in own)
        names = {use.name for use in own}
        value = f"{len(names)} names at {len(own)} places, {called} of them calls; {len(lacking)} missing"
        yield Figure(f"{library} {', '.join(versions)}", value, "0 missing", not lacking, lacking)
