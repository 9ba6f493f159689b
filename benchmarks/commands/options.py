"""The options that ``rbench``'s commands share, and the request that they come to. Nothing heavy is imported."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from benchmarks.records.plan import (
    BUDGET_S,
    FORMER_SHAPES,
    LEAST_PROCESSES,
    MOST_PROCESSES,
    REQUEST_TIMEOUT_S,
    ROUNDS,
    SHAPES,
    SILENCE_S,
    Endpoint,
)
from exporter.commands import terminal
from exporter.commands.backend_option import backend_option
from exporter.commands.checkpoint_options import SELECTED, selection_options
from exporter.commands.command import (
    DATA,
    MEASURING,
    MODEL,
    OTHER,
    OUTPUT,
    PRECISION,
    RUNTIME,
    NameChoice,
    OptionSection,
    stack_options,
)
from exporter.commands.options import CALIBRATED, announce_idle, calibration_options, require_device
from exporter.commands.values import (
    BACKEND,
    COUNT,
    DATASET,
    DEVICE,
    DEVICES,
    SEED,
    VARIANT_OR_FILE,
    WEIGHTS,
    FiniteFloat,
    OutputFile,
    OutputPath,
    Sizes,
)
from exporter.precision.table import PRECISIONS, TARGETS
from runtimes.devices import CPU
from runtimes.errors import Reason, RexportError, UsageError

if TYPE_CHECKING:
    from benchmarks.records.request import BenchmarkRequest

    Function = TypeVar("Function", bound=Callable[..., Any])

SERVER = OptionSection("Server")

POSITIVE = FiniteFloat(min=0, min_open=True)

QUICK: Mapping[str, Any] = {
    "duration_s": 0.1,
    "warmup_limit_s": 1.0,
    "processes": 1,
    "limit": 500,
    "roofline": False,
}
"""What ``rbench run --quick`` takes for options that are not given: about 30 seconds with what ``make setup`` installs,
on two processors. The baseline is measured too, but on as few images as the others."""

TRTEXEC = "trtexec"
"""The name of NVIDIA's program."""

TRTEXEC_FOLDER = Path("/usr/src/tensorrt/bin")
"""The folder of ``trtexec`` in NVIDIA's packages and containers, which is not in PATH."""

seed_option = partial(MEASURING.option, "--seed", type=SEED, default=0, metavar="N")
batches_option = partial(MEASURING.option, "--batch", "batches", type=COUNT, multiple=True, metavar="N")
duration_option = partial(
    MEASURING.option,
    "--duration",
    "duration_s",
    type=FiniteFloat(min=0, min_open=True, max=3600),
    metavar="S",
)
max_drop_option = partial(
    MEASURING.option, "--max-drop", type=FiniteFloat(min=0, max=100), default=0.5, metavar="POINTS"
)

device_option = RUNTIME.option(
    "--device",
    type=DEVICE,
    metavar="NAME",
    default="cpu",
    help="Device that runs the model: cpu, cuda for the first GPU, or cuda:N.",
)
devices_option = RUNTIME.option(
    "--device",
    type=DEVICES,
    metavar="NAME[,...]",
    default="cpu",
    help="Device that runs the model: cpu, cuda for the first GPU, or cuda:N. Several GPUs, as cuda:0,cuda:1, are "
    "measured one by one, and then all at once.",
)
threads_option = RUNTIME.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    show_default="all usable processors",
    help="Number of CPU threads of one call.",
)
weights_options = stack_options(
    MODEL.option(
        "--weights",
        type=WEIGHTS,
        metavar="NAME|FILE",
        show_default="random",
        help="Weights of a VARIANT: random (untrained), bundled (resnet20 trained on Fashion-MNIST), imagenet "
        "(torchvision's), or a CHECKPOINT. For MODULE:FACTORY, a CHECKPOINT that fits exactly; without it, the "
        "module's own weights are taken.",
    ),
    selection_options,
)
size_option = MODEL.option(
    "--size",
    "sizes",
    type=Sizes(),
    multiple=True,
    metavar="N|HxW",
    show_default="the variant's",
    help="Height and width of the input of a VARIANT or CHECKPOINT in pixels; several as 24,28,32 or repeated. The "
    "preprocessing scales with it.",
)
strict_option = MEASURING.option(
    "--strict",
    is_flag=True,
    default=None,
    help="Exit with 1 if a result is INVALID, as on a busy machine, or its machine is unknown. Cold starts are exempt.",
)
json_file_option = OUTPUT.option(
    "--json",
    "json_file",
    type=OutputFile(),
    metavar="FILE",
    show_default="none",
    help="Add the results to FILE as JSON lines.",
)
folder_option = OUTPUT.option(
    "-o",
    "folder",
    type=OutputPath(path_type=Path),
    metavar="DIR",
    show_default="none",
    help="Write results.jsonl, .md, .csv and .html into DIR, which is created.",
)
explain_option = OUTPUT.option("--explain", is_flag=True, help="Explain the columns of the tables.")
show_errors_option = OTHER.option(
    "--debug", "show_errors", is_flag=True, help="Show tracebacks, and what the measured processes print."
)
models_argument = click.argument(
    "subjects",
    nargs=-1,
    metavar="[ARTIFACT|VARIANT|CHECKPOINT|MODULE:FACTORY]...",
    type=VARIANT_OR_FILE,
    help="Model files, or networks, weights files and your own code that are exported first, for example resnet50 or "
    "nets:build. Default: the bundled trained resnet20.",
)


