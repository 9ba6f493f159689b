"""The options of ``rexport verify`` for a server, and what it does with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exporter.commands import streams, terminal
from exporter.commands.command import OptionSection, stack_options
from exporter.commands.options import announce_idle
from exporter.commands.values import FiniteFloat
from exporter.deploy.served import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = TypeVar("Command", bound=Callable[..., Any])

SERVER = OptionSection("Server")


def server_options(command: Command) -> Command:
    """Which server answers, and for which model."""
    return stack_options(
        SERVER.option(
            "--url",
            metavar="URL",
            show_default="none: the model runs here",
            help="Address of a server whose answers are checked, as grpc://127.0.0.1:8001 or http://127.0.0.1:8000.",
        ),
        SERVER.option(
            "--model",
            metavar="NAME",
            show_default="all of a repository; the name of the file",
            help="Only model of the repository to check; or the name that ARTIFACT has on the server.",
        ),
        SERVER.option(
            "--timeout",
            type=FiniteFloat(0, min_open=True),
            default=TIMEOUT_S,
            metavar="S",
            help="Longest wait for one answer of the server, in seconds.",
        ),
    )(command)


def verify_served(path: Path, as_json: bool, options: dict[str, Any]) -> None:
    """Checks what the server serves and prints a line for each version. The exit code is that of the first error."""
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.deploy.served_versions import VerificationRequest
        from exporter.deploy.verification import verify_served as verify
        from runtimes.errors import RexportError

        announce_idle(click.get_current_context(), "with --url", ("backend", "device", "threads"), listener.notice)
        listener.step(f"asking {options['url']}")
        request = VerificationRequest(path, options["url"], options["model"], options["timeout"])
        results = list(verify(request, listener.notice))
    errors = [result for result in results if isinstance(result, RexportError)]
    _print([result for result in results if not isinstance(result, RexportError)], as_json)
    for error in errors:
        terminal.print_error(error.code, str(error))
    if errors:
        raise SystemExit(errors[0].exit_code)


def _print(passed: list[Any], as_json: bool) -> None:
    from exporter.deploy.verification import as_text
    from runtimes import codec

    if as_json:
        streams.print_json(codec.dumps(passed, indent=2))
    else:
        for result in passed:
            streams.print_result(as_text(result))
