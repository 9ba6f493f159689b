"""``rbench run``: measure artifacts and variants."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands import recording
from benchmarks.commands.options import (
    SETTINGS,
    batches_option,
    folder_option,
    how_options,
    request_of,
    threads_option,
    what_options,
)
from benchmarks.records.plan import BUDGET_S

if TYPE_CHECKING:
    from benchmarks.records.result import Result


@click.command(context_settings=SETTINGS)
@click.argument("subjects", nargs=-1, metavar="[ARTIFACT|VARIANT]...")
@what_options(precision_default="fp32 for a VARIANT, its own for an ARTIFACT")
@batches_option("Images in one call; repeatable. Default: 1.")
@threads_option
@how_options(limit=None, duration_s=0.2, processes=None)
@click.option(
    "--budget",
    "budget_s",
    type=click.FloatRange(min=0, min_open=True),
    default=BUDGET_S,
    show_default=True,
    metavar="S",
    help="Time for each network and batch, in seconds: repeat processes (3 to 10) start while they fit.",
)
@click.option(
    "--roofline/--no-roofline", default=True, help="Measure the machine's peak FLOPS and bandwidth first. Default: yes."
)
@folder_option
def run(subjects: tuple[str, ...], json_file: Path | None, folder: Path | None, **options: Any) -> None:
    """Measure artifacts, or variants exported on the way. Without any: the bundled trained model.

    With several precisions each network is exported once in each and compared with PyTorch in fp32. A precision that
    cannot be made, fails its gate, or that a backend does not run, is a row with its reason.
    """
    from benchmarks.analysis.figures import Figures
    from benchmarks.commands import outputs
    from benchmarks.harness.run import exit_code
    from benchmarks.harness.run import run as measure
    from benchmarks.records.store import FILE_NAME
    from benchmarks.report.document import run_document
    from exporter.document.terminal import print_document

    request = request_of(subjects, options)
    kept = recording.files(None if folder is None else folder / FILE_NAME, json_file)
    results: list[Result] = []
    code, failure = recording.collect(lambda listener: measure(request, listener), results, kept)
    complete, rows = code is None, Figures.of_all(results)
    print_document(run_document(rows, complete), sys.stdout)
    if folder is not None:
        click.echo(f"\n{outputs.write(folder, rows, complete)}")
    if failure is not None:
        raise failure
    sys.exit(exit_code(rows, request) if code is None else code)
