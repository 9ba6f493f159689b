"""``rbench run``, ``load`` and ``tune``: the commands that measure. Everything heavy is imported late."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands import options
from benchmarks.records.plan import FORMER_SHAPES, RELATIVE_TO, SHAPES
from exporter.commands import streams, terminal
from exporter.commands.backend_option import backend_option
from exporter.commands.command import MEASURING, OUTPUT, RUNTIME, NameChoice, SectionedCommand
from exporter.commands.options import force_option
from exporter.commands.signals import INTERRUPTED, TERMINATED
from exporter.commands.values import VARIANT_OR_FILE, OutputFile, OutputPath
from exporter.precision.table import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from benchmarks.records.plan import ShapeName
    from benchmarks.records.request import RunListener
    from benchmarks.records.result import Result

MEASURE = "Measure"
"""The heading under which these commands are listed."""


@contextmanager
def _measuring(
    measure: Callable[[RunListener], Generator[Result, None, None]], folder: Path | None, json_file: Path | None
) -> Iterator[tuple[list[Result], bool]]:
    """Gives all results, each of which was added to the files, and whether they are complete. Standard output is kept
    for what is shown of them. An early end, as by a full disk, ends the command when that is done.

    Raises:
        RexportError: the parent of a file or folder is missing; as ``ResultsFile``; or there is no result yet.
    """
    from benchmarks.commands.outputs import check_folder
    from benchmarks.commands.progress import listening
    from benchmarks.harness.collection import Collection
    from benchmarks.records.store import FILE_NAME
    from runtimes import files
    from runtimes.errors import RexportError
    from runtimes.folders import folder_to_fill

    for parent in (path.parent for path in (folder, json_file) if path is not None):
        files.require_folder(parent)
    check_folder(folder, json_file)
    with nullcontext() if folder is None else folder_to_fill(folder):
        places = (None if folder is None else folder / FILE_NAME, json_file)
        collection = Collection([place for place in places if place is not None])
        try:
            with terminal.reserve_stdout(), listening() as listener, collection, closing(measure(listener)) as measured:
                for result in measured:
                    collection.add(result)
        except RexportError as error:
            options.explain_options(error)
            raise
        results, ending = collection.results, collection.ending
        yield results, ending is None
        if isinstance(ending, (KeyboardInterrupt, SystemExit)):
            measured_count = sum(result.status == "ok" for result in results)
            where = "" if folder is None else f"; they are in {folder / FILE_NAME}"
            streams.print_message(f"{measured_count} of {len(results)} configurations were measured{where}")
        if isinstance(ending, KeyboardInterrupt):
            raise SystemExit(INTERRUPTED)
        if isinstance(ending, SystemExit):  # SIGTERM, as exporter.commands.terminal turns it
            raise SystemExit(TERMINATED)
        if ending is not None:
            raise ending


@click.command(
    cls=SectionedCommand,
    heading=MEASURE,
    examples=(
        "rbench run fp32.onnx int8.onnx --backend onnxruntime --backend openvino",
        "rbench run resnet50 --weights imagenet --precision fp16 -o results/",
    ),
)
@options.models_argument
@options.model_options(precisions="fp32 for a VARIANT, its own for an ARTIFACT")
@options.runtime_options(options.devices_option)
@options.threads_option
@options.baseline_option
@options.quick_option
@options.batches_option(show_default="1", help="Number of images in one call; repeatable.")
@options.measuring_options(limit=None, duration_s=0.2, processes=None)
@options.budget_option
@options.streams_option
@options.trtexec_option
@MEASURING.option(
    "--roofline/--no-roofline",
    default=True,
    show_default="yes",
    help="Measure the peak FLOPS and the bandwidth of the machine first.",
)
@options.json_file_option
@options.folder_option
@options.explain_option
@options.show_errors_option
def run(subjects: tuple[str, ...], json_file: Path | None, folder: Path | None, explain: bool, **common: Any) -> None:
    """Measure latency, throughput, memory and accuracy of models.

    Each backend that opens a model is measured in processes of its own, side by side with the others. A VARIANT or a
    CHECKPOINT is exported first, in each precision. Files with the same weights stand in one table. What cannot be made
    or cannot run is a row with its reason.
    """
    from benchmarks.analysis.figures import Figures
    from benchmarks.commands import outputs
    from benchmarks.harness.run import exit_code
    from benchmarks.harness.run import run as measure
    from benchmarks.report.document import run_document

    request = options.request_of(subjects, common)
    options.announce_unused(options.unused_options(request))
    with _measuring(lambda listener: measure(request, listener), folder, json_file) as (results, complete):
        rows = Figures.of_all(results)
        page = None if folder is None else outputs.write(folder, rows, complete)
        streams.print_document(run_document(rows, complete, explain))
        if page is not None:
            streams.print_result("")
            streams.print_path(page)
    sys.exit(exit_code(rows, request))


@click.command(
    cls=SectionedCommand,
    heading=MEASURE,
    examples=(
        "rbench load resnet20.onnx --shape server --rate 200",
        "rbench load resnet20.onnx --url grpc://127.0.0.1:8001 --max-p99 20ms",
    ),
)
@click.argument(
    "subject",
    required=False,
    metavar="[ARTIFACT|VARIANT|CHECKPOINT|MODULE:FACTORY]",
    type=VARIANT_OR_FILE,
    help="Model file; or a network, weights file or your own code that is exported first. Default: the bundled trained "
    "resnet20.",
)
@options.weights_options
@options.size_option
@backend_option(
    "backends",
    multiple=True,
    default="the one that runtimes.open takes",
    help="Backend that runs the model, as onnxruntime (ort) or openvino (ov); repeatable.",
)
@options.device_option
@options.threads_option
@options.served_options
@MEASURING.option(
    "--shape",
    "shapes",
    multiple=True,
    type=options.ShapeChoice(),
    show_default="all",
    help=f"Load shape; repeatable. {', '.join(FORMER_SHAPES)} also stand for the first three.",
)
@MEASURING.option(
    "--rate",
    "rate_per_s",
    type=options.POSITIVE,
    metavar="R",
    show_default="70 % of what single-stream reaches",
    help="Requests per second of server.",
)
@MEASURING.option(
    "--fps", "frames_per_s", type=options.POSITIVE, default=30.0, metavar="R", help="Calls per second of fixed-rate."
)
@MEASURING.option(
    "--clients",
    multiple=True,
    type=click.IntRange(1, 1024),
    metavar="N",
    show_default="powers of two, up to twice the processors",
    help="Number of concurrent clients; repeatable.",
)
@options.batches_option(
    show_default="1, 2, 4 ... 32",
    help="Batch size of the shape batches; repeatable. The other shapes have one image a call.",
)
@options.duration_option(default=1.0, help="Seconds of each shape; clients and batches have half of it for each value.")
@options.seed_option(help="Seed of noise images, of random weights and of the arrivals of server.")
@options.timeout_option("process")
@options.strict_option
@options.json_file_option
@options.folder_option
@options.explain_option
@options.show_errors_option
def load(
    subject: str | None,
    shapes: tuple[ShapeName, ...],
    rate_per_s: float | None,
    frames_per_s: float,
    clients: tuple[int, ...],
    json_file: Path | None,
    folder: Path | None,
    explain: bool,
    **common: Any,
) -> None:
    """Measure the response times of a model under load, here or on a server.

    Each point of a shape has a process of its own. The first two shapes are called as in MLPerf Inference.

    \b
    single-stream  each call starts when the last one has ended
    server         requests arrive as a Poisson process; their time counts from
                   the intended start, so that waiting behind a stall shows
    fixed-rate     calls at equal distances, as from a camera
    clients        concurrent clients
    batches        several batch sizes
    cold           from the start of a process to its first answer; not with --url
    """
    from benchmarks.analysis.figures import Figures
    from benchmarks.analysis.served import summarise_search
    from benchmarks.commands import outputs
    from benchmarks.harness.run import exit_code
    from benchmarks.load.run import LoadSpec
    from benchmarks.load.run import run as measure
    from benchmarks.report.document import load_document

    endpoint = options.endpoint_of(common)
    request = options.request_of(() if subject is None else (subject,), common)
    wanted = tuple(shape for shape in SHAPES if shape in shapes)
    takers: dict[ShapeName, str] = {
        "server": "rate_per_s", "fixed-rate": "frames_per_s", "clients": "clients", "batches": "batches"
    }  # fmt: skip
    unused = options.unused_options(request)
    if endpoint is not None and endpoint.limit_s is not None:
        unused |= {"with --max-p99": ("shapes", *takers.values())}
    else:
        used = wanted or SHAPES
        unused |= {f"without --shape {shape}": (name,) for shape, name in takers.items() if shape not in used}
    if endpoint is None:
        unused["without --url"] = ("model", "model_version", "request_timeout_s")
    else:
        unused["with --url"] = ("backends", "device", "threads")
    options.announce_unused(unused)
    load_spec = LoadSpec(wanted, rate_per_s, frames_per_s, clients, endpoint)
    with _measuring(lambda listener: measure(request, load_spec, listener), folder, json_file) as (results, complete):
        rows = Figures.of_all(results)
        if folder is not None:
            outputs.write(folder, rows, complete)
        streams.print_document(load_document(rows, complete, explain))
    found = summarise_search(row.result.load for row in rows if row.result.load is not None)
    sys.exit(exit_code(rows, request) or int(found is not None and found.holds is None))


@click.command(
    cls=SectionedCommand,
    heading=MEASURE,
    examples=(
        "rbench tune resnet20.onnx --max-drop 0.3",
        "rbench tune resnet20 --weights bundled --size 24,32 --page front.html",
    ),
)
@click.argument(
    "subjects",
    nargs=-1,
    required=True,
    metavar="ARTIFACT|VARIANT|CHECKPOINT|MODULE:FACTORY...",
    type=VARIANT_OR_FILE,
    help="ONNX files that rexport wrote; or networks, weights files or your own code that are exported first.",
)
@options.model_options(precisions="all")
@options.runtime_options()
@MEASURING.option(
    "--objective",
    type=NameChoice(("latency", "throughput")),
    default="latency",
    help="What is made fast: one call, or one image in a call.",
)
@options.max_drop_option(help="Largest loss of top-1 accuracy against fp32, in percentage points.")
@MEASURING.option(
    "--relative-to",
    type=NameChoice(RELATIVE_TO),
    default="best",
    help="Network in fp32 that the loss counts from: the most accurate of all networks and sizes, or each one's own.",
)
@options.batches_option(
    show_default="1; for throughput 1, 8 and 32", help="Number of images in one call; repeatable for throughput."
)
@MEASURING.option(
    "--threads",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    show_default="powers of two, and all usable processors",
    help="Number of CPU threads to try; repeatable.",
)
@MEASURING.option(
    "--streams",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    show_default="1",
    help="Number of calls at the same time to try, for throughput; repeatable. OpenVINO divides its threads by it.",
)
@options.measuring_options(limit=2000, duration_s=0.5, processes=1)
@MEASURING.option(
    "--budget",
    "search_s",
    type=options.POSITIVE,
    metavar="S",
    show_default="none",
    help="Time in seconds after which no further configuration is begun; those near the best are still measured again.",
)
@RUNTIME.option(
    "--model-cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    show_default="none",
    help="Folder in which OpenVINO keeps the compiled model of the best configuration; its load time is measured with "
    "and without.",
)
@options.json_file_option
@OUTPUT.option(
    "--page",
    type=OutputFile(),
    metavar="FILE",
    show_default="none",
    help="HTML file to write, with the table and a plot of accuracy against latency.",
)
@OUTPUT.option(
    "-o",
    "out",
    type=OutputPath(),
    metavar="FILE|DIR/",
    show_default="NAME.tuned.onnx",
    help="Model file to write, or a folder if the path ends in a slash; such a folder is created.",
)
@force_option
@options.explain_option
@options.show_errors_option
def tune(
    subjects: tuple[str, ...],
    max_drop: float,
    search_s: float | None,
    json_file: Path | None,
    page: Path | None,
    explain: bool,
    **common: Any,
) -> None:
    """Find the fastest network, input size, backend, precision and thread count within an accuracy limit.

    Prints the measured configurations, and at the end the path of the best one as a model file, which runtimes.open
    opens with the options that were found. The candidates near the best and on the Pareto front are measured again,
    side by side. Several networks or sizes need labelled images. Without them, each precision has to pass its export
    gate in place of the limit. PyTorch is measured as the reference and never chosen, since an ONNX file cannot carry
    it.
    """
    from benchmarks.commands import outputs
    from benchmarks.report.tuning import tuning_document
    from benchmarks.tuning import search
    from benchmarks.tuning.findings import TuningGoal, TuningResult

    names = ("objective", "relative_to", "threads", "streams", "model_cache", "out", "force")
    others = tuple(path for path in (page, json_file) if path is not None)
    chosen = {name: common.pop(name) for name in names}
    goal = TuningGoal(max_drop=max_drop / 100, budget_s=search_s, others=others, **chosen)
    findings = TuningResult(goal)
    request = options.request_of(subjects, common)
    typed = replace(request, precisions=request.precisions or tuple(PRECISIONS))
    options.announce_unused(options.unused_options(typed))
    read = [Path(name) for name in request.subjects]
    outputs.check_targets({"--page": page}, read, goal.force)
    outputs.check_targets({"--json": json_file}, read if page is None else [*read, page], force=True)
    with _measuring(lambda listener: search.tune(request, findings, listener), None, json_file) as (_, complete):
        if page is not None:
            outputs.write_page(page, tuning_document(findings, complete, explain=True))
        streams.print_document(tuning_document(findings, complete, explain))
    if findings.artifact is not None:
        streams.print_path(findings.artifact.path)
    sys.exit(search.exit_code(findings, request))
