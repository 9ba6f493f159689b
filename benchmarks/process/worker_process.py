"""Worker processes: the parent starts them, reads their steps, requests turns, and always gets an outcome."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine.gpu_monitor import GpuMemory
from benchmarks.process import isolated
from benchmarks.process.job import CALL, FINISH, GPU, MARK, WARM, Job, JobOutcome, TurnPlan, encode_turn
from runtimes import codec

EXIT_LIMIT_S = 30.0
"""The time that a worker may take to end after its last message."""

PROGRAM = (sys.executable, "-P", "-m", "benchmarks.worker")
"""The command of a worker."""


def run(
    job: Job,
    folder: Path,
    heard: Callable[[str], None],
    silence_s: float,
    show_errors: bool = False,
    program: tuple[str, ...] = PROGRAM,
) -> tuple[JobOutcome, Path]:
    """Run a job with one turn and return its outcome, and the path of its predictions, which may not exist.

    The call blocks until the worker has ended. The turn is as long as the plan of the job says.

    Args:
        job: The job.
        folder: An existing folder for this job alone.
        heard: Called with each step of the worker.
        silence_s: The time that one step may take. A worker that takes longer is ended.
        show_errors: Whether the worker writes to the standard error of this process.
        program: The command to start.
    """
    plan = job.plan
    with Worker(job, folder, heard, silence_s, show_errors, program) as worker:
        if worker.wait_until_open() is not None and worker.warm() is not None:
            worker.turn(TurnPlan(plan.duration_s, plan.min_samples, plan.max_samples))
            worker.finish()
        return worker.outcome(), worker.predictions


class Worker:
    """A process that works on one job, started by the constructor.

    At the end of the ``with`` block the process has ended, with all that it started. Methods that wait for the worker
    return ``None`` if it has ended without a reply; ``outcome`` then has the reason.

    Args:
        job: The job.
        folder: An existing folder for this job alone.
        heard: Called with each step of the worker, while a method waits for it.
        silence_s: The time that one step may take. A worker that takes longer is ended.
        show_errors: Whether the worker writes to the standard error of this process.
        program: The command to start, to which three paths are appended: of the job, the outcome and the predictions.

    Attributes:
        predictions: The path of the predictions, which may not exist.
    """

    def __init__(
        self,
        job: Job,
        folder: Path,
        heard: Callable[[str], None],
        silence_s: float,
        show_errors: bool = False,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:
        self._outcome, self.predictions = folder / "outcome.json", folder / "predictions.npz"
        self._errors = folder / "stderr"
        self._heard = heard
        self._silence_s = silence_s
        self._step: str | None = None
        self._unread = b""
        self._hung = False
        self._gpu = ""
        job_path = folder / "job.json"
        job_path.write_text(codec.dumps(job), encoding="utf-8")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*program, *map(str, (job_path, self._outcome, self.predictions))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if show_errors else errors,
                env=isolated.environment(),
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_until_open(self) -> float | None:
        """Allow calls of the loaded model, and wait until its outputs are checked.

        Returns:
            The largest resident memory of the process so far in bytes, or ``None`` if the worker has ended.
        """
        return self._ask(CALL, "opened")

    @property
    def gpu(self) -> GpuMemory | None:
        """The memory of the GPU when the model was open; ``None`` for a processor."""
        return codec.loads(GpuMemory, self._gpu) if self._gpu else None

    def warm(self, lead_s: float = 0.0) -> float | None:
        """Request the warm-up and return the seconds of a usual call, or ``None`` if the worker has ended.

        Args:
            lead_s: The time for which the worker works before.
        """
        return self._ask(f"{WARM} {lead_s!r}" if lead_s else WARM, "ready")

    def turn(self, turn: TurnPlan) -> float | None:
        """Request a turn and return its median in seconds, or ``None`` if the worker has ended."""
        self.start_turn(turn)
        return self.wait_for_turn()

    def start_turn(self, turn: TurnPlan) -> None:
        """Request a turn. ``wait_for_turn`` has to follow."""
        self._send(encode_turn(turn))

    def wait_for_turn(self) -> float | None:
        """Wait for the end of the turn and return its median in seconds, or ``None`` if the worker has ended."""
        return self._wait_for("turned")

    def finish(self) -> None:
        """Request the end, and wait until the worker has done the rest of its work."""
        self._ask(FINISH, "")

    def outcome(self) -> JobOutcome:
        """Return the outcome. The process is ended if it still runs."""
        self.close()
        if self._outcome.exists():
            return codec.loads(JobOutcome, self._outcome.read_bytes())
        reason = isolated.describe_ending(
            None if self._hung else self._process.returncode,
            self._silence_s,
            "before its first step" if self._step is None else f"during step {self._step!r}",
            isolated.read_last_line(self._errors),
        )
        return JobOutcome("error", reason)

    def close(self) -> None:
        """End the process and all that it started, if they still run."""
        isolated.kill(self._process)
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _ask(self, line: str, word: str) -> float | None:
        """Send a command and return the number in the reply, or ``None`` if the worker has ended or was hung."""
        self._send(line)
        return self._wait_for(word)

    def _send(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):  # the worker has ended, which the wait below detects
            self._stdin.write(f"{line}\n".encode())
            self._stdin.flush()

    def _wait_for(self, word: str) -> float | None:
        deadline = time.monotonic() + self._silence_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if not selector.select(timeout=min(1.0, self._silence_s)):
                    if self._process.poll() is not None:
                        return None
                    continue
                chunk = os.read(self._stdout.fileno(), 1 << 16)
                if not chunk:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(EXIT_LIMIT_S)
                    return None
                deadline = time.monotonic() + self._silence_s
                reply = self._listen(chunk, word)
                if reply is not None:
                    return reply
        self._hung = True
        self.close()
        return None

    def _listen(self, chunk: bytes, word: str) -> float | None:
        """Report the steps in the chunk, and return the number of the reply ``word``, if there is one."""
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        reply = None
        for line in (line.decode("utf-8", "replace") for line in lines):
            if line.startswith(MARK):
                name, value = line.removeprefix(MARK).split(maxsplit=1)
                if name == GPU:
                    self._gpu = value
                reply = float(value) if name == word else reply
            elif line:
                self._step = line
                self._heard(line)
        return reply
