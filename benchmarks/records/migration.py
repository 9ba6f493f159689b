"""Rows of older schema versions as rows of the present one: their samples were those of one process, in one round."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.records.samples import ProcessSamples, Series
from benchmarks.stats import intervals
from runtimes import codec
from runtimes.errors import ArtifactError

LAST_OF_ONE_PROCESS = 3
"""The last version whose rows had the samples themselves, in place of sittings."""

NOT_SETTLED = "the warm-up reached its limit before three windows agreed"
"""What a note of these versions said of the latency's warm-up, which was told nowhere else."""


@dataclass(frozen=True)
class _OneProcess:
    """The fields of versions 1 to 3 that are gone, and those that a sitting has besides."""

    samples_s: tuple[float, ...] | None = None
    warmup_s: tuple[float, ...] | None = None
    compute_samples_s: tuple[float, ...] | None = None
    compute_warmup_s: tuple[float, ...] | None = None
    device_samples_s: tuple[float, ...] | None = None
    device_warmup_s: tuple[float, ...] | None = None
    load_s: float | None = None
    first_s: float | None = None
    peak_bytes: int | None = None
    baseline_bytes: int | None = None
    note: str | None = None


_NAMES = tuple(field.name for field in dataclasses.fields(_OneProcess))
_GONE = tuple(name for name in _NAMES if "samples" in name or "warmup" in name)


def migrate_row(data: Mapping[str, object], version: int) -> dict[str, object]:
    """The parsed JSON of a row of version 1, 2 or 3 as that of a row of ``version``.

    The samples become the one round of one sitting that began with the run. Its warm-ups count as settled, but for the
    latency's where the note says that it did not; how the machine was is not known. A p99 of fewer samples than it is
    given from today is left out.

    Raises:
        ArtifactError: a field that is gone has not the type that it had, or stands without its fellows.
    """
    old = codec.decode(_OneProcess, {name: data[name] for name in _NAMES if name in data})
    row = {name: value for name, value in data.items() if name not in _GONE}
    row["schema_version"] = version
    if old.samples_s is None:
        return row
    if len(old.samples_s) < intervals.MIN_SAMPLES[0.99]:
        row["p99_s"] = row["p99_interval_s"] = None
    row["sittings"] = [codec.encode(_build_samples(old, old.samples_s))]
    return row


def _build_samples(old: _OneProcess, samples_s: tuple[float, ...]) -> ProcessSamples:
    if old.load_s is None or old.first_s is None:
        raise ArtifactError(f"field {'load_s' if old.load_s is None else 'first_s'!r} is missing beside 'samples_s'")
    device = None
    if old.device_samples_s is not None:
        device = _series(old.device_samples_s, old.device_warmup_s)
    return ProcessSamples(
        load_s=old.load_s,
        first_s=old.first_s,
        peak_bytes=old.peak_bytes,
        baseline_bytes=old.baseline_bytes,
        starts_s=(0.0,),
        latency=_series(samples_s, old.warmup_s, settled=NOT_SETTLED not in (old.note or "")),
        compute=_series(old.compute_samples_s or (), old.compute_warmup_s),
        device=device,
    )


def _series(samples_s: tuple[float, ...], warmup_s: tuple[float, ...] | None, settled: bool = True) -> Series:
    return Series(warmup_s or (), settled, (samples_s,) if samples_s else ())
