"""``rbench tune``: find the fastest configuration within an accuracy bound."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands import recording
from benchmarks.commands.options import (
    SETTINGS,
    batches_option,
    how_options,
    max_drop_option,
    request_of,
    what_options,
)

if TYPE_CHECKING:
    from benchmarks.records.result import Result


@click.command(context_settings=SETTINGS)
@click.argument("subject", metavar="ARTIFACT|VARIANT")
@what_options(precision_default="all")
@click.option(
    "--objective",
    type=click.Choice(["latency", "throughput"]),
    default="latency",
    show_default=True,
    help="The least time of a call, or of an image in a call.",
)
@max_drop_option("Largest loss of top-1 against fp32, in percentage points.")
@batches_option("Images in one call; repeatable for throughput. Default: 1; for throughput 1, 8 and 32.")
@click.option(
    "--threads",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Thread counts to try; repeatable. Default: powers of two, and all that this process may use.",
)
@how_options(limit=2000, duration_s=0.5, processes=1)
@click.option("-o", "out", metavar="FILE|DIR/", help="The artifact to write. Default: NAME.tuned.onnx.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def tune(
    subject: str,
    objective: str,
    max_drop: float,
    threads: tuple[int, ...],
    out: str | None,
    force: bool,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Find the fastest backend, precision and thread count within a bound, and write them as an artifact.

    What runtimes.open then opens without further options is what was the fastest here. Prints all that was measured,
    with the front of time against drop, and on the last line the artifact's path. Candidates are measured one after
    another; those that come near the best are measured again, in turns, three processes each. Without labelled images
    the bound is the gate on the logits' error that each precision passes when it is exported. PyTorch is measured as
    the reference and never chosen: an ONNX file cannot carry it.
    """
    from benchmarks.report.tuning import tuning_document
    from benchmarks.tuning import search
    from exporter.document.terminal import print_document

    goal = search.TuningGoal(
        "throughput" if objective == "throughput" else "latency", max_drop / 100, threads, out, force
    )
    request, findings = request_of((subject,), options), search.TuningResult(goal)
    kept = recording.files(json_file)
    results: list[Result] = []
    code, failure = recording.collect(lambda listener: search.tune(request, findings, listener), results, kept)
    print_document(tuning_document(findings, code is None), sys.stdout)
    if failure is not None:
        raise failure
    if code is None and findings.artifact is not None:
        click.echo(findings.artifact.path)
    sys.exit(search.exit_code(findings, request) if code is None else code)
