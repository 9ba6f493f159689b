from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.records import migration, result, store
from benchmarks.records.result import Row
from benchmarks.records.samples import Series
from runtimes import codec
from runtimes.errors import ArtifactError
from tests.benchmarks.rows import FASTER, ON_A_GPU, REFERENCE, SKIPPED

NEW_IN_2 = ("subject", "drop", "drop_interval")
NEW_IN_3 = (
    *("cuda_graphs", "device_p50_s", "device_p50_interval_s", "device_samples_s", "device_warmup_s"),
    *("gpu_before", "gpu_after", "device_peak_bytes", "energy_per_image_j"),
)
NEW_IN_4 = (
    *("p999_s", "p999_interval_s", "image_p50_s", "image_p50_interval_s", "verdict", "warnings", "disturbances"),
    *("requested_threads", "requested_device", "duration_s", "processes", "rounds", "field", "command", "sittings"),
    *("load", "roof", "answers", "flips", "evaluated_per_s", "unreadable_names"),
)
GONE_IN_4 = (
    *("samples_s", "warmup_s", "compute_samples_s", "compute_warmup_s", "device_samples_s", "device_warmup_s"),
)

SAMPLES = tuple(0.001 + 1e-6 * (i * 37 % 101) for i in range(101))
"""Of one process; 101 were enough for p99 then."""

OLD: dict[str, object] = {
    "samples_s": SAMPLES,
    "warmup_s": (0.002, 0.0015),
    "compute_samples_s": (0.0009, 0.00095, 0.0009),
    "compute_warmup_s": (0.001,),
    "device_samples_s": None,
    "device_warmup_s": None,
}


def written(path: Path, row: Row, version: int, **changes: object) -> Path:
    """A line as rbench wrote it with that schema version."""
    data = {**codec.encode(row), **OLD, "schema_version": version, **changes}
    for first, names in ((2, NEW_IN_2), (3, NEW_IN_3), (4, NEW_IN_4)):
        if version < first:
            data = {name: value for name, value in data.items() if name not in names}
    if version < 3:
        del data["environment"]["gpus"]
    path.write_text(json.dumps(data) + "\n")
    return path


def sound(row: Row) -> Row:
    """The row without what version 4 has besides."""
    fresh = {field.name: field.default for field in dataclasses.fields(Row) if field.name in NEW_IN_4}
    return replace(row, **fresh)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_rows_of_older_versions_become_rows_of_one_sitting_of_one_round(tmp_path: Path, version: int) -> None:
    (row,) = store.read(written(tmp_path / "r.jsonl", FASTER, version))
    (sitting,) = row.sittings
    assert sitting.latency == Series((0.002, 0.0015), True, (SAMPLES,))
    assert sitting.compute == Series((0.001,), True, ((0.0009, 0.00095, 0.0009),))
    assert (sitting.device, sitting.image, sitting.conditions, sitting.starts_s) == (None, None, None, (0.0,))
    assert (sitting.load_s, sitting.first_s) == (FASTER.load_s, FASTER.first_s)
    assert (sitting.peak_bytes, sitting.baseline_bytes) == (FASTER.peak_bytes, FASTER.baseline_bytes)
    assert row.schema_version == result.SCHEMA_VERSION
    assert (row.subject is None) == (version == 1)
    assert row.p50_s == FASTER.p50_s
    if version == 3:
        assert replace(row, sittings=()) == replace(sound(FASTER), p99_s=None)


def test_a_p99_is_given_from_as_many_samples_as_now(tmp_path: Path) -> None:
    many = {"samples_s": SAMPLES * 10}
    assert store.read(written(tmp_path / "r.jsonl", FASTER, 3))[0].p99_s is None
    assert store.read(written(tmp_path / "r.jsonl", FASTER, 3, **many))[0].p99_s == FASTER.p99_s


def test_what_a_device_timed_is_kept(tmp_path: Path) -> None:
    timed = {"device_samples_s": (0.0003, 0.0004), "device_warmup_s": (0.0005,)}
    (row,) = store.read(written(tmp_path / "r.jsonl", ON_A_GPU, 3, **timed))
    assert row.sittings[0].device == Series((0.0005,), True, ((0.0003, 0.0004),))
    assert (row.gpu_before, row.energy_per_image_j) == (ON_A_GPU.gpu_before, ON_A_GPU.energy_per_image_j)


def test_a_warm_up_that_did_not_settle_is_known_by_its_note(tmp_path: Path) -> None:
    note = f"no test vectors; {migration.NOT_SETTLED}"
    (row,) = store.read(written(tmp_path / "r.jsonl", REFERENCE, 3, note=note))
    assert (row.sittings[0].latency.settled, row.sittings[0].compute.settled, row.note) == (False, True, note)


def test_a_row_without_samples_has_no_sitting(tmp_path: Path) -> None:
    nothing = dict.fromkeys(GONE_IN_4)
    (row,) = store.read(written(tmp_path / "r.jsonl", SKIPPED, 3, **nothing))
    assert row == sound(SKIPPED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_s": [0.001, "fast"]}, r"line 1: field 'samples_s\[1\]': expected float"),
        ({"samples_s": 0.001}, "line 1: field 'samples_s': expected a list"),
        ({"load_s": None}, "line 1: field 'load_s' is missing beside 'samples_s'"),
        ({"first_s": None}, "line 1: field 'first_s' is missing beside 'samples_s'"),
        ({"median_s": 0.001}, "line 1: unknown field 'median_s'"),
    ],
)
def test_an_older_row_is_checked_as_strictly(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        store.read(written(tmp_path / "r.jsonl", FASTER, 3, **changes))


def test_a_present_row_with_the_fields_of_an_older_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({**codec.encode(FASTER), "samples_s": [0.001]}))
    with pytest.raises(ArtifactError, match="unknown field 'samples_s'"):
        store.read(path)
