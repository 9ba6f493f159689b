from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.commands import terminal
from exporter.precision.table import PRECISIONS
from tests.exporter.command_line import environment, python

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


def ended(body: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command with that body."""
    result = python("-c", RUN.format(body=body), *arguments)
    return result.code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("print('done')", 0, ""),
        ("raise errors.CheckFailedError('it differs', hint='look')", 1, "error: it differs (look)\n"),
        ("raise errors.UsageError('wrong')", 2, "error: wrong\n"),
        ("raise click.UsageError('two\\nlines')", 2, "error[usage]: two lines ("),
        ("raise click.ClickException('no')", 1, "error[command-failed]: no\n"),
        ("raise errors.UnsafeArtifactError('code', path='a\\nb.pt')", 3, "error: a\\nb.pt: code\n"),
        ("raise errors.ModelMismatchError('other')", 4, "error: other\n"),
        ("raise errors.BackendUnavailableError('none')", 5, "error: none\n"),
        ("raise errors.ResourceError('full')", 6, "error: full\n"),
        ("raise MemoryError", 6, "error[out-of-memory]: out of memory (a smaller"),
        (
            "raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')",
            6,
            "error[out-of-memory]: out of memory (a smaller",
        ),
        (
            "raise ModuleNotFoundError('No module', name='torch')",
            5,
            "error[library-missing]: needs torch, which is not installed (pip install 'rexport[export]')\n",
        ),
        (
            "raise ModuleNotFoundError('No module', name='ours')",
            70,
            "error[internal]: internal error: ModuleNotFoundError: No module (--debug shows where)\n",
        ),
        ("raise KeyError('x')", 70, "error[internal]: internal error: KeyError: 'x' (--debug shows where)\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("raise SystemExit(143)", 143, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", 130, "interrupted\n"),
    ],
)
def test_an_end_has_its_code_and_one_line(body: str, code: int, message: str) -> None:
    result, stdout, stderr = ended(body)
    assert result == code
    assert stdout == ("done\n" if code == 0 else "")
    assert message in stderr
    assert len(stderr.strip().splitlines()) <= 1


WRAPPED = "import os, signal; type('A', (), {{'x': type('B', (), {{'__set_name__': lambda *_: {kill}}})()}})"


@pytest.mark.parametrize(("name", "code", "message"), [("SIGTERM", 143, ""), ("SIGINT", 130, "interrupted\n")])
def test_a_signal_while_a_class_is_being_defined_keeps_its_code(name: str, code: int, message: str) -> None:
    """Python 3.11 wraps in a RuntimeError what a signal's handler raises there; imports define many classes."""
    body = WRAPPED.format(kill=f"(os.kill(os.getpid(), signal.{name}), [None for _ in range(1000)])")
    assert ended(body) == (code, "", message)


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
    code, _, stderr = ended("raise errors.ResourceError('full')", "--debug")
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
    code, stdout, stderr = ended(body.strip())
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
    assert ended(body.strip())[:2] == (0, "the result\n")


LISTEN = """
import time
from exporter.commands import terminal
with terminal.reserve_stdout(), terminal.listening() as listener:
    listener.step("weighing the gold")
    time.sleep(0.3)
    listener.notice("[bold]mind the gap")
print("the result")
"""


def test_steps_show_on_a_terminal_alone(tmp_path: Path) -> None:
    result = python("-c", LISTEN)
    assert (result.stdout, result.stderr) == ("the result\n", "[bold]mind the gap\n")
    main, other = pty.openpty()
    with (tmp_path / "out").open("wb") as stdout:
        child = subprocess.Popen(
            [sys.executable, "-c", LISTEN], stdout=stdout, stderr=other, env=environment() | {"TERM": "xterm"}
        )
        os.close(other)
        seen = b""
        try:
            while chunk := os.read(main, 4096):
                seen += chunk
        except OSError:  # how Linux ends a terminal
            pass
        assert child.wait(timeout=60) == 0
    os.close(main)
    assert b"weighing the gold" in seen
    assert b"[bold]mind the gap" in seen
    assert (tmp_path / "out").read_bytes() == b"the result\n"


ANNOUNCE = """
    import logging
    logging.getLogger("rexport").warning("onnxruntime on cpu in place of 100% of the others")
    logging.getLogger("rexport").info("building an engine")
    logging.getLogger("rexport").debug("a detail")
    logging.getLogger("another").info("of no concern")
    print("the result")
"""


def test_what_the_runtimes_announce_is_a_notice() -> None:
    code, stdout, stderr = ended(ANNOUNCE.strip())
    assert (code, stdout) == (0, "the result\n")
    assert stderr == "onnxruntime on cpu in place of 100% of the others\nbuilding an engine\n"


def test_an_announcement_that_nobody_reads_ends_nothing() -> None:
    body = "import logging, os; os.close(2); logging.getLogger('rexport').warning('hello'); print('done')"
    assert ended(body)[:2] == (0, "done\n")


def test_the_commands_know_every_precision() -> None:
    assert tuple(PRECISIONS) == terminal.PRECISION_NAMES
