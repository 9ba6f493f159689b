"""``rbench load``: how long requests take when they come in one way or another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands import options, recording
from benchmarks.records.plan import ARRIVALS, SHAPES
from exporter.commands.backend_option import backend_option

if TYPE_CHECKING:
    from benchmarks.records.result import Result


@click.command(context_settings=options.SETTINGS)
@click.argument("subject", required=False, metavar="[ARTIFACT|VARIANT]")
@click.option(
    "--shape", "shapes", multiple=True, type=click.Choice(SHAPES), help="A load shape; repeatable. Default: all."
)
@click.option(
    "--rate",
    "rate_per_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="R",
    help="Requests a second of the open loop. Default: 70 % of what the closed loop reaches.",
)
@click.option("--arrivals", type=click.Choice(ARRIVALS), default="poisson", show_default=True)
@click.option(
    "--fps",
    "frames_per_s",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="R",
    help="Calls a second of the paced load, with idle gaps.",
)
@click.option(
    "--clients",
    multiple=True,
    type=click.IntRange(min=1, max=1024),
    metavar="N",
    help="Threads that call at once; repeatable. Default: powers of two, up to twice the processors.",
)
@options.batches_option(
    "Sizes of the batch sweep; repeatable. Default: 1, 2, 4 ... 32. The other shapes have one image a call."
)
@backend_option("backends", multiple=True, help="A backend; repeatable. Default: the one that runtimes.open takes.")
@options.device_option
@options.weights_option
@options.threads_option
@options.duration_option(1.0, "Seconds of each shape; the points of a sweep have half of it.")
@options.seed_option(None)
@options.timeout_option("process")
@options.strict_option(" Cold starts are not judged.")
@options.json_file_option
@options.folder_option
@options.show_errors_option
def load(
    subject: str | None,
    shapes: tuple[str, ...],
    rate_per_s: float | None,
    arrivals: str,
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
    from benchmarks.load.run import LoadSpec, run
    from benchmarks.report.document import load_document
    from exporter.document.terminal import print_document

    request = options.request_of(() if subject is None else (subject,), common)
    wanted = tuple(shape for shape in SHAPES if shape in shapes)
    load_spec = LoadSpec(wanted, rate_per_s, "fixed" if arrivals == "fixed" else "poisson", frames_per_s, clients)
    kept = recording.files(None if folder is None else folder / "results.jsonl", json_file)
    results: list[Result] = []
    code, failure = recording.collect(lambda listener: run(request, load_spec, listener), results, kept)
    rows = Figures.of_all(results)
    print_document(load_document(rows, code is None), sys.stdout)
    if folder is not None:
        outputs.write(folder, rows, code is None)
    if failure is not None:
        raise failure
    sys.exit(exit_code(rows, request) if code is None else code)
