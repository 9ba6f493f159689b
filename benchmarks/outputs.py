"""The files that a run leaves for people: Markdown, a spreadsheet and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.page import html
from benchmarks.report import markdown
from benchmarks.results import Row
from benchmarks.spreadsheet import csv_text
from runtimes.files import write_atomically

HEADING = "rbench"


def write(folder: Path, rows: Sequence[Row], complete: bool, heading: str = HEADING) -> None:
    """Writes ``results.md``, ``results.csv`` and ``results.html`` into the folder, over what is there.

    Raises:
        ResourceError: one cannot be written; it is as it was.
    """
    contents = {
        "results.md": markdown(rows, complete),
        "results.csv": csv_text(rows),
        "results.html": html(rows, heading, complete),
    }
    for name, content in contents.items():
        with write_atomically(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
