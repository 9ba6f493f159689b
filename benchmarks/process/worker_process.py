"""Worker processes: started, listened to, told when it is their turn, and ended. There is an outcome in any case."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.process import isolated
from benchmarks.process.job import CALL, FINISH, MARK, WARM, Job, JobOutcome, TurnPlan, encode_turn
from runtimes import codec

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
) -> tuple[JobOutcome, Path]:
    """The job's outcome, and where its predictions are if it made any; of what is timed it takes one turn, as its plan
    says. Blocks until the worker has ended. Arguments as for ``Worker``.
    """
    plan = job.plan
    with Worker(job, folder, heard, silence_s, show_errors, program) as worker:
        if worker.wait_until_open() is not None and worker.warm() is not None:
            worker.turn(TurnPlan(plan.duration_s, plan.min_samples, plan.max_samples))
            worker.finish()
        return worker.outcome(), worker.predictions


class Worker:
    """A process at work on one job. A context manager: at its end the process has ended, and what it started.

    What waits for the process gives ``None`` if it has ended in place of answering: ``outcome`` then tells why.
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
        """Starts it.

        Args:
            folder: an existing one for this job alone.
            heard: told each step that the worker takes, when it is waited for.
            silence_s: a worker that is waited for and takes no step for so long is taken for hung and ended.
            show_errors: whether the worker's standard error is this process's own.
            program: what to start; it gets three paths: of the job, of the outcome, of the predictions.
        """
        self._outcome, self.predictions = folder / "outcome.json", folder / "predictions.npz"
        self._errors = folder / "stderr"
        self._heard = heard
        self._silence_s = silence_s
        self._step: str | None = None
        self._unread = b""
        self._hung = False
        place = folder / "job.json"
        place.write_text(codec.dumps(job), encoding="utf-8")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*program, *map(str, (place, self._outcome, self.predictions))],
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
        """Lets it call the model when it has loaded it, and waits until its outputs are checked: the process's largest
        resident memory so far, in bytes."""
        return self._ask(CALL, "opened")

    def warm(self) -> float | None:
        """Lets it warm up: the seconds of a usual call."""
        return self._ask(WARM, "ready")

    def turn(self, turn: TurnPlan) -> float | None:
        """Lets it take a turn: the median seconds of a call in it."""
        return self._ask(encode_turn(turn), "turned")

    def finish(self) -> None:
        """Lets it do what is left to do, and waits until it has ended."""
        self._ask(FINISH, "")

    def outcome(self) -> JobOutcome:
        """What came of it. Ends the process if it still runs."""
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
        """Ends the process and what it started, if they still run."""
        isolated.kill(self._process)
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _ask(self, line: str, word: str) -> float | None:
        """The number that the worker says with the word. ``None`` when it has ended or hung; it is gone then."""
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, as the wait for its answer will find
            self._stdin.write(f"{line}\n".encode())
            self._stdin.flush()
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
                answer = self._listen(chunk, word)
                if answer is not None:
                    return answer
        self._hung = True
        self.close()
        return None

    def _listen(self, chunk: bytes, word: str) -> float | None:
        """Hears the steps in the chunk, and gives the number that stands with the word, if it is there."""
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        answer = None
        for line in (line.decode("utf-8", "replace") for line in lines):
            if line.startswith(MARK):
                name, number = line.removeprefix(MARK).split()
                answer = float(number) if name == word else answer
            elif line:
                self._step = line
                self._heard(line)
        return answer
