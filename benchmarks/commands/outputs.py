"""The files that a run leaves for people: Markdown, a spreadsheet and a page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from benchmarks.analysis.figures import Figures
from benchmarks.report.csv_export import csv_text
from benchmarks.report.document import report_document
from benchmarks.report.markdown import markdown
from benchmarks.report.run import SHORT
from benchmarks.report_html import svg
from benchmarks.report_html.page import html
from runtimes.files import write_atomically

HEADING = "rbench"

_LOGGER = logging.getLogger("rexport")


def write(folder: Path, rows: Sequence[Figures], complete: bool, heading: str = HEADING) -> Path:
    """Writes ``results.md``, ``results.csv`` and ``results.html``, whose path is given, into the folder, over what is
    there. A page without plots, for want of matplotlib, is announced on the logger ``rexport``.

    Raises:
        ResourceError: one cannot be written; it is as it was.
        ArtifactError: the answers in a row are damaged.
    """
    page = folder / "results.html"
    contents = {
        "results.md": markdown(report_document(rows, (), heading, complete, SHORT)),
        "results.csv": csv_text(rows),
        page.name: html(report_document(rows, (), heading, complete)),
    }
    for name, content in contents.items():
        put(folder / name, content)
    if (reason := svg.missing()) is not None:
        _LOGGER.warning("%s has no plots: %s", page.name, reason)
    return page


def put(path: Path, content: str) -> None:
    """Writes a file of text, over what is there.

    Raises:
        ResourceError: it cannot be written; it is as it was.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
