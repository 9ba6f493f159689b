"""How both commands meet a terminal: errors in one line, exit codes, progress on stderr, the result alone on stdout."""

from __future__ import annotations

import errno
import faulthandler
import logging
import os
import pwd
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TextIO

import click

from exporter.commands.command import OTHER, OUTPUT, SectionedCommand
from exporter.commands.hidden_package import HIDDEN, find_hiding_folder
from exporter.commands.signals import INTERRUPTED, handle_signals
from exporter.commands.streams import flush_result, has_reader_left, open_streams, print_message, refuse_output
from exporter.document.status_line import Status, StatusLine, coded_line, is_live, notice_line
from runtimes.errors import Reason, ResourceError, RexportError, quote

if TYPE_CHECKING:
    from exporter.export_request import ExportListener

INTERNAL = 70

_ALLOCATOR = "DefaultCPUAllocator"
"""Stands in PyTorch's error of no type of its own where memory ran out."""

EXTRAS = {
    "torch": "export",
    "onnx": "export",
    "onnxscript": "export",
    "safetensors": "export",
    "nncf": "int8",
    "PIL": "images",
    "pyarrow": "label",
    "matplotlib": "report",
}
"""Libraries that commands import when they need them, and the extra that brings each."""

_SPACE, _LIMITS, _RIGHTS = (
    "df -h shows the space that is left",
    "ulimit -a shows the limits",
    "ls -ld shows who may use it",
)

_REFUSALS = {
    errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EMFILE: _LIMITS, errno.ENFILE: _LIMITS, errno.ENOMEM: _LIMITS,
    errno.EAGAIN: _LIMITS, errno.EACCES: _RIGHTS, errno.EPERM: _RIGHTS, errno.EROFS: "the file system is read-only",
}  # fmt: skip
"""For each reason of the system that is not an error of the program, what to look at."""

debug_option = OTHER.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
json_option = OUTPUT.option("--json", "as_json", is_flag=True, help="Print JSON.")


def run(command: click.Command, program: str | None = None) -> NoReturn:
    """Runs the command line and ends the process with its exit code; an error is one line on stderr.

    ``program`` is what help and hints call it; by default what the process was started as.
    """
    open_streams()
    _complete_environment()
    signals = handle_signals()
    stdout, stderr = sys.stdout, sys.stderr
    _show_notices()
    _require_own_package()
    try:
        code = command.main(prog_name=program, standalone_mode=False)
    except BaseException as error:
        code = _report(signals.close() or _unwrap(error, stdout, stderr))
    else:
        signals.close()
    code = code if isinstance(code, int) else 0
    try:
        flush_result()
    except ResourceError as error:
        code = code or _report(error)
    sys.exit(code)


def _require_own_package() -> None:
    """Ends the process where a folder of the user hides the package that all commands stand on."""
    hiding = find_hiding_folder()
    if hiding is None:
        return
    print_error(
        "package-shadowed",
        f"{hiding} hides rexport's own package 'runtimes', because its folder comes first on sys.path (rename "
        f"{hiding.name}, or start Python with -P)",
    )
    sys.exit(HIDDEN)


def _complete_environment() -> None:
    """Gives a user without an entry in the user database a home and a name, which libraries ask for. The home is
    ``/``, as in a container: their caches then are not written."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("HOME", "/")
        os.environ.setdefault("USER", str(os.getuid()))


class _Notices(logging.Handler):
    """A line on stderr for each record: above the status line while there is one.

    Attributes:
        line: The status line at the time.
    """

    line: StatusLine | None = None

    def emit(self, record: logging.LogRecord) -> None:
        kind = "warning" if record.levelno >= logging.WARNING else "notice"
        code, sentence = getattr(record, "code", None), record.getMessage()
        text = notice_line(sentence) if code is None else coded_line(kind, code, sentence)
        if self.line is not None:
            self.line.print_line(text)
            return
        print_message(text)


_NOTICES = _Notices()


def _show_notices() -> None:
    """From now on, what the runtimes announce is shown: another backend than the preferred one, a long build."""
    logger = logging.getLogger("rexport")
    logger.addHandler(_NOTICES)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _unwrap(error: BaseException, stdout: TextIO, stderr: TextIO) -> BaseException:
    """What a broken pipe means, which click takes for that of stdout: it wraps both streams, and exits with 1."""
    if sys.stdout is stdout:
        return error
    sys.stdout, sys.stderr = stdout, stderr
    broken = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    if not has_reader_left():
        return broken
    refuse_output(broken)
    return SystemExit(0)


def _is_of_click(error: BaseException) -> bool:
    """Whether click's own output failed, as of a help."""
    return [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)][-1:] == [click.echo.__code__]


