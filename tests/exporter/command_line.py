"""The command line as users run it: real processes, and what must hold of every one of them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import default_interrupt

REPO = Path(__file__).resolve().parents[2]
LIMIT_S = 240


@dataclass(frozen=True)
class Result:
    """What a process left behind."""

    code: int
    stdout: str
    stderr: str


def environment() -> dict[str, str]:
    """This process's, with the repository on the import path."""
    return os.environ | {"PYTHONPATH": os.fspath(REPO)}


def python(*arguments: str, cwd: Path | None = None) -> Result:
    """Runs the interpreter. No traceback may show unless ``--debug`` is among the arguments."""
    command = [sys.executable, *arguments]
    with default_interrupt():
        done = subprocess.run(
            command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    assert "--debug" in arguments or "Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def rexport(*arguments: str | Path, cwd: Path | None = None) -> Result:
    """Runs the command."""
    return python("-m", "exporter.cli", *map(str, arguments), cwd=cwd)


def here(main: Callable[[], object], *arguments: str | Path | float, cwd: Path | None = None) -> Result:
    """Runs a console script in this process, which has imported torch already: for what is said of a command that
    other tests run as a process of its own."""
    logger, out, errors = logging.getLogger("rexport"), io.StringIO(), io.StringIO()
    before = logger.handlers[:], logger.level, logger.propagate
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        patch.chdir(cwd or Path.cwd())
        patch.setattr(sys, "argv", ["script", *map(str, arguments)])
        patch.setattr(signal, "signal", lambda *_: None)  # the handlers of a process that ends soon
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            logger.handlers[:], logger.level, logger.propagate = before
    assert isinstance(ended.value.code, int)
    assert "Traceback" not in errors.getvalue(), errors.getvalue()
    return Result(ended.value.code, out.getvalue(), errors.getvalue())


def with_rexport(folder: Path) -> dict[str, str]:
    """An environment in whose path the command ``rexport`` is this repository's: a script in the folder."""
    script = folder / "rexport"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m exporter.cli "$@"\n')
    script.chmod(0o755)
    return environment() | {"PATH": f"{folder}:{os.environ['PATH']}"}


def driven(graph: Path, pause: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Starts the command under ``tests.exporter.driver``; the caller waits for it."""
    command = [sys.executable, "-m", "tests.exporter.driver", str(graph), pause, *map(str, arguments)]
    with default_interrupt():
        return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_pause(process: subprocess.Popen[str]) -> list[str]:
    """Reads the process's stderr until it says that it pauses; the lines before that."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        if line.startswith("pausing"):
            return lines
        lines.append(line)
    raise AssertionError(f"it ended without a pause: {''.join(lines)}")


def errors(result: Result) -> Sequence[str]:
    """The error lines on stderr."""
    return [line for line in result.stderr.splitlines() if line.startswith(("error: ", "error["))]
