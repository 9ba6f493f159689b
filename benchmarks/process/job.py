"""The job and the outcome of a worker process, which are passed as JSON, and the messages in between.

The worker writes its steps in words, one a line. Lines that begin with ``MARK`` are replies: ``opened PEAK_BYTES``,
``ready USUAL_S`` and ``turned MEDIAN_S``; on a GPU, ``gpu MEMORY`` comes before ``opened``. After loading the model the
worker waits for ``call``, after ``opened`` for ``warm LEAD_S``, after ``ready`` and each ``turned`` for ``turn
DURATION_S LEAST MOST`` or ``finish``. If the parent ends, the worker ends, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from benchmarks.machine.gpu import GpuState
from benchmarks.machine.gpu_monitor import EnergyUse, GpuMemory
from benchmarks.records.plan import ArrivalPlan, Plan
from benchmarks.records.result import KernelSummary, TrtexecTimes
from benchmarks.records.samples import LoadResult, ProcessSamples
from runtimes import codec
from runtimes.errors import BackendUnavailableError, CheckFailedError, CompatibilityError, Reason, RexportError
from runtimes.protocol import Description
from runtimes.stdout import redirect_stdout

OVERTIME = 1.0
"""How long an open loop continues after the arrivals to answer waiting requests, as a share of their duration.

If requests arrive faster than they are answered, the loop would otherwise take too long.
"""

REFUSALS: tuple[type[RexportError], ...] = (CompatibilityError, BackendUnavailableError)
"""The errors of configurations that cannot run here, which count as skipped."""

MARK = "\x01"
"""The first character of a reply of the worker."""

CALL, WARM, TURN, FINISH = "call", "warm", "turn", "finish"
"""The commands of the parent."""

GPU = "gpu"
"""The reply with the memory of the GPU."""


def status_of(
    error: BaseException, refusals: tuple[type[RexportError], ...] = REFUSALS
) -> Literal["failed", "skipped", "error"]:
    """Return the status for an error: ``failed`` for a check, ``skipped`` for ``refusals``, otherwise ``error``."""
    if isinstance(error, CheckFailedError):
        return "failed"
    return "skipped" if isinstance(error, refusals) else "error"


@dataclass(frozen=True)
class Job:
    """The work of one process.

    Attributes:
        artifact: The path of the model file.
        runtime: The name of the backend, as ``runtimes.open`` takes it.
        device: The device, as ``runtimes.open`` takes it.
        threads: The number of threads, as ``runtimes.open`` takes it.
        batch: The number of images in one call.
        data: The images, as ``exporter.data.opening.open_dataset`` takes them, or ``None`` for noise.
        limit: The maximum number of images to evaluate, or ``None`` for all.
        evaluate: Whether to evaluate the images.
        seed: The seed of the noise.
        plan: The duration of the warm-up and of one turn, for each of latency, compute and device time.
        cuda_graphs: Whether CUDA graphs are allowed, as ``runtimes.open`` takes it.
        streams: The number of calls at the same time, as ``runtimes.open`` takes it.
        throughput: The numbers of calls at the same time for which the throughput is measured in each turn.
        trtexec: The path of ``trtexec`` if it is to measure the engine once more.
        model_cache: The folder of compiled models, as ``runtimes.open`` takes it.
        load: How requests arrive in a load test; ``None`` for turns.
        number: The number of the process in its configuration, from 0. Only the first one evaluates, profiles and
            measures energy, because the results of all would be the same.
        began_s: The start of the run by ``time.monotonic``, which is one clock for the whole system.
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
    streams: int = 1
    throughput: tuple[int, ...] = ()
    trtexec: str | None = None
    model_cache: str | None = None
    load: ArrivalPlan | None = None
    number: int = 0
    began_s: float = 0.0


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a job.

    Attributes:
        status: The status, as ``benchmarks.records.result.Result`` explains it.
        reason: The reason for a status other than ``ok``.
        notes: Facts that a reader must know.
        description: The description of the runtime.
        sitting: The samples of the process.
        load: The result of a load.
        warnings: Warnings about the figures.
        unreadable: The names of images that could not be decoded.
        evaluated_per_s: The images evaluated per second.
        arithmetic: The executed arithmetic by the backend's profile; ``None`` if it was not profiled.
        gpu_before: The state of the GPU right before the timing, as all following fields only on a GPU.
        gpu_after: The state of the GPU at the end of the runs of the last turn.
        device_peak_bytes: The GPU memory of the process.
        energy: The energy of runs of a whole batch.
        kernels: The kernels of one run, by the driver's profiler; ``None`` if they were not recorded.
        trtexec: The times that ``trtexec`` measured.
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
    energy: EnergyUse | None = None
    kernels: KernelSummary | None = None
    trtexec: TrtexecTimes | None = None


