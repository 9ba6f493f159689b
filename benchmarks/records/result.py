"""The result of one configuration as facts: what was requested, what ran, and the raw samples and predictions.

Every figure, as a median, a ratio or an accuracy, is derived from a result by ``benchmarks.analysis.figures.Figures``.
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
from runtimes.codec import OMIT_DEFAULT
from runtimes.errors import Reason

SCHEMA_VERSION = 5
"""The schema version of a result.

A reader refuses newer results and names the command that upgrades; ``benchmarks.records.migration`` reads older ones.
"""

Status: TypeAlias = Literal["ok", "failed", "skipped", "error"]
"""The status of a result, as ``Result`` explains it."""


@dataclass(frozen=True)
class Identity:
    """The identity of a configuration: network, precision, backend and batch size.

    Attributes:
        subject: The variant or file that was to be measured. Results with the same subject compare the same network.
        artifact: The name of the model file. If no file could be opened: the name of the requested file or variant.
        sha256: The digest of the model file. If no file could be opened: that of the requested file, or empty for a
            variant.
        variant: The name of the network, or of the file for a model without a manifest.
        weights: The origin of the weights; ``None`` for a model without a manifest.
        trained: Whether the weights were trained; ``None`` for a model without a manifest.
        precision: The precision of the artifact's graph; ``None`` for a model without a manifest.
        backend: The name of the backend.
        batch: The number of images in one call.
        data: The name of the images, or ``noise``.
        file: The file of the row if the user named several files of the network; otherwise ``None``.
        size_bytes: The size of the model file with the files of its weights; ``None`` if no file could be opened, and
            in results of older versions.
        size: The (height, width) of the input in pixels; ``None`` for a model without a manifest, and in results of
            older versions.
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
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Baseline:
    """The configuration that the others of a network and batch size are compared with.

    Attributes:
        backend: The name of the backend.
        precision: The precision; ``None`` for a model without a manifest.
        file: The file if the user named several files of the network; otherwise ``None``.
    """

    backend: str
    precision: str | None
    file: str | None = None


@dataclass(frozen=True)
class Asked:
    """The request behind a result. ``None`` stands for values that an older version did not record.

    Attributes:
        threads: The requested threads.
        device: The requested device.
        cuda_graphs: Whether CUDA graphs were allowed; ``None`` on a processor.
        duration_s: The sampling time of each clock in each process.
        processes: The number of processes, or ``None`` for as many as fit into the time budget.
        rounds: The number of rounds in each process.
        seed: The seed of the noise, of the order of the turns, and of the resampling for intervals.
        group: The number of the group of results in the run whose processes took turns; ``None`` if the configuration
            was measured alone.
        command: The command line, word by word.
        baseline: The configuration with which latency and predictions are compared; ``None`` for PyTorch in fp32, as
            in all results of older versions.
        quick: Whether the run was short, so that its results are preliminary.
        at_once: All devices that worked at the same time, each with the same model; empty if no other one did.
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
    at_once: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class Ran:
    """The backend that ran, and its settings. If nothing ran, the device and threads are the requested ones.

    Attributes:
        device: The device.
        threads: The number of threads.
        backend_version: The version of the backend's library.
        provider: The execution provider.
        arithmetic: The precision in which convolutions and matrix products were executed, by the backend's profile, or
            by its own statement if it has no profile.
    """

    device: str
    threads: int
    backend_version: str | None = None
    provider: str | None = None
    arithmetic: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The evaluation on images.

    Attributes:
        unreadable: The number of images that could not be decoded.
        unreadable_names: The names of the first of these images.
        images_per_s: The images evaluated per second, with decoding and preprocessing.
    """

    unreadable: int
    unreadable_names: tuple[str, ...] = ()
    images_per_s: float | None = None


