"""Result rows and the file that keeps them: JSON lines, one row a line, each line whole or not there."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from benchmarks import migration
from benchmarks.answers import Flips, PackedPredictions
from benchmarks.environment import Environment
from benchmarks.gpu import GpuState
from benchmarks.loads import LoadResult
from benchmarks.roofline import Roof
from benchmarks.samples import ProcessSamples
from benchmarks.statistics import Verdict
from exporter.proportions import Interval
from runtimes import files, schema
from runtimes.errors import ArtifactError, CompatibilityError, quote

SCHEMA_VERSION = 4
"""Of a row. A reader refuses a newer one and names the remedy. Rows of version 1 had no subject and no drop, those of
version 2 nothing of a GPU, those of version 3 the samples of one process."""

FILE_LIMIT_BYTES = 1 << 30

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
            samples on as ``benchmarks.statistics.MIN_SAMPLES`` says.
        compute_p50_s: of one run with the inputs already on the device, by the host's clock until the device is done.
        device_p50_s: of the same by the device's own clock, between two events right before and right after the run;
            ``None`` on a processor.
        ratio: the PyTorch reference row's p50_s over this row's: 2.0 is twice as fast.
        images_per_s: images over the sum of the latency's samples.
        load_s: of opening, with the import of the runtime's library. first_s: of the process's first ``infer``.
        peak_bytes: the largest resident memory of the process up to the end of the timing; baseline_bytes: what it had
            before the artifact was opened.
        unreadable: images of the data that could not be decoded, and are not among ``images``. unreadable_names: these,
            ``benchmarks.rows.KEPT_NAMES`` at most.
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
            and as many runs after them as it takes to be at work for ``benchmarks.gpu.ENERGY_LEAST_S``.
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


FILE_NAME = "results.jsonl"
"""What a run calls its rows in the folder that it writes into."""


def find_rows_file(path: str | os.PathLike[str]) -> Path:
    """The file of rows that is meant: the path itself, or ``results.jsonl`` in it if it is a folder."""
    return Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)


def read(path: str | os.PathLike[str]) -> tuple[Row, ...]:
    """The rows of a file, oldest first; those of older schema versions as rows of the present one.

    Raises:
        ResourceError: the file cannot be read.
        ArtifactError: a line is no row; the message names the line.
        CompatibilityError: a row is of a newer rbench.
    """
    lines = files.read_bounded(path, FILE_LIMIT_BYTES).splitlines()
    return tuple(_parse_line(line, number, path) for number, line in enumerate(lines, start=1))


def _parse_line(line: bytes, number: int, path: str | os.PathLike[str]) -> Row:
    try:
        data = _load_json(line)
        version = _version_of(data)
        if version > SCHEMA_VERSION:
            raise CompatibilityError(
                f"line {number}: a row of schema version {version}; this rbench reads up to {SCHEMA_VERSION}",
                path=path,
                hint="pip install --upgrade rexport",
            )
        if version < 1:
            raise ArtifactError(f"field 'schema_version': expected 1 to {SCHEMA_VERSION}, got {version}")
        if isinstance(data, dict) and 1 <= version <= migration.LAST_OF_ONE_PROCESS:
            data = migration.migrate_row(data, SCHEMA_VERSION)
        return schema.decode(Row, data)
    except ArtifactError as error:
        raise ArtifactError(f"line {number}: {error.what}", path=path) from error


def _load_json(line: bytes) -> object:
    try:
        data: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"not valid JSON: {quote(error)}") from error
    return data


def _version_of(data: object) -> int:
    """What the row says of itself; one that says nothing, or nonsense, is checked as a present one."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    return version if isinstance(version, int) and not isinstance(version, bool) else SCHEMA_VERSION


class ResultsFile:
    """A JSON-lines file that rows are added to. Older rows are kept; several processes may add at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Makes the folder where it is missing, and reads what is in the file.

        Raises:
            ResourceError: the folder cannot be written into, or the file cannot be read.
            ArtifactError, CompatibilityError: the file holds something else than rows; it is left as it is.
        """
        self.path = Path(path)
        files.check_writable(self.path.parent)
        if self.path.exists():
            read(self.path)

    def append(self, row: Row) -> None:
        """Adds the row's line. A kill at any moment leaves the file with it or without it.

        Raises:
            ResourceError: with the system's reason; the file is as it was.
        """
        line = schema.dumps(row).encode() + b"\n"
        with files.folder_lock(self.path.parent):
            old = files.read_bounded(self.path, FILE_LIMIT_BYTES) if self.path.exists() else b""
            if old and not old.endswith(b"\n"):
                old += b"\n"
            with files.write_atomically(self.path) as temporary:
                temporary.write_bytes(old + line)
