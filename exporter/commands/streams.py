"""The standard streams of both programs, also where they are closed, full, without a reader or not UTF-8.

- A stream that is closed at the start leads to ``/dev/null``. No file that a command opens can take its place.
- If the reader of standard output leaves, as ``head`` does, the rest of the result is dropped. The exit code stays that
  of the command.
- Any other failure of standard output is a ``ResourceError``. A failure of standard error ends nothing.
- Standard output keeps its encoding. Characters that it lacks are written in ASCII, as ``+-`` or ``\\u0142``. Paths are
  written in the bytes of their file names, and JSON is ASCII if the encoding is not UTF-8.
- No text from a file acts on a terminal: control characters, marks that turn the direction of writing and characters
  without width are written as escapes. Only paths in a pipe or a file stay as they are.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from runtimes.errors import ResourceError
from runtimes.escaping import MAX_LINE, json_text, printable

if TYPE_CHECKING:
    from exporter.document.blocks import Document

_ERRORS = "rexport-ascii"
"""The name of the codec error handler of standard output."""

_ASCII = {"±": "+-", "×": "x", "·": "-", "…": "...", "µ": "u", "−": "-", "≤": "<=", "≥": ">=", "→": "->", "─": "-"}
"""What the programs themselves write beyond ASCII. Names and labels of users are escaped."""


def open_streams() -> None:
    """Prepare the standard streams of this process. To be called once, before any file is opened for long."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        _lead_to_null(descriptor)
        if getattr(sys, name) is None:
            stream = open(descriptor, mode, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error(_ERRORS, _in_ascii)
        sys.stdout.reconfigure(errors=_ERRORS)


def _lead_to_null(descriptor: int) -> None:
    """Open ``/dev/null`` as this descriptor if it is closed, also for child processes."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)
        os.set_inheritable(descriptor, True)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for the characters that cannot be encoded: an escape of JSON, or a replacement of ``_ASCII``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_ASCII.get(character) or _as_escapes(character) for character in characters), error.end


def _as_escapes(text: str) -> str:
    """Return the text with all characters beyond ASCII as ``\\uXXXX``, in pairs beyond ``U+FFFF``."""
    units = text.encode("utf-16-be", "surrogatepass")
    codes = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(code) if code < 0x80 else f"\\u{code:04x}" for code in codes)


def _printable_lines(text: str, most: int | None = None) -> str:
    return "\n".join(printable(line, most) for line in text.split("\n"))


def print_result(text: str, newline: bool = True) -> None:
    """Print text on standard output, each line ``printable``.

    Raises:
        ResourceError: Standard output cannot be written.
    """
    text = _printable_lines(text)
    with _standard_output():
        sys.stdout.write(f"{text}\n" if newline else text)
        sys.stdout.flush()


def print_json(text: str) -> None:
    """Print JSON on standard output. It is ASCII if the encoding of standard output is not UTF-8.

    Raises:
        ResourceError: Standard output cannot be written.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    seen = json_text(text)
    print_result(seen if codecs.lookup(encoding).name == "utf-8" else _as_escapes(seen))


def print_path(path: str | os.PathLike[str]) -> None:
    """Print the path of a file on standard output: for people on a terminal, else in the bytes of its name.

    Raises:
        ResourceError: Standard output cannot be written.
    """
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None or sys.stdout.isatty():  # buffer: a stream in memory has none
        print_result(os.fspath(path))
        return
    with _standard_output():
        sys.stdout.flush()
        buffer.write(os.fsencode(path) + b"\n")
        buffer.flush()


def print_document(document: Document) -> None:
    """Print a document on standard output.

    Raises:
        ResourceError: Standard output cannot be written.
    """
    from exporter.document import terminal

    with _standard_output():
        terminal.print_document(document, sys.stdout)
        sys.stdout.flush()


def print_message(text: str) -> None:
    """Print a line on standard error. If it cannot be written, it is dropped."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{_printable_lines(text, MAX_LINE)}\n")
        sys.stderr.flush()


def flush_result() -> None:
    """Write what libraries and click have left in the buffer of standard output.

    Raises:
        ResourceError: Standard output cannot be written.
    """
    with _standard_output():
        sys.stdout.flush()


@contextmanager
def _standard_output() -> Iterator[None]:
    """Translate failures of standard output."""
    try:
        yield
    except OSError as error:
        if (failure := refuse_output(error)) is not None:
            raise failure from error


def refuse_output(error: OSError) -> ResourceError | None:
    """Return the error for standard output that cannot be written, or ``None`` if its reader has left.

    What could not be written, and all that follows, goes to ``/dev/null``.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    if isinstance(error, BrokenPipeError):
        return None
    return ResourceError(
        f"cannot write to standard output: {error.strerror or error}",
        code="output-not-written",
        hint="df -h shows the space that is left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None,
        errno=error.errno,
    )


def has_reader_left() -> bool:
    """Return whether standard output is a pipe or a socket that nobody reads any more."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
