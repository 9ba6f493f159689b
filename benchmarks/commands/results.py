"""``rbench report``, ``compare`` and ``merge``: the commands that read results. Everything heavy is imported late."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.commands import options
from benchmarks.records.identity import FIELDS
from exporter.commands import terminal

if TYPE_CHECKING:
    from benchmarks.analysis.figures import Figures
    from benchmarks.records.result import Result

PAGE = Path("report.html")

_FIELD_NAMES = [field.name for field in FIELDS]


@click.command(context_settings=options.SETTINGS)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULTS...")
@click.option(
    "-o", "page", type=click.Path(path_type=Path), metavar="FILE", help=f"[{PAGE}, unless --markdown is given alone]"
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="For a comment on a change; - is standard output.",
)
@click.option("--title", default="rbench", metavar="TEXT", help="Over the page.")
@terminal.debug_option
def report(results: tuple[Path, ...], page: Path | None, markdown: Path | None, title: str) -> None:
    """Show measured rows and findings as one page that opens from disk, needs no network and nothing beside it.

    RESULTS are files of JSON lines, as rbench run leaves them, files *.findings.json, as rbench paper leaves them, or
    folders with a results.jsonl or with findings. Of each configuration the rows of its last run are shown. Prints the
    path of what was written.
    """
    from benchmarks.commands import outputs
    from benchmarks.records.findings import read
    from benchmarks.report.document import report_document
    from benchmarks.report.markdown import markdown as in_markdown
    from benchmarks.report.run import SHORT
    from benchmarks.report_html import svg
    from benchmarks.report_html.page import html
    from runtimes.errors import UsageError

    if page is None and markdown is None:
        page = PAGE
    rows_files, findings_files = _find_inputs(results)
    inputs = {path.resolve() for path in (*rows_files, *findings_files)}
    for path in (page, markdown):
        if path is not None and path.resolve() in inputs:
            raise UsageError(
                "it is read and would be written over", code="output-is-input", path=path, hint="name another file"
            )
    if page is not None:
        svg.require("the page's plots")
    rows = _read_rows(rows_files, required=not findings_files)
    findings = [read(path) for path in findings_files]
    if page is not None:
        outputs.put(page, html(report_document(rows, findings, title)))
        click.echo(page)
    if markdown is None:
        return
    text = in_markdown(report_document(rows, findings, title, limits=SHORT))
    if str(markdown) == "-":
        click.echo(text, nl=False)
    else:
        outputs.put(markdown, text)
        click.echo(markdown)


def _find_inputs(results: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files of rows, and those of findings, each once. A path that is no folder is itself a file: of findings by
    its name, else of rows.

    Raises:
        ArtifactError: a folder holds neither.
    """
    from benchmarks.records.findings import SUFFIX, list_findings_files
    from benchmarks.records.store import FILE_NAME, find_results_file
    from runtimes.errors import ArtifactError

    rows: dict[Path, Path] = {}
    findings: dict[Path, Path] = {}
    for path in results:
        files: tuple[Path, ...] = (path,)
        if path.is_dir():
            files = (*filter(Path.exists, [find_results_file(path)]), *list_findings_files(path))
        if not files:
            raise ArtifactError(
                f"neither {FILE_NAME} nor *{SUFFIX} in it",
                code="results-missing",
                path=path,
                hint="rbench run -o DIR makes the one, rbench paper the other",
            )
        for file in files:
            (findings if file.name.endswith(SUFFIX) else rows).setdefault(file.resolve(), file)
    return tuple(rows.values()), tuple(findings.values())


