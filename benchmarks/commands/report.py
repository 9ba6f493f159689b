"""``rbench report``: rows that were measured before, and findings, as a page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.commands import options
from exporter.commands import terminal

if TYPE_CHECKING:
    from benchmarks.analysis.figures import Figures
    from benchmarks.records.result import Result

PAGE = Path("report.html")


@dataclass(frozen=True)
class Inputs:
    """The files that are meant: of rows, and of findings, each once."""

    rows: tuple[Path, ...]
    findings: tuple[Path, ...]


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
@click.option("--title", default="rbench", show_default=True, metavar="TEXT", help="Over the page.")
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

    if page is None and markdown is None:
        page = PAGE
    inputs = _find_inputs(results)
    _refuse_inputs(inputs, page, markdown)
    if page is not None:
        svg.require("the page's plots")
    rows, findings = _rows(inputs), [read(path) for path in inputs.findings]
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


def _find_inputs(results: Sequence[Path]) -> Inputs:
    """A path that is no folder is itself a file: of findings by its name, else of rows.

    Raises:
        ArtifactError: a folder holds neither.
    """
    from benchmarks.records.findings import SUFFIX, list_findings_files
    from benchmarks.records.store import FILE_NAME, find_results_file
    from runtimes.errors import ArtifactError

    rows: dict[Path, Path] = {}
    findings: dict[Path, Path] = {}
    for path in results:
        if not path.is_dir():
            (findings if path.name.endswith(SUFFIX) else rows).setdefault(path.resolve(), path)
            continue
        found = list_findings_files(path)
        if not found and not find_results_file(path).exists():
            raise ArtifactError(
                f"neither {FILE_NAME} nor *{SUFFIX} in it",
                code="results-missing",
                path=path,
                hint="rbench run -o DIR makes the one, rbench paper the other",
            )
        findings.update((one.resolve(), one) for one in found)
        if find_results_file(path).exists():
            rows.setdefault(find_results_file(path).resolve(), find_results_file(path))
    return Inputs(tuple(rows.values()), tuple(findings.values()))


def _refuse_inputs(inputs: Inputs, *outputs: Path | None) -> None:
    """Nothing is written over what is read."""
    from runtimes.errors import UsageError

    read = {path.resolve() for path in (*inputs.rows, *inputs.findings)}
    for path in outputs:
        if path is not None and path.resolve() in read:
            raise UsageError(
                "it is read and would be written over", code="output-is-input", path=path, hint="name another file"
            )


def _rows(inputs: Inputs) -> tuple[Figures, ...]:
    """All of them, without those that a later run of the same configuration has replaced, which a notice counts."""
    from benchmarks.analysis.figures import Figures
    from benchmarks.records.identity import latest
    from runtimes.errors import ArtifactError

    every = [result for path in inputs.rows for result in _read(path)]
    if not every and not inputs.findings:
        raise ArtifactError(
            "no rows in it", code="rows-missing", path=inputs.rows[0], hint="rbench run -o DIR makes some"
        )
    kept = latest(every)
    if len(kept) < len(every):
        click.echo(f"{len(every) - len(kept)} rows of earlier runs of the same configurations are left out", err=True)
    return tuple(Figures.of(result, every) for result in kept)


def _read(path: Path) -> tuple[Result, ...]:
    from benchmarks.records.findings import SUFFIX
    from benchmarks.records.store import read
    from runtimes.errors import ArtifactError

    try:
        return read(path)
    except ArtifactError as error:
        hint = f"expected a row of rbench run in each line; a file of findings ends in {SUFFIX}"
        raise ArtifactError(error.what, code=error.code, path=path, hint=hint) from error
