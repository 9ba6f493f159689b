"""Result rows and the file that keeps them: JSON lines, one row a line, each line whole or not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from benchmarks.accuracy.flips import Flips
from benchmarks.accuracy.packing import PackedPredictions
from benchmarks.machine.environment import Environment
from benchmarks.machine.gpu import GpuState
from benchmarks.records.load import LoadResult
from benchmarks.records.roof import Roof
from benchmarks.records.samples import ProcessSamples
from benchmarks.stats.comparison import Verdict
from exporter.proportions import Interval

SCHEMA_VERSION = 4
"""Of a row. A reader refuses a newer one and names the remedy. Rows of version 1 had no subject and no drop, those of
version 2 nothing of a GPU, those of version 3 the samples of one process."""


Status: TypeAlias = Literal["ok", "failed", "skipped", "error"]


@dataclass(frozen=True)
class Row:
    """What one configuration (network x precision x runtime x batch) gave. ``None`` is what was not measured.

    Fractions lie in 0..1, durations are seconds, sizes are bytes, intervals are (low, high) at 95 %.

    Attributes:
        status: ``ok``: checked and measured. ``failed``: it ran and a check failed, so there is no number.
            ``skipped``: it cannot be made or cannot run here. ``error``: it was tried and broke.
        reason: why the status is not ``ok``, in one line.
        note: what a reader of the numbers must know.
        run, time: the run that the row belongs to, and when the row was finished, in UTC.
        subject: the variant or the file that was to be measured: rows with the same one compare the same network.
        artifact, sha256: the model file's name and digest. Where there is none to open: of the file that was to be
            measured, or the variant's name and nothing.
        variant, weights, trained: the network, its weights' origin, and whether these were ever trained; ``None`` for a
            file without a manifest.
        precision: of the artifact's graph. arithmetic: what its convolutions and matrix products ran in, by the
            runtime's own profile; of a runtime without one, what it says that it computes in.
        runtime, runtime_version, provider, device, threads: what really ran; what was asked for, where nothing ran.
        data, images: the name of the data ("noise" if none) and how many of its images were evaluated.
        seed: of the noise and of the intervals' resampling.
        p50_s, p90_s, p99_s: latency of one ``infer`` of a whole batch, host arrays in and out; given from as many
            samples on as ``benchmarks.stats.intervals.MIN_SAMPLES`` says.
        compute_p50_s: of one run with the inputs already on the device, by the host's clock until the device is done.
        device_p50_s: of the same by the device's own clock, between two events right before and right after the run;
            ``None`` on a processor.
        ratio: the PyTorch reference row's p50_s over this row's: 2.0 is twice as fast.
        images_per_s: images over the sum of the latency's samples.
        load_s: of opening, with the import of the runtime's library. first_s: of the process's first ``infer``.
        peak_bytes: the largest resident memory of the process up to the end of the timing; baseline_bytes: what it had
            before the artifact was opened.
        unreadable: images of the data that could not be decoded, and are not among ``images``. unreadable_names: these,
            ``benchmarks.analysis.figures.KEPT_NAMES`` at most.
        top1, top5: shares of the images whose true class is the best, or among the best five.
        agreement: share of the images whose best class is the PyTorch reference row's.
        drop: the reference row's top1 less this row's, with its interval from the pairs of answers to the same image:
            below 0 this row is better.
        p999_s: from 10,000 samples on.
        image_p50_s: from an encoded image to its label, one image a call.
        verdict: of the ratio: ``tie`` unless its whole interval lies beyond 1 %, or beyond 5 % with one process on each
            side.
        warnings: what is doubtful about the numbers, a line each.
        disturbances: why the machine was not quiet while they were taken; ``None`` where it was not looked at.
        requested_threads, requested_device: what was asked for, beside ``threads`` and ``device``.
        duration_s, processes, rounds: what was asked for, ``processes`` only if it was; ``field`` numbers the group of
            rows that took turns.
        command: the command line that measured it.
        sittings: the raw samples, a sitting for each process. Rows of one run and one field ran side by side.
        load: of a row of ``rbench load``, how the requests came in, and their samples.
        roof: what the machine's ceilings allow, and the share of it that was reached.
        answers: image by image, packed. flips: where they differ from the reference row's.
        evaluated_per_s: images a second of the whole evaluation, with decoding and preparing.
        cuda_graphs: whether a GPU was allowed to replay recorded runs; ``None`` on a processor. This and what follows
            is there for a GPU alone, and ``None`` where its driver does not tell.
        gpu_before, gpu_after: the GPU right before and right after the timing.
        device_peak_bytes: the most of the GPU's memory that was in use right before and right after the latency's
            timing, above what was in use before the artifact was opened; other processes' is among it. What is bound
            for the other timings, which lies on the device many times over, is not.
        energy_per_image_j: of the whole GPU, idle parts too, over the runs that compute_p50_s is of, their warm-up,
            and as many runs after them as it takes to be at work for ``benchmarks.machine.gpu.ENERGY_LEAST_S``.
    """

    status: Status
    reason: str | None
    run: str
    time: str
    artifact: str
    sha256: str
    variant: str
    weights: str | None
    trained: bool | None
    runtime: str
    device: str
    precision: str | None
    batch: int
    threads: int
    data: str
    seed: int
    environment: Environment
    runtime_version: str | None = None
    provider: str | None = None
    arithmetic: str | None = None
    note: str | None = None
    p50_s: float | None = None
    p50_interval_s: Interval | None = None
    p90_s: float | None = None
    p90_interval_s: Interval | None = None
    p99_s: float | None = None
    p99_interval_s: Interval | None = None
    compute_p50_s: float | None = None
    compute_p50_interval_s: Interval | None = None
    images_per_s: float | None = None
    ratio: float | None = None
    ratio_interval: Interval | None = None
    load_s: float | None = None
    first_s: float | None = None
    peak_bytes: int | None = None
    baseline_bytes: int | None = None
    top1: float | None = None
    top1_interval: Interval | None = None
    top5: float | None = None
    top5_interval: Interval | None = None
    images: int | None = None
    unreadable: int | None = None
    agreement: float | None = None
    agreement_interval: Interval | None = None
    drop: float | None = None
    drop_interval: Interval | None = None
    subject: str | None = None
    cuda_graphs: bool | None = None
    device_p50_s: float | None = None
    device_p50_interval_s: Interval | None = None
    gpu_before: GpuState | None = None
    gpu_after: GpuState | None = None
    device_peak_bytes: int | None = None
    energy_per_image_j: float | None = None
    p999_s: float | None = None
    p999_interval_s: Interval | None = None
    image_p50_s: float | None = None
    image_p50_interval_s: Interval | None = None
    verdict: Verdict | None = None
    warnings: tuple[str, ...] = ()
    disturbances: tuple[str, ...] | None = None
    requested_threads: int | None = None
    requested_device: str | None = None
    duration_s: float | None = None
    processes: int | None = None
    rounds: int | None = None
    field: int | None = None
    command: tuple[str, ...] | None = None
    sittings: tuple[ProcessSamples, ...] = ()
    load: LoadResult | None = None
    roof: Roof | None = None
    answers: PackedPredictions | None = None
    flips: Flips | None = None
    evaluated_per_s: float | None = None
    unreadable_names: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION
