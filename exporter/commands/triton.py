"""The command ``triton``: artifacts into a model repository of Triton."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.commands import streams, terminal
from exporter.commands.command import OUTPUT, RUNTIME, NameChoice, SectionedCommand, stack_options
from exporter.commands.terminal import debug_option, json_option
from exporter.commands.values import BACKEND, COUNT, COUNT_OR_ZERO, FiniteFloat, OutputPath
from exporter.deploy.triton_settings import BACKENDS, LARGEST_BATCH, QUEUE
from runtimes.errors import UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.deploy.triton_repository import TritonRequest, WrittenVersion


WORDS = {
    "start": "start Triton on this machine",
    "container": "or in its container",
    "check": "then check what it serves",
}
"""The commands that a user runs next."""


def _server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How Triton runs the models."""
    return stack_options(
        RUNTIME.option(
            "--backend",
            type=NameChoice(tuple(BACKENDS)),
            show_default="tensorrt for an engine, python for a .pt2 file, else onnxruntime",
            help="Backend of Triton. python runs a model.py that also takes image files; Triton's Python environment "
            "then needs rexport.",
        ),
        RUNTIME.option(
            "--open-with",
            type=BACKEND,
            metavar="NAME",
            show_default="the first that is installed",
            help="Backend of rexport that model.py opens the artifact with, for --backend python.",
        ),
        RUNTIME.option(
            "--device",
            type=NameChoice(("cpu", "cuda")),
            show_default="cuda for tensorrt, else cpu",
            help="Device that runs the models.",
        ),
        RUNTIME.option(
            "--max-batch",
            type=COUNT,
            metavar="N",
            show_default=f"{LARGEST_BATCH}, or the artifact's own",
            help="Largest batch that Triton makes of waiting requests.",
        ),
        RUNTIME.option(
            "--instances",
            type=COUNT,
            default=1,
            metavar="N",
            help="Number of instances of each model, which run at the same time.",
        ),
        RUNTIME.option(
            "--threads",
            type=COUNT,
            metavar="N",
            show_default="all processors of the server",
            help="Number of CPU threads of each instance.",
        ),
        RUNTIME.option(
            "--queue",
            type=COUNT_OR_ZERO,
            default=QUEUE,
            metavar="N",
            help="Largest number of waiting requests; Triton refuses further ones. 0 means no limit.",
        ),
        RUNTIME.option(
            "--delay",
            type=FiniteFloat(0, 10_000),
            default=0,
            metavar="MS",
            help="Longest wait for further requests of a batch, in milliseconds. 0 still makes batches of the requests "
            "that came during the last one.",
        ),
    )(command)


@click.command(
    "triton",
    cls=SectionedCommand,
    heading="Deploy",
    examples=(
        "rexport triton resnet20.onnx -o repository/",
        "rexport triton resnet20.onnx --backend python --threads 1 -o repository/",
    ),
)
@click.argument(
    "artifacts",
    metavar="ARTIFACT...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    help="Model files that rexport wrote.",
)
@_server_options
@OUTPUT.option(
    "-o",
    "--out",
    type=OutputPath(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    show_default="none; for example repository/",
    help="Folder of the model repository, which is created if it is missing.",
)
@OUTPUT.option(
    "--name", metavar="NAME", show_default="the name of the file", help="Name of the model, for a single ARTIFACT."
)
@OUTPUT.option(
    "--version",
    type=COUNT,
    metavar="N",
    show_default="the next one",
    help="Number of the version.",
)
@json_option
@debug_option
def triton(artifacts: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Add artifacts to a model repository of Triton and print the folders of their versions.

    The repository also gets the labels, the configuration and a warm-up request of each model. A new version does not
    touch the old ones, and an artifact that is the newest version already is not added again. Triton serves the newest
    version. The commands that start Triton are printed to standard error; then rexport verify DIR --url checks what it
    serves.
    """
    _require_distinct_names(artifacts, options["name"])
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.deploy import triton_repository

        request = _request_of(options)
        written = []
        for path in artifacts:
            listener.step(f"adding {path.name}")
            written.append(triton_repository.add_version(path, request, listener.notice))
    commands = _commands(request, written)
    if as_json:
        from runtimes import codec

        streams.print_json(codec.dumps({"versions": [_row(each) for each in written], "commands": commands}, indent=2))
        return
    for each in written:
        streams.print_path(each.path)
    for name, words in WORDS.items():
        streams.print_message(f"{words}:\n  {commands[name]}")


def _request_of(options: dict[str, Any]) -> TritonRequest:
    from exporter.deploy.triton_repository import TritonRequest
    from exporter.deploy.triton_settings import TritonSettings

    settings = TritonSettings(
        options["backend"],
        options["max_batch"],
        options["instances"],
        options["threads"],
        options["queue"],
        options["delay"] / 1e3,
        options["device"],
        options["open_with"],
    )
    return TritonRequest(options["out"], settings, options["name"], options["version"])


def _require_distinct_names(artifacts: tuple[Path, ...], name: str | None) -> None:
    """Raise UsageError if two artifacts would be versions of one model by accident."""
    if name is not None and len(artifacts) > 1:
        raise UsageError("--name is for a single ARTIFACT", code="triton-name-for-several", hint="omit it")
    names = [path.stem for path in artifacts]
    doubled = next((each for each in names if names.count(each) > 1), None)
    if doubled is not None:
        raise UsageError(
            f"two artifacts have the name {quote(doubled)}",
            code="triton-names-equal",
            hint="add them one by one, with --name",
        )


def _commands(request: TritonRequest, written: list[WrittenVersion]) -> dict[str, str]:
    from exporter.deploy import triton_repository

    return {
        "start": triton_repository.server_command(request.repository),
        "container": triton_repository.container_command(request, written),
        "check": triton_repository.check_command(request.repository),
    }


def _row(version: WrittenVersion) -> dict[str, object]:
    return {
        "path": str(version.path),
        "model": version.model,
        "version": version.version,
        "sha256": version.sha256,
        "backend": version.backend,
        "existed": version.existed,
    }
