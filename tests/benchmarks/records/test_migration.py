from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import packing
from benchmarks.analysis.figures import Figures
from benchmarks.records import migration, result, store
from benchmarks.records.identity import describe_baseline
from benchmarks.records.result import Estimate
from benchmarks.records.samples import Series
from runtimes import codec
from runtimes.errors import ArtifactError
from tests.benchmarks.comparisons import predicting
from tests.benchmarks.records.old_rows import NOTHING, SAMPLES, pack_as_version_4, row, written
from tests.benchmarks.results import BUSY, FASTER, IDLE, REFERENCE
from tests.refusals import refuses

MISSING_REASON = {"status": "skipped", "reason": "openvino is not installed", "runtime": "openvino"}
NO_FIGURES = dict.fromkeys(
    ("p50_s", "p50_interval_s", "p90_s", "p99_s", "compute_p50_s", "images_per_s", "ratio", "ratio_interval", "top1")
)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_samples_become_one_round_of_one_process(tmp_path: Path, version: int) -> None:
    (read,) = store.read(written(tmp_path / "r.jsonl", version))
    (process,) = read.samples
    assert process.latency == Series((0.002, 0.0015), True, (SAMPLES,))
    assert process.compute == Series((0.001,), True, ((0.0009, 0.00095, 0.0009),))
    assert (process.device, process.image, process.conditions, process.starts_s) == (None, None, None, (0.0,))
    assert (process.load_s, process.first_s) == (0.21, 0.004)
    assert (process.peak_bytes, process.baseline_bytes) == (187_200_000, 120_000_000)
    assert read.schema_version == result.SCHEMA_VERSION
    assert (read.identity.subject is None) == (version == 1)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_older_figures_are_those_that_were_recorded(tmp_path: Path, version: int) -> None:
    (read,) = store.read(written(tmp_path / "r.jsonl", version))
    figures = Figures(read)
    assert read.recorded is not None
    assert read.recorded.estimates["p50"] == Estimate(0.00041, 0.000405, 0.000416)
    assert read.recorded.estimates["p90"] == Estimate(0.00044)
    assert figures.p50 == Estimate(0.00041)  # one process gives no interval
    assert figures.ratio == Estimate(6.1)
    assert figures.validity_reason is not None
    assert figures.validity_reason.code == "processes-too-few"
    assert (figures.images, figures.images_per_s) == (10_000, 2400.0)
    assert figures.top1_change == (None if version == 1 else Estimate(-0.0012, -0.0029, 0.0005))
    assert (figures.verdict, figures.warnings, figures.disturbances) == (None, (), None)


def test_a_p99_is_given_from_as_many_samples_as_now(tmp_path: Path) -> None:
    assert Figures(store.read(written(tmp_path / "r.jsonl", 3))[0]).p99 is None
    many = store.read(written(tmp_path / "r.jsonl", 3, samples_s=SAMPLES * 10))[0]
    assert Figures(many).p99 == Estimate(0.00052)


def test_what_a_gpu_told_is_kept(tmp_path: Path) -> None:
    timed = {"device_samples_s": (0.0003, 0.0004), "device_warmup_s": (0.0005,)}
    told = {"gpu_before": codec.encode(IDLE), "gpu_after": codec.encode(BUSY), "energy_per_image_j": 0.0123}
    (read,) = store.read(written(tmp_path / "r.jsonl", 3, **timed, **told))
    assert read.samples[0].device == Series((0.0005,), True, ((0.0003, 0.0004),))
    assert (read.gpu.before, read.gpu.after, read.gpu.energy_per_image_j) == (IDLE, BUSY, 0.0123)


def test_an_unsettled_warm_up_is_known_by_its_note(tmp_path: Path) -> None:
    note = f"no test vectors; {migration.NOT_SETTLED}"
    (read,) = store.read(written(tmp_path / "r.jsonl", 3, note=note))
    assert (read.samples[0].latency.settled, read.samples[0].compute.settled, read.note) == (False, True, note)


