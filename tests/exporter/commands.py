"""The command line as users run it: real processes, and what must hold of every one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    done = subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert "--debug" in arguments or "Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def rexport(*arguments: str | Path, cwd: Path | None = None) -> Result:
    """Runs the command."""
    return python("-m", "exporter.cli", *map(str, arguments), cwd=cwd)


def driven(graph: Path, pause: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Starts the command under ``tests.exporter.driver``; the caller waits for it."""
    command = [sys.executable, "-m", "tests.exporter.driver", str(graph), pause, *map(str, arguments)]
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
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]