def timeout_option(subject: str) -> Callable[[Function], Function]:
    """How long a worker may be silent."""
    return MEASURING.option(
        "--timeout",
        "silence_s",
        type=FiniteFloat(min=1),
        default=SILENCE_S,
        metavar="S",
        help=f"Seconds without a sign of life after which a {subject} is ended.",
    )


def model_options(precisions: str) -> Callable[[Function], Function]:
    """Which network in which precisions; ``precisions`` says in words which these are where none is named."""
    return stack_options(
        weights_options,
        size_option,
        MODEL.option(
            "--input",
            type=NameChoice(("float", "raw")),
            show_default="float",
            help="Input of a VARIANT: normalised float32, or raw uint8 pixels that the graph normalises.",
        ),
        PRECISION.option(
            "--precision",
            "precisions",
            multiple=True,
            type=NameChoice(tuple(PRECISIONS)),
            show_default=precisions,
            help="Precision in which the graph computes; repeatable.",
        ),
        calibration_options,
        PRECISION.option(
            "--target",
            type=NameChoice(TARGETS),
            default="cpu",
            help="Deployment target of int8; TensorRT takes signed integers alone. fp8 is always for TensorRT.",
        ),
    )


def runtime_options(device: Callable[[Any], Any] = device_option) -> Callable[[Function], Function]:
    """What the network runs on, but for the threads; ``device`` is the option for the device."""
    return stack_options(
        backend_option(
            "backends",
            multiple=True,
            default="all that open the model, but for those that compile for minutes",
            help="Backend that runs the model, as onnxruntime (ort) or openvino (ov); repeatable.",
        ),
        device,
        RUNTIME.option(
            "--cuda-graphs/--no-cuda-graphs",
            default=True,
            show_default="yes",
            help="Let a GPU replay recorded runs in place of launching each kernel.",
        ),
    )


streams_option = MEASURING.option(
    "--streams",
    "throughput",
    type=click.IntRange(1, 64),
    multiple=True,
    metavar="N",
    show_default="1, 2 and 4",
    help="Number of calls at the same time for which the throughput of a GPU is measured; repeatable.",
)
trtexec_option = MEASURING.option(
    "--trtexec",
    is_flag=False,
    flag_value=TRTEXEC,
    metavar="[PATH]",
    show_default="not run",
    help="Measure each engine of TensorRT with NVIDIA's trtexec as well, and show the ratio of the two times. PATH is "
    "the program; without it, it is searched in PATH and in /usr/src/tensorrt/bin.",
)
quick_option = MEASURING.option(
    "--quick",
    is_flag=True,
    help="Preliminary results in about 30 seconds: one short process of each configuration, 500 images, no roofline. "
    "Options that are given still count.",
)
baseline_option = RUNTIME.option(
    "--baseline",
    type=BACKEND,
    metavar="NAME",
    show_default="pytorch where it is measured, else the first that runs",
    help="Backend that the others are compared with; it is measured even if --backend does not name it.",
)


