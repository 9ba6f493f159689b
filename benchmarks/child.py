"""Starts a worker process, listens to it, and ends it: whatever happens to it, there is an outcome."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import benchmarks
from benchmarks.job import Job, Outcome, one_line
from runtimes import schema

EXIT_LIMIT_S = 30.0
"""How long a worker may take to leave after it has said its last word."""

PROGRAM = (sys.executable, "-P", "-m", "benchmarks.worker")


def run(
    job: Job,
    folder: Path,
    heard: Callable[[str], None],
    silence_s: float,
    show_errors: bool = False,
    program: tuple[str, ...] = PROGRAM,
) -> tuple[Outcome, Path]:
    """The job's outcome, and where its predictions are if it made any. Blocks until the worker has ended.

    Args:
        folder: an existing one for this job alone.
        heard: told each step that the worker takes.
        silence_s: a worker that takes no step for so long is taken for hung and ended.
        show_errors: whether the worker's standard error is this process's own.
        program: what to start; it gets three paths: of the job, of the outcome, of the predictions.
    """
    places = [folder / name for name in ("job.json", "outcome.json", "predictions.npz")]
    places[0].write_text(schema.dumps(job), encoding="utf-8")
    with (folder / "stderr").open("w+b") as errors:
        process = subprocess.Popen(
            [*program, *map(str, places)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if show_errors else errors,
            env=_environment(),
            start_new_session=True,
        )
        try:
            step, hung = _listen(process, heard, silence_s)
        finally:
            _end(process)
        if places[1].exists():
            return schema.loads(Outcome, places[1].read_bytes()), places[2]
        how = f"gave no sign of life for {silence_s:g} s" if hung else _ending(process.returncode)
        return Outcome("error", one_line(f"its process {how} {_during(step)}{_last_words(folder / 'stderr')}")), places[
            2
        ]


def _environment() -> dict[str, str]:
    """The parent's, with the folder that these packages come from, wherever the parent was started."""
    root = str(Path(benchmarks.__path__[0]).parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def _listen(
    process: subprocess.Popen[bytes], heard: Callable[[str], None], silence_s: float
) -> tuple[str | None, bool]:
    """The last step heard, and whether the worker hung. Ends when the worker has."""
    assert process.stdout is not None
    step = None
    last_sign = time.monotonic()
    with process.stdout as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while time.monotonic() - last_sign < silence_s:
            if not selector.select(timeout=min(1.0, silence_s)):
                if process.poll() is not None:
                    return step, False
                continue
            chunk = os.read(pipe.fileno(), 1 << 16)
            if not chunk:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(EXIT_LIMIT_S)
                return step, False
            last_sign = time.monotonic()
            for line in chunk.decode("utf-8", "replace").split("\n"):
                step = line or step
            if step is not None:
                heard(step)
    return step, True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the worker and what it started, if they still run."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")


def _during(step: str | None) -> str:
    return "before its first step" if step is None else f"during step {step!r}"


def _last_words(path: Path) -> str:
    """The last line of what the worker wrote to standard error, after a colon."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f": {lines[-1].strip()}" if lines else ""
