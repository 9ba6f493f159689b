"""What goes into a worker process and what comes out: two frozen records, passed as JSON; and from an error to the
status of the row that tells of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.machine.gpu import GpuState
from benchmarks.records.load import ArrivalPlan, LoadResult
from benchmarks.records.plan import Plan
from benchmarks.records.samples import ProcessSamples
from runtimes.errors import BackendUnavailableError, CheckFailedError, CompatibilityError, Reason, RexportError
from runtimes.protocol import Description

OVERTIME = 1.0
"""Of a load's duration: how long after it an open loop goes on with the requests that still wait. Where they come
faster than they are answered they would wait for ever."""

REFUSALS: tuple[type[RexportError], ...] = (CompatibilityError, BackendUnavailableError)
"""What cannot run here was not tried."""


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