@dataclass(frozen=True)
class GpuUse:
    """Readings of the GPU's driver. ``None`` stands for values that the driver does not report.

    Attributes:
        before: The state of the GPU right before the timing.
        after: The state of the GPU at the end of the runs of the last turn. In older results: after the timing.
        peak_bytes: The largest GPU memory of the process until the end of the warm-up of the latency. If the driver
            does not report memory by process: the growth of all memory in use while the process opened the model.
        energy_per_image_j: The energy of the whole GPU per image, including its idle power, during the runs on bound
            inputs.
        energy_error_share: The error of this energy from the steps of the driver's counter, as a share of it.
        power_w: The mean power of the whole GPU in the same runs, in watts.
    """

    before: GpuState | None = None
    after: GpuState | None = None
    peak_bytes: int | None = None
    energy_per_image_j: float | None = None
    energy_error_share: float | None = field(default=None, metadata=OMIT_DEFAULT)
    power_w: float | None = field(default=None, metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class Estimate:
    """A value with the lower and upper end of its 95 % interval; both ends are ``None`` without an interval."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> Interval | None:
        """The lower and upper end, or ``None`` without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class RecordedFigures:
    """Figures that an older version recorded and that cannot be derived from its file.

    Attributes:
        complete: Whether these are all figures of the result. For schema versions 1 to 3 they are, because their
            intervals used another bootstrap. Otherwise they compare with a reference that is not in the file.
        estimates: The estimates by their names in ``Figures``, and ``drop``, the reference's top-1 accuracy minus that
            of the result.
        images: The number of evaluated images.
        images_per_s: The throughput that follows from the latency.
        verdict: The verdict on the ratio; ``tie`` means no significant difference.
        flips: The changed predictions, as ``changed_predictions`` in ``Figures``.
    """

    complete: bool
    estimates: Mapping[str, Estimate]
    images: int | None = None
    images_per_s: float | None = None
    verdict: Literal["faster", "slower", "tie"] | None = None
    flips: Flips | None = None


@dataclass(frozen=True)
class RoofInputs:
    """The work of one call of the whole batch, and the peak FLOPS and bandwidth of the machine.

    Attributes:
        multiply_adds: The multiply-adds of one call.
        traffic_bytes: The bytes that one call must move at least: weights, input and output, once each.
        peak_multiply_adds_per_s: The measured peak for the executed arithmetic and the same number of threads.
        bandwidth_bytes_per_s: The measured bandwidth for the same number of threads.
    """

    multiply_adds: int
    traffic_bytes: int
    peak_multiply_adds_per_s: float
    bandwidth_bytes_per_s: float

    @property
    def least_s(self) -> float:
        """The lowest time of one call that peak and bandwidth allow."""
        return max(self._times_s)

    @property
    def bound(self) -> Literal["compute", "bandwidth"]:
        """The limit that is reached first."""
        computing_s, moving_s = self._times_s
        return "compute" if computing_s >= moving_s else "bandwidth"

    @property
    def _times_s(self) -> tuple[float, float]:
        computing_s = self.multiply_adds / self.peak_multiply_adds_per_s
        return computing_s, self.traffic_bytes / self.bandwidth_bytes_per_s


@dataclass(frozen=True)
class Result:
    """The result of one configuration. Durations are in seconds, sizes in bytes, shares between 0 and 1.

    Attributes:
        status: ``ok``: checked and measured. ``failed``: a check failed, so there are no figures. ``skipped``: the
            configuration cannot be made or cannot run here. ``error``: the measurement broke off.
        reason: The reason for a status other than ``ok``.
        run: The run that the result belongs to.
        time: The time when the result was finished, in UTC.
        identity: The configuration.
        asked: The request.
        ran: What ran.
        environment: The machine and its software.
        notes: Facts that a reader of the figures must know.
        warnings: Warnings of the worker. ``Figures.warnings`` adds those that follow from other facts.
        samples: The samples of each process. Processes of one run and one group ran side by side.
        load: The load and its samples, for ``rbench load``.
        predictions: The packed predictions, image by image.
        evaluation: The evaluation on images.
        gpu: Readings of the GPU's driver.
        roof: The work of one call and the limits of the machine, if both are known.
        recorded: Figures from the file, only for results of older versions.
        schema_version: The schema version.
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
        """The notes in one line, or ``None`` without notes."""
        return "; ".join(map(str, self.notes)) or None
