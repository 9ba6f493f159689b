"""What goes into a worker process and what comes out: two frozen records, passed as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.gpu import GpuState
from benchmarks.measure import Measurement, Plan
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
        plan: for latency, for compute and for the device's own time, each.
        cuda_graphs: as ``runtimes.open`` takes it.
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


@dataclass(frozen=True)
class Outcome:
    """What came of a job; statuses as in ``benchmarks.results.Row``.

    ``arithmetic`` is what the runtime's own profile tells, or ``None`` where it was not profiled. From ``device`` on,
    what there is on a GPU alone.
    """

    status: Literal["ok", "failed", "skipped", "error"]
    reason: str | None = None
    note: str | None = None
    description: Description | None = None
    load_s: float | None = None
    first_s: float | None = None
    latency: Measurement | None = None
    compute: Measurement | None = None
    peak_bytes: int | None = None
    baseline_bytes: int | None = None
    unreadable: tuple[str, ...] = ()
    arithmetic: str | None = None
    device: Measurement | None = None
    gpu_before: GpuState | None = None
    gpu_after: GpuState | None = None
    device_peak_bytes: int | None = None
    energy_per_image_j: float | None = None


def one_line(text: object) -> str:
    """A reason fit for a table: no line breaks or control characters, 500 characters at most."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(line.split())[:500]
