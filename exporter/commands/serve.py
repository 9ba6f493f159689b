"""The command ``serve``: models behind HTTP and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exporter.commands import streams, terminal
from exporter.commands.command import NameChoice, OptionSection, SectionedCommand, stack_options
from exporter.commands.options import backend_options, require_device
from exporter.commands.terminal import debug_option
from exporter.commands.values import FiniteFloat
from runtimes.errors import BackendUnavailableError, Reason, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtimes.serving.supervisor import ServerAddresses
    from runtimes.serving.worker import ModelSource, WorkerOrder

    Command = TypeVar("Command", bound=Callable[..., Any])

ADDRESS, BATCHING, LIMITS, CLUSTER, LOG = map(OptionSection, ("Address", "Batching", "Limits", "Cluster", "Log"))

LIBRARIES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "PIL")
"""What a server needs, besides the library of a backend."""


def _address_options(command: Command) -> Command:
    return stack_options(
        ADDRESS.option(
            "--host",
            default="127.0.0.1",
            metavar="ADDRESS",
            help="Address to listen at. The default is reached from this machine alone; 0.0.0.0 is reached from all "
            "networks, without a password.",
        ),
        ADDRESS.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=8000,
            metavar="N",
            help="Port for HTTP; 0 takes any free one.",
        ),
        ADDRESS.option(
            "--grpc-port",
            type=click.IntRange(0, 65535),
            metavar="N",
            show_default="no gRPC",
            help="Port for gRPC; 0 takes any free one.",
        ),
        ADDRESS.option(
            "--workers",
            type=click.IntRange(1, 256),
            default=1,
            metavar="N",
            help="Number of processes behind the port. Each opens all models.",
        ),
    )(command)


def _batching_options(command: Command) -> Command:
    return stack_options(
        BATCHING.option(
            "--max-batch",
            type=click.IntRange(1, 4096),
            default=32,
            metavar="N",
            help="Largest number of images that run at once.",
        ),
        BATCHING.option(
            "--delay",
            type=FiniteFloat(0, 10_000),
            default=0.0,
            metavar="MS",
            help="Milliseconds that a request waits for others to fill its batch. With 0, batches fill only with "
            "requests that arrive while the model is busy.",
        ),
    )(command)


def _limit_options(command: Command) -> Command:
    return stack_options(
        LIMITS.option(
            "--queue",
            type=click.IntRange(1, 1_000_000),
            default=256,
            metavar="N",
            help="Largest number of requests of a model in each process; more are refused with status 503.",
        ),
        LIMITS.option(
            "--timeout",
            type=FiniteFloat(0, 3600, min_open=True),
            default=10.0,
            metavar="S",
            help="Seconds that a request may wait; one that waited longer is refused with status 503 and not run.",
        ),
        LIMITS.option(
            "--max-bytes", default="10MiB", metavar="SIZE", help="Largest body of a request, as 512kB or 10MiB."
        ),
        LIMITS.option(
            "--gpu-mem-limit",
            metavar="SIZE",
            show_default="none",
            help="GPU memory of each model in each process, as 4GiB. ONNX Runtime limits its arena, TensorRT the calls "
            "at a time, PyTorch the process.",
        ),
        LIMITS.option(
            "--max-pixels",
            type=click.IntRange(1, 80_000_000),
            default=50_000_000,
            metavar="N",
            help="Largest number of pixels of an image, which is checked before decoding.",
        ),
        LIMITS.option(
            "--drain",
            type=FiniteFloat(0, 3600),
            default=5.0,
            metavar="S",
            help="Seconds after SIGTERM in which the server is not ready, but still takes requests.",
        ),
    )(command)


@click.command(
    "serve",
    cls=SectionedCommand,
    heading="Deploy",
    examples=(
        "rexport serve resnet20.onnx",
        "rexport serve cats=resnet50.onnx resnet20.onnx --workers 2",
    ),
)
@click.argument(
    "artifacts",
    metavar="[NAME=]ARTIFACT...",
    nargs=-1,
    required=True,
    type=click.Path(),
    help="Model files that rexport wrote. Requests call a model by NAME, by default the file's name without suffix.",
)
@_address_options
@_batching_options
@_limit_options
@backend_options
@CLUSTER.option(
    "--ray",
    metavar="local|auto|HOST:PORT",
    show_default="no Ray",
    help="Ray cluster that runs --workers replicas by Ray Serve: a new one on this machine, the one that this machine "
    "belongs to, or another. Needs ray[serve].",
)
@CLUSTER.option(
    "--gpus-per-worker",
    type=FiniteFloat(0, 1024),
    default=0,
    metavar="N",
    help="GPUs of each replica on Ray; a fraction shares one.",
)
@LOG.option(
    "--log-format",
    type=NameChoice(("text", "json", "none")),
    default="text",
    help="Format of the log on standard error, which has a line for each request.",
)
@debug_option
def serve(artifacts: tuple[str, ...], **options: Any) -> None:
    """Serve models over HTTP, and over gRPC if a port is given.

    Below /v2, the server speaks the Open Inference Protocol, version 2, as Triton and KServe do. POST /v1/label takes
    an image and answers with labels. /metrics is for Prometheus, and /openapi.json describes all addresses. The
    addresses are printed when the server is ready.

    Requests that arrive while the model is busy share the next batch. SIGTERM stops the server without loss, Ctrl-C
    stops it without the time of --drain, and a second signal stops it at once. SIGHUP replaces the processes one after
    the other, and opens the files again. With --ray, the replicas are those of Ray Serve, without gRPC and without a
    log of requests here.
    """
    require_device(options["device"])
    _require_libraries(options["grpc_port"] is not None)
    from runtimes.serving.request_log import RequestLog
    from runtimes.serving.supervisor import Supervisor

    sources = _sources(artifacts)
    if options["ray"] is not None:
        from exporter.commands.serve_on_ray import serve_on_ray

        raise SystemExit(serve_on_ray(sources, options, _announce))
    log = RequestLog(options["log_format"])
    supervisor = Supervisor(
        _order(sources, options), _addresses(options), options["workers"], options["drain"], log.event, _announce
    )
    _announce_network(options["host"])
    raise SystemExit(supervisor.serve())


def _announce_network(host: str) -> None:
    """Says so where the server can be reached from other machines."""
    if host not in ("127.0.0.1", "::1", "localhost"):
        terminal.print_notice(
            Reason(
                "served-to-network",
                f"other machines can reach the server at {host}, without a password (a proxy in front of it can ask)",
            )
        )


def _require_libraries(grpc: bool) -> None:
    from runtimes.libraries import missing_library

    for library in (*LIBRARIES, *(("grpc", "tritonclient") if grpc else ())):
        missing = missing_library(library, "serve")
        if missing is not None:
            raise BackendUnavailableError(missing.sentence, code=missing.code)


def _sources(artifacts: tuple[str, ...]) -> tuple[ModelSource, ...]:
    """The models of the command line, whose names differ."""
    from runtimes.serving.model import check_distinct, check_name, model_name
    from runtimes.serving.worker import ModelSource

    sources = []
    for artifact in artifacts:
        name, equals, path = artifact.partition("=")
        if not equals or "/" in name or Path(artifact).exists():
            name, path = model_name(artifact), artifact
        if not path:
            raise UsageError(f"{artifact!r} names no file", code="artifact-missing", hint="write NAME=ARTIFACT")
        sources.append(ModelSource(check_name(name), path))
    check_distinct([source.name for source in sources])
    return tuple(sources)


def _addresses(options: dict[str, Any]) -> ServerAddresses:
    from runtimes.serving.supervisor import ServerAddresses

    return ServerAddresses(options["host"], options["port"], options["grpc_port"])


def _order(sources: tuple[ModelSource, ...], options: dict[str, Any]) -> WorkerOrder:
    from runtimes.backends.tensorrt.build_settings import parse_size
    from runtimes.processors import usable_processors
    from runtimes.serving.settings import ServingSettings
    from runtimes.serving.worker import WorkerOrder

    share = max(1, usable_processors() // options["workers"]) if options["workers"] > 1 else None
    return WorkerOrder(
        models=sources,
        backend=options["backend"],
        device=options["device"],
        threads=options["threads"] or share,
        settings=ServingSettings(
            max_batch=options["max_batch"],
            delay_s=options["delay"] / 1e3,
            queue=options["queue"],
            timeout_s=options["timeout"],
            max_bytes=parse_size(options["max_bytes"]),
            max_pixels=options["max_pixels"],
        ),
        log_format=options["log_format"],
        listener=-1,
        grpc_address=None,
        linger_s=max(1.0, options["drain"]),
        gpu_mem_limit=None if options["gpu_mem_limit"] is None else parse_size(options["gpu_mem_limit"]),
    )


def _announce(addresses: list[str], models: tuple[str, ...]) -> None:
    """Prints where the server answers, now that it does."""
    for model in models:
        terminal.print_notice(model)
    for address in addresses:
        streams.print_result(address)
