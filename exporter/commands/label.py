"""The command ``label``: labels for any number of images, in files of Parquet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.commands import streams, terminal
from exporter.commands.command import DATA, MODEL, OUTPUT, RUNTIME, NameChoice, SectionedCommand
from exporter.commands.options import backend_options, require_device
from exporter.commands.terminal import debug_option, json_option
from exporter.commands.values import ERROR_LIMIT, RAY_ADDRESS, FiniteFloat, OutputPath
from runtimes.errors import UsageError
from runtimes.labelling.job import MAX_COUNT

if TYPE_CHECKING:
    from exporter.export_request import ExportListener
    from runtimes.labelling.executor import Executor
    from runtimes.labelling.label import LabellingRequest
    from runtimes.labelling.raycluster import RaySettings
    from runtimes.labelling.work import WorkerSettings

KINDS = ("folder", "tar", "parquet", "list")


def label_command(heading: str) -> SectionedCommand:
    """The command, which its group lists under the heading."""

    @click.command(
        "label",
        cls=SectionedCommand,
        heading=heading,
        examples=(
            "rexport label photos/ --artifact resnet20.onnx -o labels/",
            "rexport label s3://bucket/photos -a resnet20.onnx -o labels/ --ray auto",
        ),
    )
    @click.argument(
        "source",
        metavar="SOURCE",
        help="Folder of images, tar archive, Parquet file with a column uri or bytes, or text file with one path or "
        "URI a line; local, or in S3, Google Cloud Storage or Azure. A folder may hold tar archives or Parquet files.",
    )
    @MODEL.option(
        "-a",
        "--artifact",
        required=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Model file that rexport wrote.",
    )
    @DATA.option(
        "--kind",
        type=NameChoice(KINDS),
        show_default="recognised and printed",
        help="Form of SOURCE.",
    )
    @DATA.option(
        "--evaluate",
        is_flag=True,
        help="Print the top-1 accuracy with its interval. The class of an image is the column label of a table, else "
        "the folder of the image.",
    )
    @DATA.option(
        "--max-errors",
        type=ERROR_LIMIT,
        default="10%",
        metavar="N|PERCENT%",
        help="Number or share of images that may stay without a label. Beyond it, the job ends with exit code 1.",
    )
    @DATA.option("--retry-errors", is_flag=True, help="Label shards again that have images without a label.")
    @backend_options
    @RUNTIME.option(
        "--batch",
        type=click.IntRange(1, MAX_COUNT),
        default=32,
        metavar="N",
        help="Number of images in one call of the network.",
    )
    @RUNTIME.option(
        "--workers",
        type=click.IntRange(1, 4096),
        show_default="1; with --ray as many as the cluster has room for",
        metavar="N",
        help="Number of worker processes, which share the processors. With 1, this process labels all images itself. "
        "From 2 on, an image that crashes its worker costs no other image.",
    )
    @RUNTIME.option(
        "--ray",
        type=RAY_ADDRESS,
        show_default="none",
        metavar="local|auto|HOST:PORT",
        help="Label on a Ray cluster: local starts one on this machine for this command; auto takes the one of this "
        "machine, or that of RAY_ADDRESS. Each worker reserves --threads processors, by default 1.",
    )
    @RUNTIME.option(
        "--gpus-per-worker",
        type=FiniteFloat(0, 1024),
        default=0,
        metavar="N",
        help="Number of GPUs that Ray reserves for each worker. With 0.5, two workers share a GPU.",
    )
    @RUNTIME.option(
        "--stall",
        type=FiniteFloat(0, min_open=True),
        default=300,
        metavar="SECONDS",
        help="Time without progress after which the job ends.",
    )
    @OUTPUT.option(
        "-o",
        "--out",
        type=OutputPath(),
        required=True,
        metavar="DIR|URI",
        help="Folder for the Parquet files. The same command continues an interrupted job.",
    )
    @OUTPUT.option(
        "--top",
        type=click.IntRange(1, MAX_COUNT),
        default=1,
        metavar="N",
        help="Number of labels for each image, best first.",
    )
    @OUTPUT.option("--features", is_flag=True, help="Write the features of each image. The model needs that output.")
    @OUTPUT.option(
        "--shard",
        type=click.IntRange(1, MAX_COUNT),
        default=4096,
        metavar="N",
        help="Number of images in a file of the output.",
    )
    @json_option
    @debug_option
    def label(source: str, artifact: Path, evaluate: bool, as_json: bool, **options: Any) -> None:
        """Label any number of images and print the folder with the labels.

        The output is a Parquet file for each shard of the source. An interrupted job is continued by the same command;
        nothing is labelled twice or lost. An image that cannot be read is a row with its error.
        """
        if options["ray"] is None:
            require_device(options["device"])
        with terminal.reserve_stdout(), terminal.listening() as listener:
            from exporter.document.status_line import is_live
            from exporter.inspect import labelling
            from exporter.inspect.labelled_accuracy import LabelEvaluation
            from runtimes.labelling.label import label as label_images
            from runtimes.labelling.sources.opening import absolute

            open_executor = _executor(options, listener)
            request = _request(source, artifact, options)
            evaluation = LabelEvaluation(absolute(request.out), artifact, listener.notice) if evaluate else None
            progress = labelling.LabellingProgress(listener, evaluation, is_live(sys.stderr))
            result = label_images(request, open_executor, progress.job_listener())
            labelling.announce_end(result, listener.notice)
            accuracy = None if evaluation is None else evaluation.measure(result.job)
        if as_json:
            streams.print_json(labelling.as_json(result, accuracy))
            return
        streams.print_path(result.out)
        if accuracy is not None:
            streams.print_result(labelling.accuracy_as_text(accuracy))

    return label


def _request(source: str, artifact: Path, options: dict[str, Any]) -> LabellingRequest:
    """The request that the options come to. Worker processes share the processors unless ``--threads`` is given."""
    from runtimes.labelling.label import LabellingRequest
    from runtimes.processors import usable_processors

    of_workers = ("stall", "threads", "workers", "ray", "gpus_per_worker")
    values = {name: value for name, value in options.items() if name not in of_workers}
    threads, decoding_threads, workers = options["threads"], None, options["workers"] or 1
    if options["ray"] is None and workers > 1:
        threads = threads or max(1, usable_processors() // workers)
        decoding_threads = threads
    return LabellingRequest(
        source, artifact, stall_s=options["stall"], threads=threads, decoding_threads=decoding_threads, **values
    )


def _executor(options: dict[str, Any], listener: ExportListener) -> Callable[[WorkerSettings], Executor]:
    """What starts the workers. A cluster that cannot be used is an error here, before the source is listed."""
    from runtimes.labelling.in_process import InProcessExecutor
    from runtimes.labelling.processes import ProcessExecutor

    address, workers = options["ray"], options["workers"]
    if address is not None:
        from runtimes.labelling.raycluster import RaySettings

        return _ray_executor(RaySettings(address, workers, options["gpus_per_worker"]), listener)
    if options["gpus_per_worker"]:
        raise UsageError("--gpus-per-worker needs --ray", code="gpus-without-ray", hint="--device chooses the GPU")
    if workers in (None, 1):
        return InProcessExecutor
    return lambda settings: ProcessExecutor(settings, workers)


def _ray_executor(ray: RaySettings, listener: ExportListener) -> Callable[[WorkerSettings], Executor]:
    from runtimes.labelling.onray import RayExecutor
    from runtimes.labelling.raycluster import check_cluster

    check_cluster(ray.address)

    def start(settings: WorkerSettings) -> Executor:
        listener.step("starting Ray" if ray.address.local else "connecting to Ray")
        return RayExecutor.start(settings, ray)

    return start
