"""How both commands meet a terminal: errors in one line, exit codes, progress on stderr, the result alone on stdout."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO

import click

if TYPE_CHECKING:
    from exporter.network import ExportListener

INTERRUPTED, TERMINATED, INTERNAL = 130, 143, 70

_ALLOCATOR = "DefaultCPUAllocator"
"""Stands in PyTorch's error of no type of its own where memory ran out."""

PRECISION_NAMES = ("fp32", "tf32", "fp16", "bf16", "int8")
"""Those of ``exporter.precision.table.PRECISIONS``, whose module is too heavy for ``--help``."""

EXTRAS = {
    "torch": "export",
    "onnx": "export",
    "onnxscript": "export",
    "safetensors": "export",
    "nncf": "int8",
    "PIL": "images",
    "matplotlib": "report",
}
"""Libraries that commands import when they need them, and the extra that brings each."""

debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback with an error.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def run(command: click.Command) -> NoReturn:
    """Runs the command line and ends the process with its exit code; an error is one line on stderr."""
    received: list[int] = []

    def end(number: int, _: FrameType | None) -> NoReturn:
        received.append(number)
        raise _ending(number)

    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as under nohup, or in a shell's background
        signal.signal(signal.SIGINT, end)
    stdout = sys.stdout
    _show_notices()
    try:
        code = command.main(standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        ending = _ending(received[0]) if received else error
        code = 0 if _has_reader_left(ending, stdout) else _report(ending)
    sys.exit(code if isinstance(code, int) else 0)


class _Notices(logging.Handler):
    """A line on stderr for each, through the progress display if there is one at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # nobody reads stderr any more
            sys.stderr.write(f"{record.getMessage()}\n")


def _show_notices() -> None:
    """From now on, what the runtimes announce is shown: another backend than the preferred one, a long build."""
    logger = logging.getLogger("rexport")
    logger.addHandler(_Notices())
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _ending(number: int) -> BaseException:
    """What a signal raises. Where a class is being defined, Python 3.11 wraps it into an error of its own."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(TERMINATED)


def _has_reader_left(error: BaseException, stdout: TextIO) -> bool:
    """Whether the reader of our output, as ``head``, had seen enough; what is still to come then goes nowhere."""
    # click wraps stdout then, and exits with 1.
    left = isinstance(error, BrokenPipeError) or sys.stdout is not stdout
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return left


def _report(error: BaseException) -> int:
    """Says what went wrong and gives the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    from runtimes.errors import RexportError, quote

    if "--debug" in sys.argv and not isinstance(error, click.ClickException):
        traceback.print_exception(error)
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else os.path.basename(sys.argv[0])  # noqa: PTH119
        print_error("usage", f"{_one_line(error.format_message())} ({where} --help)")
        return error.exit_code
    if isinstance(error, click.ClickException):
        print_error("command-failed", _one_line(error.format_message()))
        return error.exit_code
    if isinstance(error, RexportError):
        print_error(error.code, str(error))
        return error.exit_code
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        extra = EXTRAS[error.name]
        print_error("library-missing", f"needs {error.name}, which is not installed (pip install 'rexport[{extra}]')")
        return 5
    if isinstance(error, MemoryError) or _ALLOCATOR in str(error):
        print_error("out-of-memory", "out of memory (a smaller --batch or --limit needs less)")
        return 6
    print_error("internal", f"internal error: {type(error).__name__}: {quote(error)} (--debug shows where)")
    return INTERNAL


def print_error(code: str, sentence: str) -> None:
    """Prints ``error[CODE]: SENTENCE`` on stderr."""
    click.echo(f"error[{code}]: {sentence}" if code else f"error: {sentence}", err=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """While it lasts, what libraries print to stdout, from Python or from native code, goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def listening() -> Iterator[ExportListener]:
    """A listener that shows the step at work on a terminal, and prints notices to stderr in any case."""
    from exporter.network import ExportListener

    if not sys.stderr.isatty():
        yield ExportListener(step=lambda _: None, notice=lambda line: click.echo(str(line), err=True))
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield ExportListener(
            step=lambda text: progress.update(task, description=text),
            notice=lambda line: console.print(str(line), markup=False, highlight=False, soft_wrap=True),
        )
