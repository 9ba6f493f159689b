"""``rbench``: what artifacts cost on this machine, and what they are worth. Everything heavy is imported late."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands import frame
from benchmarks.commands.compare import compare
from benchmarks.commands.load import load
from benchmarks.commands.merge import merge
from benchmarks.commands.paper import paper
from benchmarks.commands.report import report as report_command
from benchmarks.options import how_options, request_of, what_options
from exporter import terminal

if TYPE_CHECKING:
    from benchmarks.request import BenchmarkRequest
    from benchmarks.results import ResultsFile, Row
    from benchmarks.tune import TuningResult
    from runtimes import Artifact

ALONE = "rbench-results"
"""Where ``rbench`` without a word writes its files."""


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="rbench alone measures the bundled trained model on every runtime that is here, and writes a report to "
    f"{ALONE}.",
)
@click.version_option(package_name="rexport", prog_name="rbench")
@click.pass_context
def rbench(context: click.Context) -> None:
    """Measure what models cost on this machine, and what they are worth."""
    if context.invoked_subcommand is None:
        context.invoke(run, folder=Path(ALONE))


@rbench.command(context_settings={"help_option_names": ["-h", "--help"]})
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
    default=60.0,
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


@rbench.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("subject", metavar="ARTIFACT|VARIANT")
@what_options(precision_default="all")
@click.option(
    "--objective",
    type=click.Choice(["latency", "throughput"]),
    default="latency",
    show_default=True,
    help="The least time of a call, or of an image in a call.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0, max=100),
    default=0.5,
    show_default=True,
    metavar="POINTS",
    help="Of top-1 against fp32, in percentage points.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Images a call; repeatable for throughput. Default: 1; for throughput 1, 8 and 32.",
)
@click.option(
    "--threads",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="To try; repeatable. Default: powers of two, and all that this process may use.",
)
@how_options(limit=2000, duration_s=0.5, processes=1)
@click.option("-o", "out", metavar="FILE|DIR/", help="The artifact to write. Default: NAME.tuned.onnx.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
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
    """Find the fastest runtime, precision and thread count within a bound, and write them as an artifact.

    What runtimes.open then opens without further options is what was the fastest here. Prints all that was measured,
    with the front of time against drop, and on the last line the artifact's path. Candidates are measured one after
    another; those that come near the best are measured again, in turns, three processes each. Without labelled images
    the bound is the gate on the logits' error that each precision passes when it is exported. PyTorch is measured as
    the reference and never chosen: an ONNX file cannot carry it.
    """
    from benchmarks.tune import TuningGoal, TuningResult

    goal = TuningGoal("throughput" if objective == "throughput" else "latency", max_drop / 100, threads, out, force)
    sys.exit(_tune(request_of((subject,), options), TuningResult(goal), json_file))


@rbench.command(context_settings={"help_option_names": ["-h", "--help"]})
@terminal.json_option
@terminal.debug_option
def doctor(as_json: bool) -> None:
    """Say what is installed, whether it works, what is missing, and the command that mends it.

    Each installed runtime opens a tiny model and answers, in a process of its own that may crash or hang; one that
    compiles takes some tens of seconds. Exit code 1 if something that is installed is broken.
    """
    from benchmarks.doctor import examine, view
    from runtimes import schema

    with terminal.reserve_stdout(), terminal.listening() as listener:
        report = examine(listener.step)
    click.echo(schema.dumps(report, indent=2) if as_json else "\n".join(view.format_report(report)))
    sys.exit(0 if report.healthy else 1)


for command in (load, compare, merge, report_command, paper):
    rbench.add_command(command)


def _run(request: BenchmarkRequest, json_file: Path | None, folder: Path | None) -> int:
    from benchmarks import outputs, report
    from benchmarks.results import FILE_NAME
    from benchmarks.run import exit_code

    kept = frame.files(None if folder is None else folder / FILE_NAME, json_file)
    rows: list[Row] = []
    code, failure = frame.run_to_end(lambda: _measure(request, rows, kept), rows)
    complete = code is None
    report.print_table(rows, sys.stdout, complete)
    if folder is not None:
        click.echo(f"\n{outputs.write(folder, rows, complete)}")
    if failure is not None:
        raise failure
    return exit_code(rows, request) if code is None else code


def _tune(request: BenchmarkRequest, findings: TuningResult, json_file: Path | None) -> int:
    from benchmarks.tune import exit_code
    from benchmarks.verdict import print_findings

    kept = frame.files(json_file)
    written: list[Artifact] = []
    code, failure = frame.run_to_end(lambda: _search(request, findings, kept, written), findings.rows)
    print_findings(findings, sys.stdout, code is None)
    if failure is not None:
        raise failure
    if code is not None:
        return code
    for artifact in written:
        click.echo(artifact.path)
    return exit_code(findings, request)


def _measure(request: BenchmarkRequest, rows: list[Row], kept: list[ResultsFile]) -> None:
    from benchmarks.progress import listening
    from benchmarks.run import run as measured

    with listening() as listener, contextlib.closing(measured(request, listener)) as found:
        for row in found:
            rows.append(row)
            frame.keep(row, kept)


def _search(
    request: BenchmarkRequest, findings: TuningResult, kept: list[ResultsFile], written: list[Artifact]
) -> None:
    from benchmarks.progress import listening
    from benchmarks.tune import tune as searched

    with listening() as listener:
        artifact = searched(request, findings, listener, lambda row: frame.keep(row, kept))
        if artifact is not None:
            written.append(artifact)


def main() -> None:
    """The console script."""
    terminal.run(rbench)


if __name__ == "__main__":
    main()
