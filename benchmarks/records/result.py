"""The result of one configuration, as facts: what was asked for, what ran, and the raw samples and predictions.

Every figure (a median, a ratio, an accuracy) is derived from these by ``benchmarks.analysis.figures.Figures``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from benchmarks.accuracy.differences import Flips
from benchmarks.accuracy.packing import PackedPredictions
from benchmarks.machine.environment import Environment
from benchmarks.machine.gpu import GpuState
from benchmarks.records.samples import LoadResult, ProcessSamples
from exporter.proportions import Interval
from runtimes.errors import Reason

SCHEMA_VERSION = 5
"""Of a result. A reader refuses a newer one and names the remedy; ``benchmarks.records.migration`` reads older ones."""

Status: TypeAlias = Literal["ok", "failed", "skipped", "error"]


@dataclass(frozen=True)
class Identity:
    """The configuration: network x precision x backend x batch.

    Attributes:
        subject: the variant or the file that was to be measured: results with the same one compare the same network.
        artifact, sha256: the model file's name and digest. Where there is none to open: of the file that was to be
            measured, or the variant's name and nothing.
        variant, weights, trained: the network, its weights' origin, and whether these were ever trained; ``None`` for a
            file without a manifest.
        precision: of the artifact's graph.
        backend: the library's name.
        batch: images in one call.
        data: the name of the images, ``noise`` if there are none.
        file: of a network that was named by several files, the file that the row is of; else ``None``.
        size_bytes: of the model file and of the files with its weights; ``None`` where there is none to open, and in
            results of older versions.
    """

    subject: str | None
    artifact: str
    sha256: str
    variant: str
    weights: str | None
    trained: bool | None
    precision: str | None
    backend: str
    batch: int
    data: str
    file: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Baseline:
    """The configuration that the others of a network and batch size are compared with: backend, precision, and the
    file where the network was named by several."""

    backend: str
    precision: str | None
    file: str | None = None


@dataclass(frozen=True)
class Asked:
    """What the user asked for; ``None`` is what an older version did not record.

    Attributes:
        threads, device: for the runtime.
        cuda_graphs: whether a GPU was allowed to replay recorded runs; ``None`` on a processor.
        duration_s: of sampling by each clock in each process.
        processes: how many, or ``None`` for as many as there is time for.
        rounds: in each process.
        seed: of the noise, of the order of the turns and of the intervals' resampling.
        group: numbers the results of a run that took turns; ``None`` where the configuration was measured by itself.
        command: the command line, word by word.
        baseline: what latency and predictions are compared with; ``None`` means PyTorch in fp32, as in all results of
            older versions.
        quick: whether the run was a short one, whose results are preliminary.
    """

    threads: int | None
    device: str | None
    cuda_graphs: bool | None
    duration_s: float | None
    processes: int | None
    rounds: int | None
    seed: int
    group: int | None
    command: tuple[str, ...] | None
    baseline: Baseline | None = None
    quick: bool = False


@dataclass(frozen=True)
class Ran:
    """What really ran; where nothing did, the device and the threads that were asked for.

    ``arithmetic`` is what the convolutions and matrix products ran in, by the backend's own profile; of a backend
    without one, what it says that it computes in.
    """

    device: str
    threads: int
    backend_version: str | None = None
    provider: str | None = None
    arithmetic: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The evaluation on images: how many could not be decoded, the first of these by name, and images evaluated in a
    second, with decoding and preparing."""

    unreadable: int
    unreadable_names: tuple[str, ...] = ()
    images_per_s: float | None = None


@dataclass(frozen=True)
class GpuUse:
    """What the driver of a GPU told; ``None`` is what it did not tell.

    Attributes:
        before, after: the GPU right before and right after the timing.
        peak_bytes: the most of its memory in use right before and right after the latency's timing, above what was in
            use before the artifact was opened; other processes' is among it.
        energy_per_image_j: of the whole GPU, idle parts too, over the runs on bound inputs.
    """

    before: GpuState | None = None
    after: GpuState | None = None
    peak_bytes: int | None = None
    energy_per_image_j: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A value, and the ends of its 95 % interval; both ends are ``None`` where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> Interval | None:
        """Both ends, or ``None``."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class RecordedFigures:
    """Figures that an older version recorded, and that the facts in its file do not give any more.

    Attributes:
        complete: whether these are all that there is: so with versions 1 to 3, whose intervals came of another
            bootstrap. Otherwise they are those against a reference that is not in the file.
        estimates: by their names in ``Figures``, and ``drop``: the reference's top-1 less this one.
        images: that were evaluated.
        images_per_s: of the latency's samples.
        verdict: on the ratio; a ``tie`` is no significant difference.
        flips: as ``changed_predictions`` in ``Figures``.
    """

    complete: bool
    estimates: Mapping[str, Estimate]
    images: int | None = None
    images_per_s: float | None = None
    verdict: Literal["faster", "slower", "tie"] | None = None
    flips: Flips | None = None


@dataclass(frozen=True)
class RoofInputs:
    """The work of one call, the whole batch, and the ceilings of the machine that ran it.

    Attributes:
        multiply_adds: of one call.
        traffic_bytes: that one call must move at least: weights, input and output, once each.
        peak_multiply_adds_per_s: measured on this machine, in the arithmetic that ran, with as many threads.
        bandwidth_bytes_per_s: measured on this machine, with as many threads.
    """

    multiply_adds: int
    traffic_bytes: int
    peak_multiply_adds_per_s: float
    bandwidth_bytes_per_s: float

    @property
    def least_s(self) -> float:
        """The least time that the two ceilings allow one call."""
        return max(self._times_s)

    @property
    def bound(self) -> Literal["compute", "bandwidth"]:
        """Which of the two ceilings is the lower."""
        computing_s, moving_s = self._times_s
        return "compute" if computing_s >= moving_s else "bandwidth"

    @property
    def _times_s(self) -> tuple[float, float]:
        computing_s = self.multiply_adds / self.peak_multiply_adds_per_s
        return computing_s, self.traffic_bytes / self.bandwidth_bytes_per_s


@dataclass(frozen=True)
class Result:
    """What one configuration gave. Durations are seconds, sizes are bytes, shares lie in 0..1.

    Attributes:
        status: ``ok``: checked and measured. ``failed``: it ran and a check failed, so there is no number.
            ``skipped``: it cannot be made or cannot run here. ``error``: it was tried and broke.
        reason: why the status is not ``ok``.
        run, time: the run that the result belongs to, and when it was finished, in UTC.
        notes: what a reader of the numbers must know.
        warnings: what the worker found doubtful; ``Figures.warnings`` has those that follow from other facts, too.
        samples: of each process. Results of one run and one group ran side by side.
        load: of ``rbench load``, how the requests came in, and their samples.
        predictions: image by image, packed.
        roof: the work and the ceilings, where both are known.
        recorded: of a result of an older version alone.
    """

    status: Status
    reason: Reason | None
    run: str
    time: str
    identity: Identity
    asked: Asked
    ran: Ran
    environment: Environment
    notes: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()
    samples: tuple[ProcessSamples, ...] = ()
    load: LoadResult | None = None
    predictions: PackedPredictions | None = None
    evaluation: Evaluation | None = None
    gpu: GpuUse = field(default_factory=GpuUse)
    roof: RoofInputs | None = None
    recorded: RecordedFigures | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def note(self) -> str | None:
        """The notes in one line."""
        return "; ".join(map(str, self.notes)) or None