def test_a_row_without_samples_is_a_result_without_any(tmp_path: Path) -> None:
    (read,) = store.read(written(tmp_path / "r.jsonl", 3, **NOTHING, **NO_FIGURES, **MISSING_REASON))
    assert (read.status, str(read.reason), read.samples) == ("skipped", "openvino is not installed", ())
    assert (read.recorded, Figures(read).p50, Figures(read).ratio) == (None, None, None)


def test_figures_of_version_4_come_of_the_samples(tmp_path: Path) -> None:
    (read,) = store.read(written(tmp_path / "r.jsonl", 4, p50_s=99.0, warnings=["its processes differ: 1 and 2 ms"]))
    assert read.samples == FASTER.result.samples
    figures = Figures(read)
    assert figures.p50 is not None
    assert figures.p50.value == 0.00041
    assert figures.warnings == ()


@pytest.mark.parametrize("there", [True, False])
def test_figures_against_a_reference_stay_without_it(tmp_path: Path, there: bool) -> None:
    reference = row(4, runtime="pytorch", precision="fp32", sittings=codec.encode(REFERENCE.result.samples))
    lines = [row(4), *([reference] if there else [])]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = store.read(path)
    figures = Figures.of(read[0], read)
    assert figures.ratio is not None
    assert (figures.ratio == Estimate(6.1, 5.95, 6.21)) == (not there)
    assert figures.verdict == "faster"
    assert figures.top1_change == Estimate(-0.0012, -0.0029, 0.0005)  # the reference has no predictions here


def test_warnings_of_workers_keep_their_codes(tmp_path: Path) -> None:
    said = ["all inputs are the same", "3 of 10 inputs are one value throughout", "the latency drifted by +9.0% from"]
    (read,) = store.read(written(tmp_path / "r.jsonl", 4, warnings=said))
    assert [warning.code for warning in read.warnings] == ["inputs-equal", "inputs-flat"]


def test_packed_predictions_of_version_4_are_packed_anew(tmp_path: Path) -> None:
    given = predicting(930)
    (read,) = store.read(written(tmp_path / "r.jsonl", 4, answers=pack_as_version_4(given)))
    assert read.predictions == packing.pack_predictions(given, None)
    figures = Figures(read)
    assert (figures.images, figures.top1 and figures.top1.value) == (1000, 0.93)


def _spoil(packed: dict[str, Any], position: int, value: int) -> dict[str, Any]:
    content = bytearray(zlib.decompress(base64.b64decode(packed["packed"])))
    content[position] = value
    return {**packed, "packed": base64.b64encode(zlib.compress(bytes(content))).decode()}


DAMAGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no base64": lambda good: {**good, "packed": "not base64!"},
    "no deflate": lambda good: {**good, "packed": base64.b64encode(b"no deflate").decode()},
    "cut short": lambda good: {**good, "packed": good["packed"][:-8]},
    "nothing": lambda good: {**good, "packed": ""},
    "too few images": lambda good: {**good, "images": 3},
    "far too many images": lambda good: {**good, "images": 10**12},
    "other images": lambda good: {**good, "asked": "0" * 64},
    "flags": lambda good: _spoil(good, 0, 7),
    "a place": lambda good: _spoil(good, 8, 255),
    "a class": lambda good: _spoil(good, 33, 10),
    "a margin": lambda good: _spoil(good, -1, 0xBC),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_predictions_of_version_4_are_refused(tmp_path: Path, case: str) -> None:
    good = pack_as_version_4(predicting(3, images=4))
    store.read(written(tmp_path / "r.jsonl", 4, answers=good))
    with refuses(ArtifactError, "predictions-damaged", "line 1"):
        store.read(written(tmp_path / "r.jsonl", 4, answers=DAMAGES[case](good)))


