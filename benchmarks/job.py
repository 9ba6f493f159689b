"""What goes into a worker process and what comes out: two frozen records, passed as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.gpu import GpuState
from benchmarks.loads import ArrivalPlan, LoadResult
from benchmarks.measure import Plan
from benchmarks.samples import ProcessSamples
from runtimes.protocol import Description


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        artifact: path of the model file.
        runtime, device, threads: as ``runtimes.open`` takes them.
        batch: images in one call.
        data: as ``exporter.data.open_dataset`` takes it, or ``None`` for noise.
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
    """What came of a job; statuses as in ``benchmarks.results.Row``.

    ``sitting`` is what was timed, ``load`` what came of a load shape. ``arithmetic`` is what the runtime's own profile
    tells, or ``None`` where it was not profiled. ``warnings`` are what is doubtful about the numbers. From
    ``gpu_before`` on, what there is on a GPU alone.
    """

    status: Literal["ok", "failed", "skipped", "error"]
    reason: str | None = None
    note: str | None = None
    description: Description | None = None
    sitting: ProcessSamples | None = None
    load: LoadResult | None = None
    warnings: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    evaluated_per_s: float | None = None
    arithmetic: str | None = None
    gpu_before: GpuState | None = None
    gpu_after: GpuState | None = None
    device_peak_bytes: int | None = None
    energy_per_image_j: float | None = None


def one_line(text: object) -> str:
    """A reason fit for a table: no line breaks or control characters, 500 characters at most."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(line.split())[:500]