def _report(error: BaseException) -> int:
    """Says what went wrong and gives the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        print_message("interrupted")
        return INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print_message(error.format_message())
        return error.exit_code
    if isinstance(error, OSError) and _is_of_click(error):
        error = refuse_output(error) or error
    if "--debug" in sys.argv and not isinstance(error, click.ClickException):
        print_message("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, click.UsageError):
        print_error("usage", _usage_sentence(error))
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
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        place = "" if error.filename is None else f"{quote(error.filename)}: "
        print_error("system-call-failed", f"{place}{os.strerror(error.errno)} ({_REFUSALS[error.errno]})")
        return 6
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        print_error("temporary-folder-missing", "no temporary folder can be written (TMPDIR=DIR names another one)")
        return 6
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        print_error("text-not-utf8", f"{quote(error.object)} is not UTF-8 (rename the file, or correct the text)")
        return click.UsageError.exit_code
    print_error("internal", f"internal error: {type(error).__name__}: {quote(error)} (--debug shows where)")
    return INTERNAL


def _usage_sentence(error: click.UsageError) -> str:
    """What is wrong with the command line, and in parentheses what was meant, an example, or where help is."""
    command = error.ctx.command if error.ctx else None
    where = error.ctx.command_path if error.ctx else os.path.basename(sys.argv[0])  # noqa: PTH119
    if isinstance(error, (click.NoSuchCommand, click.NoSuchOption)):
        meant = f"did you mean {' or '.join(error.possibilities)}?" if error.possibilities else f"{where} --help"
        return f"{_one_line(error.message).rstrip('.')} ({meant})"
    sentence = _one_line(error.format_message())
    if sentence.endswith("?)"):
        return sentence
    if isinstance(error, click.MissingParameter) and isinstance(command, SectionedCommand) and command.examples:
        return f"{sentence.rstrip('.')} (for example: {command.examples[0]})"
    return f"{sentence} ({where} --help)"


def print_error(code: str, sentence: str) -> None:
    """Prints ``error[CODE]: SENTENCE`` on stderr."""
    print_message(coded_line("error", code, sentence))


def print_notice(notice: str | Reason) -> None:
    """Prints a notice on stderr, where no status line is shown."""
    print_message(notice_line(notice))


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """While it lasts, what libraries print to stdout, from Python or from native code, goes to stderr."""
    from runtimes.stdout import redirect_stdout

    kept = redirect_stdout()
    try:
        yield
    finally:
        with suppress(OSError):  # what libraries printed, and standard error is full
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def status_line(ticks: bool = False) -> Iterator[StatusLine]:
    """The status line of standard error, with the announcements of the runtimes above it.

    Meanwhile what libraries print, from Python or from native code, is dropped, so that the terminal holds nothing but
    our lines. With ``--debug`` it is shown, and there is no status line. ``ticks`` as for ``StatusLine``.
    """
    before = _NOTICES.line
    with _without_libraries() as stream, StatusLine(stream, is_live(stream) and not _debugging(), ticks) as line:
        _NOTICES.line = line
        try:
            yield line
        finally:
            _NOTICES.line = before


def _debugging() -> bool:
    return "--debug" in sys.argv


@contextmanager
def _without_libraries() -> Iterator[TextIO]:
    """Standard error for our own lines, while file descriptors 1 and 2 lead nowhere. A crash in native code still
    leaves its traceback. Where ``sys.stderr`` is another stream, as in a notebook, all stays as it is."""
    stdout, stderr = sys.stdout, sys.stderr
    if _debugging() or not _is_stderr(stderr):
        yield stderr
        return
    stdout.flush()
    stderr.flush()
    with ExitStack() as undone:
        own = undone.enter_context(open(os.dup(2), "w", encoding=stderr.encoding, errors=stderr.errors))
        nowhere = undone.enter_context(open(os.devnull, "wb"))
        for descriptor, stream in ((1, stdout), (2, stderr)):
            undone.callback(_restore, descriptor, os.dup(descriptor), stream)
            os.dup2(nowhere.fileno(), descriptor)
        if not faulthandler.is_enabled():
            faulthandler.enable(own)
            undone.callback(faulthandler.disable)
        yield own


def _is_stderr(stream: TextIO) -> bool:
    """Whether the stream is the standard error that this process was started with."""
    return stream is sys.__stderr__ and stream.fileno() == 2


def _restore(descriptor: int, kept: int, stream: TextIO) -> None:
    """Lets the descriptor lead again where ``kept`` does, and closes that."""
    stream.flush()
    os.dup2(kept, descriptor)
    os.close(kept)


@contextmanager
def listening() -> Iterator[ExportListener]:
    """A listener that shows the step at work on a terminal, and prints notices to stderr in any case."""
    from exporter.export_request import ExportListener

    with status_line(ticks=True) as line:
        progress = _StepProgress(line)
        yield ExportListener(progress.step, lambda notice: line.print_line(notice_line(notice)), progress.progress)


class _StepProgress:
    """The status line of one step after another, with the time left of those that tell how far they are."""

    def __init__(self, line: StatusLine, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._clock = clock
        self._status = Status("starting")
        self._first: tuple[float, float] | None = None
        line.show(self._status)

    def step(self, text: str) -> None:
        if text != self._status.text:
            self._status, self._first = Status(text), None
            self._line.show(self._status)

    def progress(self, share: float | None, detail: str) -> None:
        """The step at work is done to this share; ``None`` where its end is not known."""
        left_s = None
        if share is not None:
            now_s = self._clock()
            self._first = self._first or (now_s, share)
            began_s, first = self._first
            left_s = (now_s - began_s) * (1 - share) / (share - first) if share > first else None
        self._status = replace(self._status, share=share, detail=detail, left_s=left_s)
        self._line.show(self._status)
