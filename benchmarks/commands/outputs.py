"""The files that a run leaves for people: Markdown, a spreadsheet and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.analysis.figures import Figures
from benchmarks.report.csv_export import csv_text
from benchmarks.report.document import report_document
from benchmarks.report.markdown import markdown
from benchmarks.report.run import SHORT
from benchmarks.report_html import svg
from benchmarks.report_html.page import html
from exporter.document.blocks import Document
from runtimes import notices
from runtimes.errors import Reason, quote
from runtimes.files import write_atomically

HEADING = "rbench"


def _markdown(rows: Sequence[Figures], complete: bool, heading: str) -> str:
    return markdown(report_document(rows, (), heading, complete, SHORT))


def _csv(rows: Sequence[Figures], complete: bool, heading: str) -> str:
    del complete, heading
    return csv_text(rows)


def _page(rows: Sequence[Figures], complete: bool, heading: str) -> str:
    return html(report_document(rows, (), heading, complete))


RENDERERS: dict[str, Callable[[Sequence[Figures], bool, str], str]] = {".md": _markdown, ".csv": _csv, ".html": _page}
"""How the rows, whether they are all, and a heading become a file of that suffix."""


def write_file(path: Path, rows: Sequence[Figures], complete: bool, heading: str = HEADING) -> None:
    """Writes a file of one of the suffixes of ``RENDERERS``, over what is there. A page without plots, for want of
    matplotlib, is announced on the logger ``rexport``.

    Raises:
        ResourceError: it cannot be written; it is as it was.
        ArtifactError: the answers in a row are damaged.
    """
    put(path, RENDERERS[path.suffix](rows, complete, heading))
    if path.suffix == ".html":
        _announce_missing_plots(path)


def write_page(path: Path, document: Document) -> None:
    """Writes the page of a document, as ``write_file``.

    Raises:
        ResourceError: it cannot be written; it is as it was.
    """
    put(path, html(document))
    _announce_missing_plots(path)


def _announce_missing_plots(path: Path) -> None:
    if (reason := svg.missing()) is not None:
        notices.warn(Reason(reason.code, f"{quote(path.name)} has no plots: {reason}"))


def write(folder: Path, rows: Sequence[Figures], complete: bool, heading: str = HEADING) -> Path:
    """Writes ``results.md``, ``results.csv`` and ``results.html``, whose path is given, into the folder; raises as
    ``write_file``."""
    for suffix in RENDERERS:
        write_file(folder / f"results{suffix}", rows, complete, heading)
    return folder / "results.html"


def put(path: Path, content: str) -> None:
    """Writes a file of text, over what is there.

    Raises:
        ResourceError: it cannot be written; it is as it was.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
