"""``rbench report``, ``compare`` and ``merge``: the commands that read results. Everything heavy is imported late."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.commands import options
from benchmarks.records.identity import FIELDS
from exporter.commands import streams, terminal
from exporter.commands.command import MEASURING, OUTPUT, NameChoice, SectionedCommand
from exporter.commands.options import force_option
from exporter.commands.values import OutputFile

if TYPE_CHECKING:
    from benchmarks.analysis.figures import Figures
    from benchmarks.records.result import Result

PAGE = Path("report.html")

RESULTS = "Results"
"""The heading under which these commands are listed."""

_FIELD_NAMES = [field.name for field in FIELDS]


@click.command(
    cls=SectionedCommand,
    heading=RESULTS,
    examples=("rbench report results/ -o report.html", "rbench report paper-results/ --markdown - --title Paper"),
)
@click.argument(
    "results",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="RESULTS...",
    help="Files of JSON lines that rbench run wrote, files *.findings.json that rbench paper wrote, or their folders.",
)
@OUTPUT.option(
    "-o",
    "page",
    type=OutputFile(),
    metavar="FILE",
    show_default=f"{PAGE}, or none with --markdown",
    help="HTML page to write.",
)
@OUTPUT.option(
    "--markdown",
    type=OutputFile(allow_dash=True),
    metavar="FILE",
    show_default="none",
    help="Markdown file to write, as for a pull request; - is standard output.",
)
@OUTPUT.option("--title", default="rbench", metavar="TEXT", help="Title of the page.")
@force_option
@terminal.debug_option
def report(results: tuple[Path, ...], page: Path | None, markdown: Path | None, title: str, force: bool) -> None:
    """Make one HTML page of results and findings.

    The page is a single file that opens without a network. For each configuration it shows the last run that reached
    it. The command prints the paths of the files that it wrote. A page that rbench wrote is replaced; any other file
    only with --force.
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
    rows_files, findings_files = _find_inputs(results)
    outputs.check_targets({"-o": page, "--markdown": markdown}, (*rows_files, *findings_files), force)
    if page is not None:
        svg.require("the page's plots")
    rows = _read_rows(rows_files, required=not findings_files)
    findings = [read(path) for path in findings_files]
    if page is not None:
        outputs.put(page, html(report_document(rows, findings, title)))
        streams.print_path(page)
    if markdown is None:
        return
    text = in_markdown(report_document(rows, findings, title, limits=SHORT))
    if str(markdown) == "-":
        streams.print_result(text, newline=False)
    else:
        outputs.put(markdown, text)
        streams.print_path(markdown)


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
    from benchmarks.records.identity import References, latest
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
        streams.print_message(f"{len(every) - len(kept)} rows of earlier runs of the same configurations are left out")
    references = References(every)
    return tuple(Figures.of(result, references) for result in kept)


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


@click.command(
    cls=SectionedCommand,
    heading=RESULTS,
    examples=(
        "rbench compare main/ change/ --max-slowdown 3%",
        "rbench compare old.jsonl new.jsonl --across machine --markdown",
    ),
)
@click.argument("old", type=click.Path(path_type=Path), help="Earlier results: a file of JSON lines, or its folder.")
@click.argument("new", type=click.Path(path_type=Path), help="Later results, likewise.")
@MEASURING.option(
    "--max-slowdown",
    callback=fraction,
    default="5%",
    metavar="PERCENT",
    help="Largest slowdown of the median latency that passes, as 5% or 0.05.",
)
@options.max_drop_option(help="Largest loss of top-1 accuracy that passes, in percentage points.")
@MEASURING.option(
    "--across",
    multiple=True,
    type=NameChoice(_FIELD_NAMES),
    metavar="KEY",
    show_default="none",
    help=f"Compare rows that differ in KEY, one of {', '.join(_FIELD_NAMES)}; repeatable.",
)
@MEASURING.option(
    "--allow-missing",
    "missing",
    is_flag=True,
    help="Accept that NEW lacks or skips rows of OLD, as where NEW has fewer backends.",
)
@MEASURING.option(
    "--strict",
    is_flag=True,
    help="Exit with 1 if a compared row is INVALID, as of a busy machine, or its machine is unknown.",
)
@terminal.json_option
@OUTPUT.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, as for a pull request.")
@options.explain_option
@terminal.debug_option
def compare(
    old: Path,
    new: Path,
    max_slowdown: float,
    max_drop: float,
    across: tuple[str, ...],
    missing: bool,
    strict: bool,
    as_json: bool,
    as_markdown: bool,
    explain: bool,
) -> None:
    """Check NEW against OLD for regressions in latency and accuracy.

    A row is a regression if it is slower with 95 % confidence and by more than --max-slowdown, if its top-1 accuracy
    dropped likewise, or if it was measured before and now fails, is skipped or is missing. The exit code is then 1.
    A busy machine is said, and fails the comparison only with --strict.
    Rows of another model file, machine, device, thread count or rate are not compared unless --across allows it. The
    last run in each file counts.
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    from benchmarks.compare import compare as comparing
    from benchmarks.report.comparison import comparison_document
    from benchmarks.report.markdown import markdown
    from runtimes import codec

    found = comparing.compare(old, new, comparing.Limits(max_slowdown, max_drop, across, missing, strict))
    if as_json:
        streams.print_json(codec.dumps(found, indent=2))
    elif as_markdown:
        streams.print_result(markdown(comparison_document(found)), newline=False)
    else:
        streams.print_document(comparison_document(found, explain))
    sys.exit(0 if found.passed else 1)


@click.command(
    cls=SectionedCommand,
    heading=RESULTS,
    examples=("rbench merge first/ second/ -o both.jsonl", "rbench merge *.jsonl -o all.jsonl --force"),
)
@click.argument(
    "sources",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE|DIR...",
    help="Files of JSON lines that rbench run wrote, or their folders.",
)
@OUTPUT.option("-o", "out", required=True, type=OutputFile(), metavar="FILE", help="File of JSON lines to write.")
@OUTPUT.option("--force", is_flag=True, help="Replace an existing file, even if it is one of those that are merged.")
@terminal.debug_option
def merge(sources: tuple[Path, ...], out: Path, force: bool) -> None:
    """Merge files of results, also from several machines.

    A row that stands in several files is kept once.
    """
    from benchmarks.compare import merge as merging

    merged = merging.merge(sources, out, force)
    left_out = f"; left out as duplicates: {merged.duplicates}" if merged.duplicates else ""
    streams.print_message(f"rows: {len(merged.results)} of files: {len(sources)}{left_out}")
    streams.print_path(out)
