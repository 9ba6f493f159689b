from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.exporter.command_line import environment, python
from tests.refusals import error_codes
from tests.screens import watch

RUN = """
import sys
import click
from exporter.commands import terminal
from runtimes import errors

@click.command()
@terminal.debug_option
def work():
    {body}

terminal.run(work)
"""

KILL = "import os, signal; os.kill(os.getpid(), signal.{})"


def run_body(body: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command with that body."""
    result = python("-c", RUN.format(body=body), *arguments)
    return result.code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("body", "exit_code", "lines"),
    [
        ("print('done')", 0, []),
        ("raise errors.CheckFailedError('differs', hint='look')", 1, ["error: differs (look)"]),
        ("raise errors.UsageError('wrong')", 2, ["error: wrong"]),
        ("raise errors.UsageError('wrong', code='not-so')", 2, ["error[not-so]: wrong"]),
        ("raise errors.UnsafeArtifactError('code', path='a\\nb.pt')", 3, ["error: a\\nb.pt: code"]),
        ("raise errors.ModelMismatchError('other')", 4, ["error: other"]),
        ("raise errors.BackendUnavailableError('none')", 5, ["error: none"]),
        ("raise errors.ResourceError('full')", 6, ["error: full"]),
        ("raise KeyboardInterrupt", 130, ["interrupted"]),
        ("raise SystemExit(143)", 143, []),
        (KILL.format("SIGTERM"), 143, []),
        (KILL.format("SIGINT"), 130, ["interrupted"]),
    ],
)
def test_an_end_has_its_code_and_one_line(body: str, exit_code: int, lines: list[str]) -> None:
    result, stdout, stderr = run_body(body)
    assert result == exit_code
    assert stdout == ("done\n" if exit_code == 0 else "")
    assert stderr.strip().splitlines() == lines


LOST = """
    class Finalised:
        def __del__(self):
            os.kill(os.getpid(), signal.{})
            len("")
    import os, signal, time
    Finalised()
    for _ in range(100):
        time.sleep(0.1)
"""


@pytest.mark.parametrize(("name", "exit_code", "stderr"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "")])
def test_a_signal_that_python_drops_ends_the_command(name: str, exit_code: int, stderr: str) -> None:
    """An exception in a finalizer is printed and forgotten: the command would work to its end."""
    result, stdout, printed = run_body(LOST.format(name).strip())
    assert (result, stdout, printed.strip()) == (exit_code, "", stderr)


AGAIN = """
    import os, signal
    printed = terminal.print_message
    def print_message(text):
        os.kill(os.getpid(), signal.SIGINT)
        printed(text)
    terminal.print_message = print_message
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_second_interrupt_leaves_no_traceback() -> None:
    code, stdout, stderr = run_body(AGAIN.strip())
    assert (code, stdout, stderr.strip()) == (-signal.SIGINT, "", "")


def test_any_other_exception_that_python_drops_is_printed() -> None:
    body = LOST.replace("os.kill(os.getpid(), signal.{})", "raise ValueError('odd')").replace("100", "1")
    code, _, stderr = run_body(body.strip(), "--debug")
    assert code == 0
    assert "ValueError: odd" in stderr


NO_TEMPORARY_FOLDER = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc']; tempfile.gettempdir()"


@pytest.mark.parametrize(
    ("body", "exit_code", "code", "values"),
    [
        ("raise click.UsageError('two\\nlines')", 2, "usage", ["two lines", "--help"]),
        ("raise click.ClickException('no')", 1, "command-failed", ["no"]),
        ("raise click.NoSuchOption('--topp', possibilities=['--top'])", 2, "usage", ["'--topp' (did you mean --top?)"]),
        ("raise click.NoSuchOption('--topp')", 2, "usage", ["'--topp' (", "--help)"]),
        ("raise OSError(28, 'No space')", 6, "system-call-failed", ["No space left on device", "df -h"]),
        ("raise OSError(28, 'No space', 'a.txt')", 6, "system-call-failed", ["a.txt", "df -h"]),
        ("raise OSError(24, 'Too many')", 6, "system-call-failed", ["Too many", "ulimit -a"]),
        ("raise OSError(30, 'Read-only', 'a.txt')", 6, "system-call-failed", ["a.txt", "Read-only"]),
        (
            NO_TEMPORARY_FOLDER,
            6,
            "temporary-folder-missing",
            ["TMPDIR="],
        ),
        ("'\\udce9'.encode()", 2, "text-not-utf8", ["is not UTF-8"]),
        ("raise OSError(5, 'Broken', 'a.txt')", 70, "internal", ["a.txt"]),
        ("raise BrokenPipeError(32, 'gone')", 70, "internal", ["BrokenPipeError"]),
        ("raise MemoryError", 6, "out-of-memory", ["--batch"]),
        ("raise RuntimeError('DefaultCPUAllocator: full')", 6, "out-of-memory", ["--batch"]),
        ("raise ModuleNotFoundError(name='torch')", 5, "library-missing", ["torch", "'rexport[export]'"]),
        ("raise ModuleNotFoundError('gone', name='ours')", 70, "internal", ["ModuleNotFoundError: gone", "--debug"]),
        ("raise KeyError('x')", 70, "internal", ["KeyError: 'x'", "--debug"]),
    ],
)
def test_a_foreign_error_gets_a_code_of_ours(body: str, exit_code: int, code: str, values: list[str]) -> None:
    result, stdout, stderr = run_body(body)
    assert (result, stdout, error_codes(stderr)) == (exit_code, "", [code])
    assert [value for value in values if value not in stderr] == []
    assert len(stderr.splitlines()) == 1


WRAPPED = "import os, signal; type('A', (), {{'x': type('B', (), {{'__set_name__': lambda *_: {kill}}})()}})"


@pytest.mark.parametrize(("name", "code", "message"), [("SIGTERM", 143, ""), ("SIGINT", 130, "interrupted\n")])
def test_a_signal_while_a_class_is_being_defined_keeps_its_code(name: str, code: int, message: str) -> None:
    """Python 3.11 wraps in a RuntimeError what a signal's handler raises there; imports define many classes."""
    body = WRAPPED.format(kill=f"(os.kill(os.getpid(), signal.{name}), [None for _ in range(1000)])")
    assert run_body(body) == (code, "", message)


def test_a_command_that_ignores_interrupts_goes_on() -> None:
    """A shell starts a command in the background with the interrupt ignored, and nohup does likewise."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        body = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('done')"
        done = subprocess.run(
            [sys.executable, "-c", RUN.format(body=body)], env=environment(), capture_output=True, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_debug_shows_where() -> None:
    code, _, stderr = run_body("raise errors.ResourceError('full')", "--debug")
    assert code == 6
    assert "Traceback" in stderr
    assert stderr.endswith("error: full\n")


def test_stdout_is_reserved_from_python_and_native_code() -> None:
    body = """
    import os
    with terminal.reserve_stdout():
        print("from Python")
        os.write(1, b"from native code\\n")
        os.system("echo from a child")
    print("the result")
"""
    code, stdout, stderr = run_body(body.strip())
    assert (code, stdout) == (0, "the result\n")
    assert set(stderr.splitlines()) == {"from Python", "from native code", "from a child"}


def test_stdout_comes_back_after_an_error() -> None:
    body = """
    try:
        with terminal.reserve_stdout():
            raise ValueError
    except ValueError:
        print("the result")
"""
    assert run_body(body.strip())[:2] == (0, "the result\n")


LISTEN = """
import time
from exporter.commands import terminal
with terminal.reserve_stdout(), terminal.listening() as listener:
    listener.step("weighing the gold")
    time.sleep(0.3)
    listener.notice("[bold]mind the gap")
print("the result")
"""


COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
"""A sequence that sets the colour of letters or their ground; bold and dim are no colours."""


LINE = re.compile(r"(starting|weighing the gold)  0:0\d")


def test_steps_show_on_a_terminal_alone() -> None:
    result = python("-c", LISTEN)
    assert (result.stdout, result.stderr) == ("the result\n", "[bold]mind the gap\n")
    session = watch([sys.executable, "-c", LISTEN])
    assert session.code == 0
    assert session.lines == ("[bold]mind the gap", "the result")
    statuses = session.statuses()
    assert statuses
    assert [status for status in statuses if LINE.fullmatch(status) is None] == []


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"NO_COLOR": ""}])
def test_the_status_line_has_no_colours_and_hides_no_cursor(variables: dict[str, str]) -> None:
    session = watch([sys.executable, "-c", LISTEN], variables=variables)
    assert b"weighing the gold" in session.raw
    assert b"\x1b[?25l" not in session.raw
    assert COLOUR.search(session.raw) is None


def test_a_dumb_terminal_gets_plain_lines() -> None:
    session = watch([sys.executable, "-c", LISTEN], variables={"TERM": "dumb"})
    assert session.raw == b"[bold]mind the gap\r\nthe result\r\n"


NOISE = """
import os, sys, time, warnings
from exporter.commands import terminal
with terminal.reserve_stdout(), terminal.listening() as listener:
    listener.step("weighing the gold")
    time.sleep(0.3)
    print("from Python")
    print("a bar: 50%", end="\\r", file=sys.stderr)
    warnings.warn("mind the library")
    os.write(1, b"from native code\\n")
    os.write(2, b"2026-01-01 [W:onnxruntime] mind the GPU\\n")
    os.system("echo from a child >&2")
    time.sleep(0.3)
    listener.notice("mind the gap")
print("the result")
"""


def test_libraries_write_nothing_to_the_terminal() -> None:
    session = watch([sys.executable, "-c", NOISE])
    assert session.lines == ("mind the gap", "the result")
    assert [status for status in session.statuses() if LINE.fullmatch(status) is None] == []


def test_debug_shows_libraries_and_no_status_line() -> None:
    session = watch([sys.executable, "-c", NOISE, "--debug"])
    written = " ".join(session.lines)
    for words in ("from Python", "mind the library", "from native code", "mind the GPU", "from a child", "the result"):
        assert words in written
    assert b"weighing" not in session.raw


CRASH = NOISE.replace("time.sleep(0.3)", "import ctypes; ctypes.string_at(0)", 1)


def test_a_crash_in_native_code_leaves_its_traceback() -> None:
    session = watch([sys.executable, "-c", CRASH])
    assert session.code == -signal.SIGSEGV
    assert "Segmentation fault" in " ".join(session.lines)


@pytest.mark.parametrize(("end", "code", "last"), [("\x03", 130, "interrupted"), ("", 70, "error[internal]:")])
def test_an_early_end_leaves_no_status_and_a_fresh_line(end: str, code: int, last: str) -> None:
    body = """
    with terminal.listening() as listener:
        import time
        listener.step("weighing the gold")
        time.sleep(0.5)
        listener.step("weighing it again")
        time.sleep(60 if {waits} else 0.5)
        raise ValueError("the scale broke")
"""
    typed: list[bool] = []

    def act(frame: tuple[str, ...], master: int) -> None:
        if end and not typed and "weighing it again" in frame[-1]:
            typed.append(True)
            os.write(master, end.encode())

    program = RUN.format(body=body.strip().format(waits=bool(end)))
    session = watch([sys.executable, "-c", program], 120, act=act)
    assert session.code == code
    assert session.lines[-1].startswith(last)
    assert (session.hidden, session.column, len(session.lines)) == (False, 0, 1)


def test_no_color_has_no_colours_and_a_file_no_escapes() -> None:
    code = """
import os, sys
os.dup2(2, 1)
from exporter.document.blocks import Document, Remark
from exporter.document.terminal import print_document
print_document(Document("gaps", (Remark("mind the gap", "warning"),)), sys.stdout)
"""
    for value, coloured in (("1", False), ("", True)):
        seen = watch([sys.executable, "-c", code], variables={"NO_COLOR": value}).raw
        assert b"mind the gap" in seen
        assert (COLOUR.search(seen) is not None) == coloured
    assert "\x1b" not in python("-c", code.replace("os.dup2(2, 1)", "")).stdout


ANNOUNCE = """
    import logging
    logging.getLogger("rexport").warning("100% by others", extra={"code": "by-others"})
    logging.getLogger("rexport").info("building an engine")
    logging.getLogger("rexport").debug("a detail")
    logging.getLogger("another").info("of no concern")
    print("the result")
"""


def test_announcements_of_the_runtimes_are_notices() -> None:
    code, stdout, stderr = run_body(ANNOUNCE.strip())
    assert (code, stdout) == (0, "the result\n")
    assert stderr.splitlines() == ["warning[by-others]: 100% by others", "building an engine"]


def test_an_announcement_without_a_reader_ends_nothing() -> None:
    body = "import logging, os; os.close(2); logging.getLogger('rexport').warning('hello'); print('done')"
    assert run_body(body)[:2] == (0, "done\n")