@dataclass
class ProcessOutcomes:
    """The outcomes of the processes of one configuration.

    Attributes:
        outcomes: The outcomes in the order of the processes. If the last one is not ok, it has the reason.
        predictions: The file with the predictions of the first process, if there are any.
        alone: The reason why the configuration was measured alone; ``None`` if it was measured beside the others.
    """

    outcomes: list[JobOutcome] = field(default_factory=list)
    predictions: Path | None = None
    alone: Reason | None = None

    @property
    def sound(self) -> bool:
        """Whether all processes so far are ok."""
        return all(outcome.status == "ok" for outcome in self.outcomes)


@dataclass(frozen=True)
class TurnPlan:
    """The length of a turn.

    Attributes:
        duration_s: The sum of the samples at which the turn ends.
        least: The minimum number of samples.
        most: The maximum number of samples.
    """

    duration_s: float
    least: int
    most: int


class HungUpError(BaseException):
    """Raised when the parent has ended, so that the worker has to end. The class is not an error of the work."""


class Pipes:
    """The worker's end of the pipes, over standard input and output.

    Args:
        commands: The stream of the parent's commands.
        messages: The stream for steps and replies.
    """

    def __init__(self, commands: TextIO, messages: TextIO) -> None:
        self._commands = commands
        self._messages = messages

    def step(self, name: str) -> None:
        """Report the next step."""
        self._write_line(name)

    def wait_for_start(self) -> None:
        """Wait until the parent allows calls of the loaded model."""
        self._next()

    def report_open(self, peak_bytes: int, gpu: GpuMemory | None = None) -> float:
        """Report the opened and checked artifact, and wait until the parent allows the warm-up.

        Args:
            peak_bytes: The largest resident memory.
            gpu: The memory of the GPU; ``None`` for a processor.

        Returns:
            The time in seconds for which the process has to work before the warm-up.
        """
        if gpu is not None:
            self._write_line(f"{MARK}{GPU} {codec.dumps(gpu)}")
        self._write_line(f"{MARK}opened {peak_bytes}")
        _, *lead_s = self._next()
        return float(lead_s[0]) if lead_s else 0.0

    def ready(self, usual_s: float) -> None:
        """Report the end of the warm-up, and the time of a usual call."""
        self._write_line(f"{MARK}ready {usual_s!r}")

    def report_turn(self, median_s: float) -> None:
        """Report the end of a turn, and its median."""
        self._write_line(f"{MARK}turned {median_s!r}")

    def turns(self) -> Iterator[TurnPlan]:
        """Yield the turns that the parent requests."""
        while (words := self._next())[0] == TURN:
            duration_s, least, most = words[1:]
            yield TurnPlan(float(duration_s), int(least), int(most))

    def _write_line(self, line: str) -> None:
        try:
            self._messages.write(line + "\n")
        except BrokenPipeError:
            raise HungUpError from None

    def _next(self) -> list[str]:
        line = self._commands.readline()
        if not line.endswith("\n"):
            raise HungUpError
        return line.split()


def detach_stdout() -> Pipes:
    """Return the pipes of this process. Standard output then goes to standard error."""
    return Pipes(sys.stdin, os.fdopen(redirect_stdout(), "w", buffering=1, encoding="utf-8"))


def encode_turn(turn: TurnPlan) -> str:
    """Return the parent's command for a turn."""
    return " ".join((TURN, *map(str, astuple(turn))))
