"""Ask a fresh process for one thing, and say how a process ended that did not do what it was started for.

The process gets its request as JSON and the path of the file for its reply as its last two arguments. Its standard
output is its standard error, so that nothing that libraries print can be taken for the reply.
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
"""How much of the end of standard error is searched for its last line."""


@dataclass(frozen=True)
class Failure:
    """Why a process gave no reply.

    Attributes:
        reason: how the process ended, with the last line of its standard error.
        exit_code: below 0 for a signal; ``None`` if the process gave no reply in time and was killed.
        last_line: the last line of its standard error, or nothing.
    """

    reason: Reason
    exit_code: int | None
    last_line: str = ""


def call(
    module: str, request: object, reply_type: type[Reply], timeout_s: float, program: Sequence[str] | None = None
) -> Reply | Failure:
    """The reply of a fresh process, which runs ``main`` of ``module``. Blocks for ``timeout_s`` at most.

    ``program`` is a command to start in place of that.
    """
    code = f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
    command = (*(program or (sys.executable, "-P", "-c", code)), codec.dumps(request))
    return run(command, reply_type, timeout_s, environment())


def run(
    command: Sequence[str], reply_type: type[Reply], timeout_s: float, variables: Mapping[str, str]
) -> Reply | Failure:
    """As ``call``, for a command that has its request in it already; the path for the reply is added to it."""
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
                return Failure(Reason("reply-damaged", f"its process gave a damaged reply: {error}"), code)
        last_line = read_last_line(errors)
        return Failure(describe_ending(code, timeout_s, last_line=last_line), code, last_line)


def answer(arguments: Sequence[str], request_type: type[Request], work: Callable[[Request], object]) -> int:
    """What a called process does: writes the reply that ``work`` gives to the request. Its exit code, 0."""
    request, place = arguments
    reply = work(codec.loads(request_type, request))
    Path(place).write_text(codec.dumps(reply), encoding="utf-8")
    return 0


def environment() -> dict[str, str]:
    """The variables that a process of these packages is started with: the parent's, with the folder that the packages
    come from, wherever the parent was started."""
    root = str(Path(benchmarks.__path__[0]).parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and what it started, if it still runs. The process must lead a session of its own."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def describe_ending(code: int | None, limit_s: float, when: str = "", last_line: str = "") -> Reason:
    """How a process ended, and ``when``; ``code`` is ``None`` if it gave no sign of life for ``limit_s``."""
    rest = (f" {when}" if when else "") + (f": {one_line(last_line)}" if last_line else "")
    if code is None:
        return Reason("process-hung", f"its process gave no sign of life for {limit_s:g} s{rest}")
    if code >= 0:
        return Reason("process-crashed", f"its process ended with exit code {code}{rest}")
    memory = " (out of memory?)" if -code == signal.SIGKILL else ""
    return Reason("process-killed", f"its process was ended by {signal.Signals(-code).name}{memory}{rest}")


def read_last_line(path: Path) -> str:
    """The last line of what a process wrote to standard error, or nothing."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
