"""From what a worker brought back to a row: every figure is derived here, from raw samples and predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from benchmarks.accuracy import flips, packing
from benchmarks.accuracy import predictions as accuracy
from benchmarks.accuracy.predictions import Predictions
from benchmarks.analysis import warnings
from benchmarks.format import count
from benchmarks.machine.disturbances import disturbances_of_all
from benchmarks.machine.environment import Environment
from benchmarks.process.job import JobOutcome, ProcessOutcomes
from benchmarks.records.request import BenchmarkRequest
from benchmarks.records.result import Row
from benchmarks.records.samples import ProcessSamples, Series
from benchmarks.records.subject import NOISE, Configuration, Subject, is_reference
from benchmarks.roofline.ceilings import Ceilings
from benchmarks.roofline.executed_precision import wider
from benchmarks.roofline.graph_cost import Cost
from benchmarks.roofline.roof import roof
from benchmarks.stats import comparison as statistics
from benchmarks.stats import intervals as statistics_intervals
from exporter.proportions import Interval
from runtimes import Artifact, files

NAMED, KEPT_NAMES = 3, 1000
"""How many of the unreadable images a note names, and a row."""


@dataclass(frozen=True)
class Reference:
    """What the PyTorch row of the same network and batch gave, as far as it gave anything; ``field`` as in its row."""

    sittings: tuple[ProcessSamples, ...] = ()
    predictions: Predictions | None = None
    field: int | None = None


def start_row(
    run: str, taken_on: Environment, request: BenchmarkRequest, subject: Subject, configuration: Configuration
) -> Row:
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
        requested_threads=configuration.threads,
        requested_device=request.device,
        duration_s=request.duration_s,
        processes=request.processes,
        rounds=request.rounds,
        command=request.command,
    )


def _sha256_of(artifact: Artifact) -> str:
    return files.sha256_of(artifact.path) if artifact.manifest is None else artifact.manifest.sha256


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class RowContext:
    """What a row is seen beside.

    Attributes:
        reference: the PyTorch row.
        labels: the classes' names.
        cost: of one call of its graph; ceilings: of the machine.
    """

    reference: Reference = Reference()
    labels: tuple[str, ...] | None = None
    cost: Cost | None = None
    ceilings: Ceilings | None = None


def finish_row(row: Row, gathered: ProcessOutcomes, predictions: Predictions | None, context: RowContext) -> Row:
    """The row with what came of it; of a configuration that is not ok, its status and reason alone."""
    first, last = gathered.outcomes[0], gathered.outcomes[-1]
    row = replace(row, status=last.status, reason=_reason(gathered), note=_notes(first), time=_now())
    about, sittings = first.description, _list_samples(gathered)
    if last.status != "ok" or about is None or not sittings:
        return row
    nothing, arithmetic = row, first.arithmetic or about.precision
    row = replace(
        row,
        runtime_version=about.version,
        provider=about.provider,
        device=about.device,
        arithmetic=arithmetic,
        note=_notes(first, wider(row.precision, arithmetic)),
        threads=about.threads,
        load_s=sittings[0].load_s,
        first_s=sittings[0].first_s,
        peak_bytes=max((sitting.peak_bytes for sitting in sittings if sitting.peak_bytes), default=None),
        baseline_bytes=sittings[0].baseline_bytes,
        unreadable=None if predictions is None else len(first.unreadable),
        unreadable_names=first.unreadable[:KEPT_NAMES],
        evaluated_per_s=first.evaluated_per_s,
        gpu_before=first.gpu_before,
        gpu_after=last.gpu_after,
        device_peak_bytes=first.device_peak_bytes,
        energy_per_image_j=first.energy_per_image_j,
        sittings=sittings,
    )
    row = _with_roof(_with_ratio(_with_times(row), context.reference), context)
    if (reason := warnings.find_unfinished_work(row)) is not None:
        return replace(nothing, status="failed", reason=reason)
    row = _with_predictions(row, predictions, context)
    seen = [sitting.conditions for sitting in sittings]
    disturbed = disturbances_of_all(seen, row.threads, row.gpu_before, row.gpu_after)
    return replace(row, disturbances=disturbed, warnings=warnings.list_warnings(row, gathered))


def _list_samples(gathered: ProcessOutcomes) -> tuple[ProcessSamples, ...]:
    return tuple(outcome.sitting for outcome in gathered.outcomes if outcome.sitting is not None)


def _reason(gathered: ProcessOutcomes) -> str | None:
    """Why it is not ok, and in which of its processes, if not in the first."""
    reason, number = gathered.outcomes[-1].reason, len(gathered.outcomes)
    return reason if reason is None or number == 1 else f"in process {number}: {reason}"


def _notes(outcome: JobOutcome, ran: str | None = None) -> str | None:
    notes = [outcome.note, ran]
    if outcome.unreadable:
        lost, names = len(outcome.unreadable), ", ".join(outcome.unreadable[:NAMED])
        more = f", and {lost - NAMED:,} more, by name in the results' unreadable_names" if lost > NAMED else ""
        notes.append(f"{count(lost, 'image')} could not be read: {names}{more}")
    return "; ".join(filter(None, notes)) or None


def _with_times(row: Row) -> Row:
    latency = [sitting.latency for sitting in row.sittings]
    samples = _samples(latency)
    given = [q for q in statistics_intervals.MIN_SAMPLES if statistics_intervals.enough_for(samples, q)]
    intervals = dict(
        zip(given, statistics_intervals.quantile_intervals(_rounds(latency), given, row.seed), strict=True)
    )
    values = {q: statistics_intervals.quantile(samples, q) for q in given}
    compute = _median([sitting.compute for sitting in row.sittings], row.seed)
    device = _median([sitting.device for sitting in row.sittings], row.seed)
    image = _median([sitting.image for sitting in row.sittings], row.seed)
    return replace(
        row,
        p50_s=values.get(0.5),
        p50_interval_s=intervals.get(0.5),
        p90_s=values.get(0.9),
        p90_interval_s=intervals.get(0.9),
        p99_s=values.get(0.99),
        p99_interval_s=intervals.get(0.99),
        p999_s=values.get(0.999),
        p999_interval_s=intervals.get(0.999),
        images_per_s=row.batch * len(samples) / math.fsum(samples) if any(samples) else None,
        compute_p50_s=compute[0],
        compute_p50_interval_s=compute[1],
        device_p50_s=device[0],
        device_p50_interval_s=device[1],
        image_p50_s=image[0],
        image_p50_interval_s=image[1],
    )


def _samples(series: Sequence[Series]) -> list[float]:
    return [sample for one in series for sample in one.samples_s]


def _rounds(series: Sequence[Series]) -> list[tuple[tuple[float, ...], ...]]:
    """By process and round, as ``benchmarks.stats.comparison`` takes them."""
    return [one.rounds_s for one in series]


def _median(series: Sequence[Series | None], seed: int) -> tuple[float, Interval] | tuple[None, None]:
    there = [one for one in series if one is not None]
    samples = _samples(there)
    if not there or not statistics_intervals.enough_for(samples, 0.5):
        return None, None
    return statistics_intervals.quantile(samples, 0.5), statistics_intervals.quantile_intervals(
        _rounds(there), [0.5], seed
    )[0]


def _with_ratio(row: Row, reference: Reference) -> Row:
    if is_reference(row.runtime, row.precision):
        return replace(row, ratio=1.0, ratio_interval=(1.0, 1.0))
    samples = _samples([sitting.latency for sitting in row.sittings])
    if not reference.sittings or not any(samples):
        return row
    sides = [_rounds([one.latency for one in sittings]) for sittings in (reference.sittings, row.sittings)]
    paired = row.field is not None and row.field == reference.field
    compare = statistics.compare_paired if paired else statistics.compare_unpaired
    comparison = compare(sides[0], sides[1], seed=row.seed)
    return replace(row, ratio=comparison.ratio, ratio_interval=comparison.interval, verdict=comparison.verdict)


def _with_roof(row: Row, context: RowContext) -> Row:
    if context.cost is None or context.ceilings is None or row.compute_p50_s is None:
        return row
    return replace(row, roof=roof(context.cost, context.ceilings, row.arithmetic, row.compute_p50_s))


def _with_predictions(row: Row, predictions: Predictions | None, context: RowContext) -> Row:
    if predictions is None:
        return row
    reference = context.reference.predictions
    others = None if is_reference(row.runtime, row.precision) else reference
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
        answers=packing.pack_predictions(predictions, context.labels),
        flips=None if others is None else flips.flips(predictions, others),
    )
