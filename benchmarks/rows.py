"""From what a worker brought back to a row: every figure is derived here, from raw samples and predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from benchmarks import accuracy, statistics
from benchmarks.accuracy import Predictions
from benchmarks.environment import Environment
from benchmarks.job import Outcome
from benchmarks.measure import Measurement
from benchmarks.request import REFERENCE, Request
from benchmarks.results import Row
from benchmarks.subjects import FP32, Pair, Subject
from exporter.proportions import Interval
from runtimes import Artifact, files

NOISE = "noise"

NAMED = 3
"""How many of the unreadable images a note names."""

NOT_SETTLED = "the warm-up reached its limit before three windows agreed"


@dataclass(frozen=True)
class Configuration:
    """What one row is of. ``cuda_graphs`` as ``runtimes.open`` takes it."""

    pair: Pair
    batch: int
    threads: int
    cuda_graphs: bool = True

    @property
    def reference(self) -> bool:
        """Whether the others are compared with it."""
        return is_reference(self.pair.backend.name, self.pair.typed.precision)


def is_reference(runtime: str, precision: str | None) -> bool:
    """Whether rows of the runtime in that precision are what the others are compared with: PyTorch in fp32."""
    return runtime == REFERENCE and precision == FP32


@dataclass(frozen=True)
class Reference:
    """What the PyTorch row of the same network and batch gave, as far as it gave anything."""

    latency: Measurement | None = None
    predictions: Predictions | None = None


def started(run: str, taken_on: Environment, request: Request, subject: Subject, configuration: Configuration) -> Row:
    """A row that knows what is to be measured, and nothing more."""
    pair, weights = configuration.pair, subject.weights
    file = pair.opens if isinstance(pair.opens, Artifact) else subject.own
    return Row(
        status="ok",
        reason=None,
        run=run,
        time=_now(),
        artifact=subject.name if file is None else file.path.name,
        sha256="" if file is None else _sha256_of(file),
        variant=subject.network,
        weights=None if weights is None else weights.origin,
        trained=None if weights is None else weights.trained,
        runtime=pair.backend.name,
        device=request.device,
        precision=pair.typed.precision,
        batch=configuration.batch,
        threads=configuration.threads,
        data=subject.data or NOISE,
        seed=request.seed,
        environment=taken_on,
        subject=subject.name,
        cuda_graphs=None if request.device == "cpu" else configuration.cuda_graphs,
    )


def _sha256_of(artifact: Artifact) -> str:
    return files.sha256_of(artifact.path) if artifact.manifest is None else artifact.manifest.sha256


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def finished(row: Row, outcome: Outcome, predictions: Predictions | None, reference: Reference) -> Row:
    """The row with what came of it; of a configuration that is not ok, its status and reason alone."""
    row = replace(row, status=outcome.status, reason=outcome.reason, note=_notes(outcome), time=_now())
    about = outcome.description
    if outcome.status != "ok" or about is None or outcome.latency is None or outcome.compute is None:
        return row
    row = replace(
        row,
        runtime_version=about.version,
        provider=about.provider,
        device=about.device,
        arithmetic=outcome.arithmetic or about.precision,
        threads=about.threads,
        load_s=outcome.load_s,
        first_s=outcome.first_s,
        peak_bytes=outcome.peak_bytes,
        baseline_bytes=outcome.baseline_bytes,
        unreadable=None if predictions is None else len(outcome.unreadable),
        gpu_before=outcome.gpu_before,
        gpu_after=outcome.gpu_after,
        device_peak_bytes=outcome.device_peak_bytes,
        energy_per_image_j=outcome.energy_per_image_j,
    )
    row = _with_latency(row, outcome.latency)
    row = _with_compute(row, outcome.compute)
    row = _with_device(row, outcome.device)
    row = _with_ratio(row, outcome.latency, reference.latency)
    return _with_answers(row, predictions, reference.predictions)


def _notes(outcome: Outcome) -> str | None:
    notes = [outcome.note]
    if outcome.latency is not None and not outcome.latency.settled:
        notes.append(NOT_SETTLED)
    if outcome.unreadable:
        names = ", ".join(outcome.unreadable[:NAMED]) + (", ..." if len(outcome.unreadable) > NAMED else "")
        notes.append(f"{len(outcome.unreadable)} images could not be read: {names}")
    return "; ".join(filter(None, notes)) or None


def _with_latency(row: Row, latency: Measurement) -> Row:
    samples = latency.samples_s
    given = [q for q in statistics.MIN_SAMPLES if statistics.enough_for(samples, q)]
    intervals = dict(zip(given, statistics.quantile_intervals(samples, given, row.seed), strict=True))
    values = {q: statistics.quantile(samples, q) for q in given}
    return replace(
        row,
        p50_s=values.get(0.5),
        p50_interval_s=intervals.get(0.5),
        p90_s=values.get(0.9),
        p90_interval_s=intervals.get(0.9),
        p99_s=values.get(0.99),
        p99_interval_s=intervals.get(0.99),
        images_per_s=row.batch * len(samples) / math.fsum(samples) if any(samples) else None,
        samples_s=samples,
        warmup_s=latency.warmup_s,
    )


def _with_compute(row: Row, compute: Measurement) -> Row:
    median, interval = _median(compute, row.seed)
    return replace(
        row,
        compute_p50_s=median,
        compute_p50_interval_s=interval,
        compute_samples_s=compute.samples_s,
        compute_warmup_s=compute.warmup_s,
    )


def _with_device(row: Row, device: Measurement | None) -> Row:
    if device is None:
        return row
    median, interval = _median(device, row.seed)
    return replace(
        row,
        device_p50_s=median,
        device_p50_interval_s=interval,
        device_samples_s=device.samples_s,
        device_warmup_s=device.warmup_s,
    )


def _median(measurement: Measurement, seed: int) -> tuple[float, Interval] | tuple[None, None]:
    samples = measurement.samples_s
    if not statistics.enough_for(samples, 0.5):
        return None, None
    return statistics.quantile(samples, 0.5), statistics.quantile_intervals(samples, [0.5], seed)[0]


def _with_ratio(row: Row, latency: Measurement, reference: Measurement | None) -> Row:
    if is_reference(row.runtime, row.precision):
        return replace(row, ratio=1.0, ratio_interval=(1.0, 1.0))
    if reference is None or not any(latency.samples_s):
        return row
    samples = reference.samples_s, latency.samples_s
    return replace(
        row,
        ratio=statistics.ratio_of_medians(*samples),
        ratio_interval=statistics.ratio_interval(*samples, seed=row.seed),
    )


def _with_answers(row: Row, predictions: Predictions | None, reference: Predictions | None) -> Row:
    if predictions is None:
        return row
    first, fifth = accuracy.top1(predictions), accuracy.top5(predictions)
    same = None if reference is None else accuracy.agreement(predictions, reference)
    lost = None if reference is None else accuracy.drop(predictions, reference)
    return replace(
        row,
        images=len(predictions.indices),
        top1=first.value if first else None,
        top1_interval=first.interval if first else None,
        top5=fifth.value if fifth else None,
        top5_interval=fifth.interval if fifth else None,
        agreement=same.value if same else None,
        agreement_interval=same.interval if same else None,
        drop=lost.value if lost else None,
        drop_interval=lost.interval if lost else None,
    )