def measuring_options(limit: int | None, duration_s: float, processes: int | None) -> Callable[[Function], Function]:
    """On which images and for how long, with the command's defaults."""
    return stack_options(
        DATA.option(
            "--data",
            type=DATASET,
            metavar="NAME|DIR",
            show_default="the bundled set where it fits, else noise",
            help="Labelled images: fashion-mnist, cifar10:PATH, or a folder with one folder a class.",
        ),
        DATA.option(
            "--limit",
            type=COUNT,
            default=limit,
            metavar="N",
            show_default=True if limit else "all",
            help="Maximum number of images on which accuracy is measured.",
        ),
        duration_option(
            default=duration_s,
            help="Seconds of sampling in each process, for each clock: end-to-end, inference only, and a GPU's own.",
        ),
        MEASURING.option(
            "--processes",
            type=click.IntRange(1, 100),
            default=processes,
            metavar="N",
            show_default=True if processes else f"{LEAST_PROCESSES} to {MOST_PROCESSES}, as many as fit into --budget",
            help="Number of fresh processes of each configuration.",
        ),
        MEASURING.option(
            "--rounds",
            type=click.IntRange(1, 1000),
            default=ROUNDS,
            metavar="N",
            help="Interleaved rounds per process, in random order. Drift detection needs at least 4.",
        ),
        seed_option(help="Seed of noise images, of random weights, of the order of rounds and of resampling."),
        timeout_option("measured process"),
        strict_option,
    )


budget_option = MEASURING.option(
    "--budget",
    "budget_s",
    type=POSITIVE,
    default=BUDGET_S,
    metavar="S",
    help="Time budget per network and batch size in seconds; repeat processes (3 to 10) start while they fit.",
)


class Duration(click.ParamType[float]):
    """A duration with its unit, ``20ms`` or ``0.5s``, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s)", str(value).strip())
        if found is None or float(found[1]) == 0:
            self.fail(f"{value!r} is no duration above 0 with its unit, as 20ms or 0.5s", param, ctx)
        return float(found[1]) / (1000 if found[2] == "ms" else 1)


served_options = stack_options(
    SERVER.option(
        "--url",
        metavar="URL",
        show_default="none: the model runs here",
        help="Send the requests to a server of the Open Inference Protocol, as Triton, KServe or rexport serve: "
        "http://HOST:PORT or grpc://HOST:PORT. The server serves ARTIFACT; its answers are checked with the test "
        "vectors before anything is measured.",
    ),
    SERVER.option(
        "--model",
        metavar="NAME",
        show_default="the file's name, the network's, or the only one",
        help="Name of the model on the server.",
    ),
    SERVER.option("--model-version", metavar="N", show_default="the server's choice", help="Version of the model."),
    SERVER.option(
        "--max-p99",
        "max_p99_s",
        type=Duration(),
        metavar="TIME",
        show_default="none",
        help="Find the highest rate of server at which 99 % of the requests are answered within TIME, as 20ms, in "
        "place of the shapes. Exits with 1 if no rate holds it.",
    ),
    SERVER.option(
        "--request-timeout",
        "request_timeout_s",
        type=POSITIVE,
        default=REQUEST_TIMEOUT_S,
        metavar="S",
        help="Seconds from the intended start of a request after which it has failed.",
    ),
)


class ShapeChoice(NameChoice):
    """A load shape, by its name or its former name."""

    def __init__(self) -> None:
        super().__init__(SHAPES)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(FORMER_SHAPES.get(str(value).lower(), value), param, ctx)


def explain_options(error: RexportError) -> None:
    """Says in an error's hint which of the options that it names are those of ``rexport``, and not of this command."""
    context = click.get_current_context()
    own = {name for param in context.command.params for name in (*param.opts, *param.secondary_opts)}
    foreign = [name for name in named_options(f"{error.what}; {error.hint or ''}") if name not in own]
    if foreign:
        advice = f"rexport onnx takes {' and '.join(foreign)}, and {context.command_path} its file"
        error.say(error.what, "; ".join(filter(None, (error.hint, advice))))


def named_options(text: str) -> list[str]:
    """The options that a message names, each once; but for those that it names together with their command."""
    option, command = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*"), re.compile(r"\b(rexport|rbench|pip)\b")
    clauses = re.split(r"[,;(:] ?", text)
    explained = {name for clause in clauses if command.search(clause) for name in option.findall(clause)}
    return [name for name in dict.fromkeys(option.findall(text)) if name not in explained]


