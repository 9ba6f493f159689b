"""``rbench run``, ``load`` and ``tune``: the commands that measure. Everything heavy is imported late."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands import options
from benchmarks.records.plan import ARRIVALS, BUDGET_S, SHAPES
from exporter.commands import terminal
from exporter.commands.backend_option import backend_option

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from benchmarks.records.plan import Arrivals
    from benchmarks.records.request import RunListener
    from benchmarks.records.result import Result
    from benchmarks.tuning.pareto import Objective


@contextmanager
def _measuring(
    measure: Callable[[RunListener], Generator[Result, None, None]], folder: Path | None, json_file: Path | None
) -> Iterator[tuple[list[Result], bool]]:
    """Gives all results, each of which was added to the files, and whether they are complete. Standard output is kept
    for what is shown of them. An early end, as by a full disk, ends the command when that is done.

    Raises:
        RexportError: as ``ResultsFile``; or there is no result yet.
    """
    from benchmarks.commands.progress import listening
    from benchmarks.harness.collection import collect
    from benchmarks.records.store import FILE_NAME, ResultsFile

    places = (None if folder is None else folder / FILE_NAME, json_file)
    files = [ResultsFile(place) for place in places if place is not None]
    results: list[Result] = []
    with terminal.reserve_stdout(), listening() as listener:
        ending = collect(measure(listener), results, files)
    yield results, ending is None
    if isinstance(ending, KeyboardInterrupt):
        raise SystemExit(terminal.INTERRUPTED)
    if isinstance(ending, SystemExit):  # SIGTERM, as exporter.commands.terminal turns it
        raise SystemExit(terminal.TERMINATED)
    if ending is not None:
        raise ending


@click.command(context_settings=options.SETTINGS)
@click.argument("subjects", nargs=-1, metavar="[ARTIFACT|VARIANT]...")
@options.what_options(precision_default="fp32 for a VARIANT, its own for an ARTIFACT")
@options.batches_option(help="Images in one call; repeatable. Default: 1.")
@options.threads_option
@options.how_options(limit=None, duration_s=0.2, processes=None)
@click.option(
    "--budget",
    "budget_s",
    type=options.POSITIVE,
    default=BUDGET_S,
    metavar="S",
    help="Time for each network and batch, in seconds: repeat processes (3 to 10) start while they fit.",
)
@click.option(
    "--roofline/--no-roofline",
    default=True,
    show_default=False,
    help="Measure the machine's peak FLOPS and bandwidth first. Default: yes.",
)
@options.folder_option
def run(subjects: tuple[str, ...], json_file: Path | None, folder: Path | None, **common: Any) -> None:
    """Measure artifacts, or variants exported on the way. Without any: the bundled trained model.

    With several precisions each network is exported once in each and compared with PyTorch in fp32. A precision that
    cannot be made, fails its gate, or that a backend does not run, is a row with its reason.
    """
    from benchmarks.analysis.figures import Figures
    from benchmarks.commands import outputs
    from benchmarks.harness.run import exit_code
    from benchmarks.harness.run import run as measure
    from benchmarks.report.document import run_document
    from exporter.document.terminal import print_document

    request = options.request_of(subjects, common)
    with _measuring(lambda listener: measure(request, listener), folder, json_file) as (results, complete):
        rows = Figures.of_all(results)
        print_document(run_document(rows, complete), sys.stdout)
        if folder is not None:
            click.echo(f"\n{outputs.write(folder, rows, complete)}")
    sys.exit(exit_code(rows, request))


@click.command(context_settings=options.SETTINGS)
@click.argument("subject", required=False, metavar="[ARTIFACT|VARIANT]")
@click.option(
    "--shape", "shapes", multiple=True, type=click.Choice(SHAPES), help="A load shape; repeatable. Default: all."
)
@click.option(
    "--rate",
    "rate_per_s",
    type=options.POSITIVE,
    metavar="R",
    help="Requests a second of the open loop. Default: 70 % of what the closed loop reaches.",
)
@click.option("--arrivals", type=click.Choice(ARRIVALS), default="poisson")
@click.option(
    "--fps",
    "frames_per_s",
    type=options.POSITIVE,
    default=30.0,
    metavar="R",
    help="Calls a second of the paced load, with idle gaps.",
)
@options.count_option(
    "--clients",
    multiple=True,
    type=click.IntRange(1, 1024),
    help="Threads that call at once; repeatable. Default: powers of two, up to twice the processors.",
)
@options.batches_option(
    help="Sizes of the batch sweep; repeatable. Default: 1, 2, 4 ... 32. The other shapes have one image a call."
)
@backend_option("backends", multiple=True, help="A backend; repeatable. Default: the one that runtimes.open takes.")
@options.device_option
@options.weights_option
@options.threads_option
@options.duration_option(default=1.0, help="Seconds of each shape; the points of a sweep have half of it.")
@options.seed_option()
@options.timeout_option("process")
@options.strict_option(" Cold starts are not judged.")
@options.json_file_option
@options.folder_option
@options.show_errors_option
def load(
    subject: str | None,
    shapes: tuple[str, ...],
    rate_per_s: float | None,
    arrivals: Arrivals,
    frames_per_s: float,
    clients: tuple[int, ...],
    json_file: Path | None,
    folder: Path | None,
    **common: Any,
) -> None:
    """Measure how long requests take, as they come in one way or another. Default: the bundled trained model.

    closed: the next call when the last one has ended: service time. open: requests come at a rate, whether or not the
    last one has ended, and are timed from when they were to start, so that a stall shows in all that wait behind it.
    paced: with idle gaps, as from a camera. clients, batches: more at once, and where that stops to pay. cold: fresh
    processes, from their start to the first answer. Each in a process of its own.
    """
    from benchmarks.analysis.figures import Figures
    from benchmarks.commands import outputs
    from benchmarks.harness.run import exit_code
    from benchmarks.load.run import LoadSpec
    from benchmarks.load.run import run as measure
    from benchmarks.report.document import load_document
    from exporter.document.terminal import print_document

    request = options.request_of(() if subject is None else (subject,), common)
    wanted = tuple(shape for shape in SHAPES if shape in shapes)
    load_spec = LoadSpec(wanted, rate_per_s, arrivals, frames_per_s, clients)
    with _measuring(lambda listener: measure(request, load_spec, listener), folder, json_file) as (results, complete):
        rows = Figures.of_all(results)
        print_document(load_document(rows, complete), sys.stdout)
        if folder is not None:
            outputs.write(folder, rows, complete)
    sys.exit(exit_code(rows, request))


@click.command(context_settings=options.SETTINGS)
@click.argument("subject", metavar="ARTIFACT|VARIANT")
@options.what_options(precision_default="all")
@click.option(
    "--objective",
    type=click.Choice(["latency", "throughput"]),
    default="latency",
    help="The least time of a call, or of an image in a call.",
)
@options.max_drop_option(help="Largest loss of top-1 against fp32, in percentage points.")
@options.batches_option(help="Images in one call; repeatable for throughput. Default: 1; for throughput 1, 8 and 32.")
@options.count_option(
    "--threads",
    multiple=True,
    help="Thread counts to try; repeatable. Default: powers of two, and all that this process may use.",
)
@options.how_options(limit=2000, duration_s=0.5, processes=1)
@click.option("-o", "out", metavar="FILE|DIR/", help="The artifact to write. Default: NAME.tuned.onnx.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def tune(
    subject: str,
    objective: Objective,
    max_drop: float,
    threads: tuple[int, ...],
    out: str | None,
    force: bool,
    json_file: Path | None,
    **common: Any,
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

    findings = search.TuningResult(search.TuningGoal(objective, max_drop / 100, threads, out, force))
    request = options.request_of((subject,), common)
    with _measuring(lambda listener: search.tune(request, findings, listener), None, json_file) as (_, complete):
        print_document(tuning_document(findings, complete), sys.stdout)
    if findings.artifact is not None:
        click.echo(findings.artifact.path)
    sys.exit(search.exit_code(findings, request))
