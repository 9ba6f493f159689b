"""What goes into a worker process and what comes out, two frozen records, passed as JSON; and what the worker and its
parent say to each other meanwhile.

The worker's lines are the steps that it takes, in words. Those that begin with ``MARK`` are answers:
``opened PEAK_BYTES``, ``ready USUAL_S`` and ``turned MEDIAN_S``. When it has loaded the model the worker waits for
``call``, after ``opened`` for ``warm``, after ``ready`` and each ``turned`` for ``turn DURATION_S LEAST MOST`` or
``finish``. When the parent has gone, so does the worker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from benchmarks.machine.gpu import GpuState
from benchmarks.records.plan import ArrivalPlan, Plan
from benchmarks.records.samples import LoadResult, ProcessSamples
from runtimes.errors import BackendUnavailableError, CheckFailedError, CompatibilityError, Reason, RexportError
from runtimes.protocol import Description
from runtimes.stdout import redirect_stdout

OVERTIME = 1.0
"""Of a load's duration: how long after it an open loop goes on with the requests that still wait. Where they come
faster than they are answered they would wait for ever."""

REFUSALS: tuple[type[RexportError], ...] = (CompatibilityError, BackendUnavailableError)
"""What cannot run here was not tried."""

MARK = "\x01"
CALL, WARM, TURN, FINISH = "call", "warm", "turn", "finish"


def status_of(
    error: BaseException, refusals: tuple[type[RexportError], ...] = REFUSALS
) -> Literal["failed", "skipped", "error"]:
    """``failed`` for a check, ``skipped`` for one of the ``refusals``; anything else broke and is an ``error``."""
    if isinstance(error, CheckFailedError):
        return "failed"
    return "skipped" if isinstance(error, refusals) else "error"


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        artifact: path of the model file.
        runtime, device, threads: as ``runtimes.open`` takes them.
        batch: images in one call.
        data: as ``exporter.data.dataset.open_dataset`` takes it, or ``None`` for noise.
        limit: images to evaluate at most, or ``None`` for all.
        evaluate: whether to give predictions.
        seed: of the noise.
        plan: of the warm-up, and of one turn, for latency, for compute and for the device's own time, each.
        cuda_graphs: as ``runtimes.open`` takes it.
        load: how requests come in, in place of turns; ``None`` for turns.
        number: which process of its configuration it is, from 0. The first one tells what all would tell alike: its
            predictions, the runtime's profile, the energy of a run.
        began_s: when the run began, by ``time.monotonic``, which is one clock for the whole system.
    """

    artifact: str
    runtime: str
    device: str
    threads: int
    batch: int
    data: str | None
    limit: int | None
    evaluate: bool
    seed: int
    plan: Plan
    cuda_graphs: bool = True
    load: ArrivalPlan | None = None
    number: int = 0
    began_s: float = 0.0


@dataclass(frozen=True)
class JobOutcome:
    """What came of a job; statuses as in ``benchmarks.records.result.Result``.

    ``sitting`` is what was timed, ``load`` what came of a load shape. ``arithmetic`` is what the runtime's own profile
    tells, or ``None`` where it was not profiled. ``warnings`` are what is doubtful about the numbers. From
    ``gpu_before`` on, what there is on a GPU alone.
    """

    status: Literal["ok", "failed", "skipped", "error"]
    reason: Reason | None = None
    notes: tuple[Reason, ...] = ()
    description: Description | None = None
    sitting: ProcessSamples | None = None
    load: LoadResult | None = None
    warnings: tuple[Reason, ...] = ()
    unreadable: tuple[str, ...] = ()
    evaluated_per_s: float | None = None
    arithmetic: str | None = None
    gpu_before: GpuState | None = None
    gpu_after: GpuState | None = None
    device_peak_bytes: int | None = None
    energy_per_image_j: float | None = None


@dataclass
class ProcessOutcomes:
    """What came of one configuration: an outcome for each process, in order, and where the first one's predictions
    are. If it is not ok, its last outcome says why. ``alone``: it did not fit beside the others."""

    outcomes: list[JobOutcome] = field(default_factory=list)
    predictions: Path | None = None
    alone: bool = False

    @property
    def sound(self) -> bool:
        """Whether all its processes so far have done their work."""
        return all(outcome.status == "ok" for outcome in self.outcomes)


@dataclass(frozen=True)
class TurnPlan:
    """How long a turn is: samples until they add up to ``duration_s`` and are ``least``, ``most`` at most."""

    duration_s: float
    least: int
    most: int


class HungUpError(BaseException):
    """The parent has gone: there is nobody to work for. Not an error of the work."""


class Pipes:
    """The worker's end, over standard input and output."""

    def __init__(self, heard: TextIO, said: TextIO) -> None:
        self._heard = heard
        self._said = said

    def step(self, name: str) -> None:
        """Says what is done next."""
        self._write_line(name)

    def wait_for_start(self) -> None:
        """Waits until the model, which is loaded, may be called."""
        self._next()

    def report_open(self, peak_bytes: int) -> None:
        """Says that it is opened and checked, and waits until it may warm up."""
        self._write_line(f"{MARK}opened {peak_bytes}")
        self._next()

    def ready(self, usual_s: float) -> None:
        """Says that it is warm."""
        self._write_line(f"{MARK}ready {usual_s!r}")

    def report_turn(self, median_s: float) -> None:
        """Says that the turn is over."""
        self._write_line(f"{MARK}turned {median_s!r}")

    def turns(self) -> Iterator[TurnPlan]:
        """The turns to take, each when it is due."""
        while (words := self._next())[0] == TURN:
            duration_s, least, most = words[1:]
            yield TurnPlan(float(duration_s), int(least), int(most))

    def _write_line(self, line: str) -> None:
        try:
            self._said.write(line + "\n")
        except BrokenPipeError:
            raise HungUpError from None

    def _next(self) -> list[str]:
        line = self._heard.readline()
        if not line.endswith("\n"):
            raise HungUpError
        return line.split()


def detach_stdout() -> Pipes:
    """This process's ends; from now on what is printed to standard output goes to standard error."""
    return Pipes(sys.stdin, os.fdopen(redirect_stdout(), "w", buffering=1, encoding="utf-8"))


def encode_turn(turn: TurnPlan) -> str:
    """The turn as the parent says it."""
    return " ".join((TURN, *map(str, astuple(turn))))
