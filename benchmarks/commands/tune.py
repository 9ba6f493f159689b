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
    from benchmarks.records.request import BenchmarkRequest
    from benchmarks.records.store import ResultsFile
    from benchmarks.tuning.search import TuningResult
    from runtimes import Artifact


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
    from benchmarks.tuning.search import TuningGoal, TuningResult

    goal = TuningGoal("throughput" if objective == "throughput" else "latency", max_drop / 100, threads, out, force)
    sys.exit(_tune(request_of((subject,), options), TuningResult(goal), json_file))


def _tune(request: BenchmarkRequest, findings: TuningResult, json_file: Path | None) -> int:
    from benchmarks.report.tuning import print_findings
    from benchmarks.tuning.search import exit_code

    kept = recording.files(json_file)
    written: list[Artifact] = []
    code, failure = recording.run_to_end(lambda: _search(request, findings, kept, written), findings.rows)
    print_findings(findings, sys.stdout, code is None)
    if failure is not None:
        raise failure
    if code is not None:
        return code
    for artifact in written:
        click.echo(artifact.path)
    return exit_code(findings, request)


def _search(
    request: BenchmarkRequest, findings: TuningResult, kept: list[ResultsFile], written: list[Artifact]
) -> None:
    from benchmarks.commands.progress import listening
    from benchmarks.tuning.search import tune as searched

    with listening() as listener:
        artifact = searched(request, findings, listener, lambda row: recording.keep(row, kept))
        if artifact is not None:
            written.append(artifact)