def announce_unused(unused: Mapping[str, Collection[str]]) -> None:
    """Says on stderr which options on the command line have no effect: parameters' names, by the reason in words."""
    for where, names in unused.items():
        announce_idle(click.get_current_context(), where, names, terminal.print_notice)


def unused_options(request: BenchmarkRequest) -> dict[str, tuple[str, ...]]:
    """The parameters that have no effect on the request, by the reason in words."""
    from exporter.weights.checkpoint import is_weights_file
    from exporter.weights.sources import ORIGINS

    unused: dict[str, tuple[str, ...]] = {}
    if not any(PRECISIONS[name].calibrated for name in request.precisions):
        named = " or ".join(name for name, row in PRECISIONS.items() if row.calibrated)
        unused[f"without --precision {named}"] = CALIBRATED
    paths = [name for name in request.subjects if Path(name).is_file()]
    checkpoints = [name for name in paths if is_weights_file(name)]
    if request.subjects and len(paths) == len(request.subjects) and not checkpoints:
        unused["on a model file"] = ("weights", "input", *SELECTED)
    elif not checkpoints and request.weights in (None, *ORIGINS):
        unused["without a checkpoint"] = SELECTED
    if request.device_kind == CPU:
        unused["on a CPU"] = ("cuda_graphs", "throughput", "trtexec")
    if request.processes is not None:
        unused["with a number of processes"] = ("budget_s",)
    return unused


def endpoint_of(options: dict[str, Any]) -> Endpoint | None:
    """The served model that the options name, which are taken out of them; ``None`` without ``--url``.

    Raises:
        UsageError: ``--max-p99`` without ``--url``, or beyond the time limit of a request.
    """
    url, limit_s = options.pop("url"), options.pop("max_p99_s")
    model, version, timeout_s = (options.pop(name) for name in ("model", "model_version", "request_timeout_s"))
    if url is None and limit_s is not None:
        raise UsageError(
            "--max-p99 searches the highest rate of a server", code="max-p99-needs-url", hint="name it with --url URL"
        )
    return None if url is None else Endpoint(url, model or "", version or "", timeout_s=timeout_s, limit_s=limit_s)


def find_trtexec(path: str, needed: bool) -> str | None:
    """The path of ``trtexec``; ``None`` where it is not installed, after a notice if it is ``needed``.

    Raises:
        UsageError: the named file is no program.
    """
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), str(TRTEXEC_FOLDER)))
    found = shutil.which(path, path=places)
    if found is None and path != TRTEXEC:
        raise UsageError(
            f"{path} is no program that can be run",
            code="trtexec-not-found",
            hint="write --trtexec=PATH, or --trtexec behind the models",
        )
    if found is None and needed:
        terminal.print_notice(
            Reason(
                "trtexec-missing",
                f"trtexec is not measured: it is neither in PATH nor in {TRTEXEC_FOLDER}; it is part of NVIDIA's "
                "TensorRT packages for Linux and of its containers, not of the Python packages",
            )
        )
    return None if found is None else str(Path(found).absolute())


def request_of(subjects: tuple[str, ...], options: dict[str, Any]) -> BenchmarkRequest:
    """The request that the options of a command line come to; what was not given is left to its defaults.

    Raises:
        UsageError: they contradict each other.
        BackendUnavailableError: a GPU is asked for, and there is none.
    """
    context = click.get_current_context()
    require_device(options.get("device"))
    from benchmarks.records.request import BenchmarkRequest

    quick = {}
    if options.get("quick"):
        sources = {name: context.get_parameter_source(name) for name in QUICK}
        quick = {name: QUICK[name] for name, source in sources.items() if source is not ParameterSource.COMMANDLINE}
    given = {name: value for name, value in (options | quick).items() if value is not None}
    given["command"] = ("rbench", *sys.argv[1:])
    if "sizes" in given:
        given["sizes"] = tuple(size for sizes in given["sizes"] for size in sizes)
    if "trtexec" in given:
        given["trtexec"] = find_trtexec(given["trtexec"], needed=given["device"] != "cpu")
    if "input" in given:
        given["raw"] = given.pop("input") == "raw"
    return BenchmarkRequest(subjects, **given)
