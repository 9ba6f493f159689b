"""``rbench run``: measure artifacts and variants."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands import recording
from benchmarks.commands.options import how_options, request_of, what_options
from benchmarks.records.plan import BUDGET_S

if TYPE_CHECKING:
    from benchmarks.records.request import BenchmarkRequest
    from benchmarks.records.result import Row
    from benchmarks.records.store import ResultsFile


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("subjects", nargs=-1, metavar="[ARTIFACT|VARIANT]...")
@what_options(precision_default="fp32 for a VARIANT, its own for an ARTIFACT")
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(min=1), metavar="N", help="Images a call; repeatable. [1]"
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Default: all that this process may use.")
@how_options(limit=None, duration_s=0.2, processes=None)
@click.option(
    "--budget",
    "budget_s",
    type=click.FloatRange(min=0, min_open=True),
    default=BUDGET_S,
    show_default=True,
    metavar="S",
    help="Seconds in which another process of each is begun, for each network and batch.",
)
@click.option("--roofline/--no-roofline", default=True, help="Measure the machine's ceilings first. Default: yes.")
@click.option(
    "-o", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Write results.jsonl, .md, .csv and .html."
)
def run(subjects: tuple[str, ...], json_file: Path | None, folder: Path | None, **options: Any) -> None:
    """Measure artifacts, or variants exported on the way. Without any: the bundled trained model.

    With several precisions each network is exported once in each and compared with PyTorch in fp32. A precision that
    cannot be made, fails its gate, or that a runtime does not run, is a row with its reason.
    """
    sys.exit(_run(request_of(subjects, options), json_file, folder))


def _run(request: BenchmarkRequest, json_file: Path | None, folder: Path | None) -> int:
    from benchmarks.commands import outputs
    from benchmarks.harness.bench import exit_code
    from benchmarks.records.store import FILE_NAME
    from benchmarks.report import terminal as report_terminal

    kept = recording.files(None if folder is None else folder / FILE_NAME, json_file)
    rows: list[Row] = []
    code, failure = recording.run_to_end(lambda: _measure(request, rows, kept), rows)
    complete = code is None
    report_terminal.print_table(rows, sys.stdout, complete)
    if folder is not None:
        click.echo(f"\n{outputs.write(folder, rows, complete)}")
    if failure is not None:
        raise failure
    return exit_code(rows, request) if code is None else code


def _measure(request: BenchmarkRequest, rows: list[Row], kept: list[ResultsFile]) -> None:
    from benchmarks.commands.progress import listening
    from benchmarks.harness.bench import run as measured

    with listening() as listener, contextlib.closing(measured(request, listener)) as found:
        for row in found:
            rows.append(row)
            recording.keep(row, kept)
