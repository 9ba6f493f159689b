"""The files that a run leaves for people: Markdown, a spreadsheet and a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.analysis.figures import Figures
from benchmarks.records.store import FILE_NAME
from benchmarks.report.csv_export import csv_text
from benchmarks.report.document import report_document
from benchmarks.report.markdown import markdown
from benchmarks.report.run import SHORT
from benchmarks.report_html import svg
from benchmarks.report_html.page import MARK, html
from exporter.document.blocks import Document
from runtimes import notices
from runtimes.errors import Reason, UsageError, quote
from runtimes.files import check_replaceable, read_head, require_folder, target_exists, write_atomically

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


def check_targets(targets: Mapping[str, Path | None], used: Iterable[Path] = (), force: bool = False) -> None:
    """Check the files that a command is going to write, before its work.

    Args:
        targets: The files by the options that name them; ``None`` for none, and ``-`` for standard output.
        used: The files that the command reads, or writes in another way.
        force: Whether an existing file may be replaced. Empty files and pages that ``rbench`` wrote always may.

    Raises:
        UsageError: A target is another target or one of ``used``, or it exists.
        ResourceError: The folder of a target is missing, or a target is no regular file or cannot be read.
    """
    taken = {path.resolve() for path in used}
    for option, path in targets.items():
        if path is None or str(path) == "-":
            continue
        require_folder(path.parent)
        if path.resolve() in taken:
            raise UsageError(
                "this file is read, or written a second time",
                code="output-is-input",
                path=path,
                hint="name another file",
            )
        taken.add(path.resolve())
        check_replaceable(path)
        if path.exists() and not force and read_head(path, len(MARK)) not in (b"", MARK.encode()):
            raise target_exists(path, option)


def check_folder(folder: Path | None, json_file: Path | None) -> None:
    """Check the files that ``write`` writes into a folder, before the work.

    Args:
        folder: The folder, or ``None``.
        json_file: Another file to which the command adds the results, or ``None``.

    Raises:
        UsageError: ``json_file`` is one of the files in the folder. Or such a file exists, and the results do not, so
            that ``rbench`` has not written it.
    """
    if folder is None:
        return
    written = [folder / f"results{suffix}" for suffix in RENDERERS]
    if json_file is not None and json_file.resolve() in {path.resolve() for path in (folder / FILE_NAME, *written)}:
        raise UsageError(
            "the results are written there anyway",
            code="results-written-twice",
            path=json_file,
            hint="leave out --json",
        )
    if not (folder / FILE_NAME).exists():
        for path in filter(Path.exists, written):
            raise UsageError(
                f"the file already exists, without {FILE_NAME} beside it, so it is not replaced",
                code="folder-of-others",
                path=path,
                hint="-o DIR names another folder",
            )


def put(path: Path, content: str) -> None:
    """Writes a file of text, over what is there.

    Raises:
        ResourceError: it cannot be written; it is as it was.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