def _read_rows(paths: Sequence[Path], required: bool) -> tuple[Figures, ...]:
    """All of them, without those that a later run of the same configuration has replaced, which a notice counts."""
    from benchmarks.analysis.figures import Figures
    from benchmarks.records.findings import SUFFIX
    from benchmarks.records.identity import latest
    from benchmarks.records.store import read
    from runtimes.errors import ArtifactError

    every: list[Result] = []
    for path in paths:
        try:
            every += read(path)
        except ArtifactError as error:
            hint = f"expected a row of rbench run in each line; a file of findings ends in {SUFFIX}"
            raise ArtifactError(error.what, code=error.code, path=path, hint=hint) from error
    if not every and required:
        raise ArtifactError("no rows in it", code="rows-missing", path=paths[0], hint="rbench run -o DIR makes some")
    kept = latest(every)
    if len(kept) < len(every):
        click.echo(f"{len(every) - len(kept)} rows of earlier runs of the same configurations are left out", err=True)
    return tuple(Figures.of(result, every) for result in kept)


def fraction(context: click.Context, param: click.Parameter, value: str) -> float:
    """From ``5%`` or ``0.05``."""
    try:
        part = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no percentage: write 5% or 0.05", context, param) from None
    if not 0 <= part < float("inf"):
        raise click.BadParameter(f"{value!r} is not a number from 0 on", context, param)
    if part >= 1 and not value.endswith("%"):
        raise click.BadParameter(f"{value!r} is no fraction of 1: write {value}% or 0.05", context, param)
    return part


@click.command(context_settings=options.SETTINGS)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--max-slowdown",
    callback=fraction,
    default="5%",
    metavar="PERCENT",
    help="Largest slowdown of the p50 that passes, as 5% or 0.05.",
)
@options.max_drop_option(help="Largest loss of top-1 that passes, in percentage points.")
@click.option(
    "--across",
    multiple=True,
    type=click.Choice(_FIELD_NAMES),
    metavar="KEY",
    help=f"Let rows be compared although they differ in KEY; repeatable. One of {', '.join(_FIELD_NAMES)}.",
)
@click.option(
    "--allow-missing",
    "missing",
    is_flag=True,
    help="Let pass what OLD measured and NEW lacks or has skipped, as where NEW is of fewer backends.",
)
@terminal.json_option
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for a pull request.")
@terminal.debug_option
def compare(
    old: Path,
    new: Path,
    max_slowdown: float,
    max_drop: float,
    across: tuple[str, ...],
    missing: bool,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Say whether NEW is slower than OLD or answers worse, and exit with 1 if so.

    OLD and NEW are files of rows as rbench run writes them, or folders with a results.jsonl; of several runs in a file
    the last one counts. All figures are taken from the raw samples and answers. A row is a regression if it is slower
    with 95 % confidence and by more than --max-slowdown, if it lost top-1 likewise, or if it was measured before and
    now fails, is skipped or is not there. Rows of another model file, machine, device, thread count or rate are refused
    unless --across allows it.
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    from benchmarks.compare import compare as comparing
    from benchmarks.report.comparison import comparison_document
    from benchmarks.report.markdown import markdown
    from exporter.document.terminal import print_document
    from runtimes import codec

    found = comparing.compare(old, new, comparing.Limits(max_slowdown, max_drop, across, missing))
    if as_json:
        click.echo(codec.dumps(found, indent=2))
    elif as_markdown:
        click.echo(markdown(comparison_document(found)), nl=False)
    else:
        print_document(comparison_document(found), sys.stdout)
    sys.exit(0 if found.passed else 1)


@click.command(context_settings=options.SETTINGS)
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE|DIR...")
@click.option("-o", "out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="To write.")
@click.option("--force", is_flag=True, help="Replace the file if it is there, even if it is one of those to merge.")
@terminal.debug_option
def merge(sources: tuple[Path, ...], out: Path, force: bool) -> None:
    """Put the rows of several files, of several machines too, into one. A row that is in more than one stands once."""
    from benchmarks.compare import merge as merging

    merged = merging.merge(sources, out, force)
    left_out = f"; left out as duplicates: {merged.duplicates}" if merged.duplicates else ""
    click.echo(f"rows: {len(merged.results)} of files: {len(sources)}{left_out}", err=True)
    click.echo(out)
