"""Requests to fresh processes, and descriptions of processes that ended without a reply.

A process gets its request as JSON and the path of the file for its reply as its last two arguments. Its standard output
is redirected to standard error, so that output of libraries cannot be taken for the reply.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import benchmarks
from benchmarks.format import one_line
from runtimes import codec
from runtimes.errors import ArtifactError, Reason

Request = TypeVar("Request")
Reply = TypeVar("Reply")

LAST_BYTES = 4096
"""The number of bytes at the end of standard error that are searched for its last line."""


@dataclass(frozen=True)
class Failure:
    """The reason why a process gave no reply.

    Attributes:
        reason: How the process ended, with the last line of its standard error.
        exit_code: The exit code, below 0 for a signal; ``None`` if the process was killed after the time limit.
        last_line: The last line of its standard error, or an empty text.
    """

    reason: Reason
    exit_code: int | None
    last_line: str = ""


def call(
    module: str, request: object, reply_type: type[Reply], timeout_s: float, program: Sequence[str] | None = None
) -> Reply | Failure:
    """Return the reply of a fresh process that runs ``main`` of a module, or the reason why there is none.

    Args:
        module: The name of the module.
        request: The request, which is encoded as JSON.
        reply_type: The dataclass of the reply.
        timeout_s: The time limit, for which the call blocks at most.
        program: A command to start instead of the module.
    """
    code = f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
    command = (*(program or (sys.executable, "-P", "-c", code)), codec.dumps(request))
    return run(command, reply_type, timeout_s, environment())


def run(
    command: Sequence[str], reply_type: type[Reply], timeout_s: float, variables: Mapping[str, str]
) -> Reply | Failure:
    """Return the reply to a command that already has its request, or the reason why there is none.

    Args:
        command: The command. The path for the reply is appended to it.
        reply_type: The dataclass of the reply.
        timeout_s: The time limit, for which the call blocks at most.
        variables: The environment variables.
    """
    with tempfile.TemporaryDirectory(prefix="rbench-") as folder:
        reply, errors = Path(folder) / "reply.json", Path(folder) / "stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, str(reply)],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=variables,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                kill(process)
        if code == 0 and reply.exists():
            try:
                return codec.loads(reply_type, reply.read_bytes())
            except ArtifactError as error:
                return Failure(Reason("reply-damaged", f"the process gave a damaged reply: {error}"), code)
        last_line = read_last_line(errors)
        return Failure(describe_ending(code, timeout_s, last_line=last_line), code, last_line)


def answer(arguments: Sequence[str], request_type: type[Request], work: Callable[[Request], object]) -> int:
    """Write the reply to the request of ``call``, in the called process, and return exit code 0.

    Args:
        arguments: The request, and the path for the reply.
        request_type: The type of the request.
        work: Returns the reply to a request.
    """
    request, reply_path = arguments
    reply = work(codec.loads(request_type, request))
    Path(reply_path).write_text(codec.dumps(reply), encoding="utf-8")
    return 0


def environment() -> dict[str, str]:
    """Return the environment variables for a process of these packages.

    They are those of the parent, with the folder of the packages, so that the working directory does not matter.
    """
    root = str(Path(benchmarks.__path__[0]).parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, if it still runs. The process must lead a session of its own."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def describe_ending(code: int | None, limit_s: float, when: str = "", last_line: str = "") -> Reason:
    """Return how a process ended.

    Args:
        code: The exit code, below 0 for a signal; ``None`` if there was no sign of life for ``limit_s``.
        limit_s: The time limit.
        when: The time of the end in words, or an empty text.
        last_line: The last line of its standard error, or an empty text.
    """
    rest = (f" {when}" if when else "") + (f": {one_line(last_line)}" if last_line else "")
    if code is None:
        return Reason("process-hung", f"the process gave no sign of life for {limit_s:g} s{rest}")
    if code >= 0:
        return Reason("process-crashed", f"the process ended with exit code {code}{rest}")
    memory = " (out of memory?)" if -code == signal.SIGKILL else ""
    return Reason("process-killed", f"the process was ended by {signal.Signals(-code).name}{memory}{rest}")


def read_last_line(path: Path) -> str:
    """Return the last line in the file ``path`` with standard error, or an empty text."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