def test_a_bomb_of_version_4_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inflated: list[int] = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self.unpacker = real()

        def decompress(self, data: bytes, most: int) -> bytes:
            content = self.unpacker.decompress(data, most)
            inflated.append(len(content))
            return content

        def __getattr__(self, name: str) -> object:
            return getattr(self.unpacker, name)

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    good = pack_as_version_4(predicting(2, images=2))
    bomb = {**good, "packed": base64.b64encode(zlib.compress(bytes(50_000_000))).decode()}
    with refuses(ArtifactError, "predictions-damaged", "2 images"):
        store.read(written(tmp_path / "r.jsonl", 4, answers=bomb))
    assert inflated == [1 + 2 * 12 + 1 + 1]


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"samples_s": [0.001, "fast"]}, "field-type-mismatch", "rounds_s[0][1]"),
        ({"samples_s": 0.001}, "field-type-mismatch", "samples_s"),
        ({"load_s": None}, "field-type-mismatch", "load_s"),
        ({"first_s": None}, "field-type-mismatch", "first_s"),
        ({"p50_interval_s": [1.0]}, "field-type-mismatch", "p50_interval_s"),
        ({"threads": "two"}, "field-type-mismatch", "threads"),
        ({"median_s": 0.001}, "field-unknown", "median_s"),
    ],
)
def test_an_older_row_is_checked_strictly(tmp_path: Path, changes: dict[str, object], code: str, field: str) -> None:
    with refuses(ArtifactError, code, "line 1", field):
        store.read(written(tmp_path / "r.jsonl", 3, **changes))


@pytest.mark.parametrize("changes", [{"roof": 1}, {"warnings": "all"}, {"sittings": None}, {"answers": []}])
def test_a_row_of_version_4_is_checked_strictly(tmp_path: Path, changes: dict[str, object]) -> None:
    with refuses(ArtifactError, "field-type-mismatch", "line 1"):
        store.read(written(tmp_path / "r.jsonl", 4, **changes))


def test_fields_of_one_version_are_refused_in_another(tmp_path: Path) -> None:
    with refuses(ArtifactError, "field-unknown", "samples_s"):
        store.read(written(tmp_path / "r.jsonl", 4, samples_s=[0.001]))
    line = json.loads(store.format_line(FASTER.result, {}))
    (tmp_path / "new.jsonl").write_text(json.dumps({**line, "p50_s": 0.001}))
    with refuses(ArtifactError, "field-unknown", "p50_s"):
        store.read(tmp_path / "new.jsonl")


OLD_LOAD = {"services_s": [0.1], "responses_s": [0.1], "achieved_per_s": 9.0}


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("shape", "arrivals", "now"),
    [
        ("closed", None, "single-stream"),
        ("open", "poisson", "server"),
        ("open", "fixed", "fixed-rate"),
        ("paced", None, "fixed-rate"),
        ("clients", None, "clients"),
        ("cold", None, "cold"),
    ],
)
def test_load_shapes_have_their_present_names(
    tmp_path: Path, version: int, shape: str, arrivals: str | None, now: str
) -> None:
    load = {**OLD_LOAD, "shape": shape, "arrivals": arrivals}
    path = tmp_path / "r.jsonl"
    if version == 4:
        written(path, 4, load=load, sittings=[])
    else:
        path.write_text(json.dumps({**codec.encode(FASTER.result), "samples": [], "load": load}))
    (result,) = store.read(path)
    assert result.load is not None
    assert result.load.shape == now


def test_a_result_without_a_baseline_is_compared_with_pytorch(tmp_path: Path) -> None:
    line = codec.encode(FASTER.result)
    for part, names in (("asked", ("baseline", "quick")), ("identity", ("file", "size_bytes", "size"))):
        for name in names:
            del line[part][name]
    (tmp_path / "early.jsonl").write_text(json.dumps(line))
    for path in (written(tmp_path / "r.jsonl", 4), tmp_path / "early.jsonl"):
        (result,) = store.read(path)
        assert (result.asked.baseline, result.asked.quick, result.identity.file) == (None, False, None)
        assert describe_baseline(result) == "pytorch fp32"


def test_margins_of_version_4_are_read_to_half_precision() -> None:
    given = predicting(5, images=9)
    found = migration.unpack_version_4(codec.decode(packing.PackedPredictions, pack_as_version_4(given)))
    np.testing.assert_array_equal(found.margins, given.margins.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found.best, given.best)
