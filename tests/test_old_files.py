"""Files that version 0.1 wrote are opened, and say what they said.

``fixtures/version-0.1/README.md`` tells what they are and which commands wrote them.
"""

from __future__ import annotations

import io
import json
import lzma
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import runtimes
from benchmarks.accuracy import flips, packing, predictions
from benchmarks.cli import rbench
from benchmarks.compare import integrity
from benchmarks.compare.compare import Limits, compare
from benchmarks.load.figures import conditions_of
from benchmarks.machine.disturbances import disturbances, disturbances_of_all
from benchmarks.paper.experiments import curves, degradation
from benchmarks.paper.training import corpus, loop, schedule
from benchmarks.paper.training import run as runs
from benchmarks.records import findings, store
from benchmarks.records.result import Row
from benchmarks.records.subject import is_reference
from benchmarks.report import comparison as view
from benchmarks.report import load as loadtable
from benchmarks.report import terminal
from benchmarks.report.csv_export import csv_text
from benchmarks.stats import comparison as statistics
from benchmarks.stats import intervals as statistics_intervals
from exporter import cli
from exporter.network import ExportListener
from runtimes import Artifact, codec
from runtimes.parity import LogitComparison, logits_of
from runtimes.processors import usable_processors

OLD = Path(__file__).parent / "fixtures" / "version-0.1"

TAKEN = ("demo", "again", "broken", "noise", "tune")
LOADS = ("load", "shapes")
OLDER = ("schema-1", "schema-2", "schema-3")
ALL = (*TAKEN, *LOADS, *OLDER)

SAMPLES = ("environment", "sittings", "answers")
SAMPLES_OF_LOAD = ("services_s", "responses_s", "warmup_s", "conditions")
"""What figures are derived from, and is not among those that were recorded."""

COMPARED = {
    "demo-again": ("demo", "again", Limits()),
    "demo-again-allowed": ("demo", "again", Limits(slowdown=4.0, missing=True)),
    "demo-broken": ("demo", "broken", Limits()),
    "load-shapes": ("load", "shapes", Limits(missing=True)),
    "schema-2-3": ("schema-2", "schema-3", Limits(across=("sha256",))),
}

RUNTIMES = {
    "small-basic.onnx": ("onnxruntime", "openvino"),
    "small-basic.int8.onnx": ("onnxruntime", "openvino"),
    "small-basic.raw.fp16.onnx": ("onnxruntime", "openvino"),
    "small-basic.bf16.onnx": ("openvino",),
    "small-bottleneck.onnx": ("onnxruntime",),
    "small-basic.pt2": ("pytorch",),
    "resnet20.raw.int8.onnx": ("onnxruntime",),
    "tuned.onnx": ("onnxruntime", "openvino"),
}
"""By artifact, on which it is opened here."""

PAIRS = [(name, runtime) for name, names in RUNTIMES.items() for runtime in names]

SAME = 1e-12
"""Relative: other processors' logarithms may differ in the last bit."""

SILENT = ExportListener(step=lambda _: None, notice=lambda _: None)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with every ``.xz`` file unpacked. Not to be changed."""
    folder = tmp_path_factory.mktemp("old") / "files"
    shutil.copytree(OLD, folder)
    for packed in folder.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return folder


@pytest.fixture
def beside(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of results, which the commands are given in."""
    monkeypatch.chdir(unpacked / "results")
    return unpacked / "results"


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _figures(row: Row) -> dict[str, object]:
    """All that is in a row but its samples, as JSON has it."""
    data = json.loads(codec.dumps(row))
    kept = {name: value for name, value in data.items() if name not in SAMPLES}
    if row.load is not None:
        kept["load"] = {name: value for name, value in data["load"].items() if name not in SAMPLES_OF_LOAD}
    return kept


@pytest.mark.parametrize("name", ALL)
def test_every_figure_is_read_as_it_was_written(name: str, beside: Path) -> None:
    rows = store.read(beside / name / "results.jsonl")
    assert [_figures(row) for row in rows] == json.loads((beside / name / "figures.json").read_text())
    for row in rows:
        assert bool(row.sittings or row.load) == (row.status == "ok")


def test_the_files_hold_what_can_come_of_a_configuration(beside: Path) -> None:
    rows = [row for name in ALL for row in store.read(beside / name / "results.jsonl")]
    assert {row.status for row in rows} == {"ok", "failed", "skipped", "error"}
    assert {row.runtime for row in rows} >= {"pytorch", "onnxruntime", "openvino"}
    assert {row.precision for row in rows} >= {"fp32", "int8", "bf16"}
    shapes = {row.load.shape for row in rows if row.load is not None}
    assert shapes == {"closed", "open", "paced", "clients", "batches", "cold"}
    assert {len(row.sittings) for row in rows} == {0, 1, 3}
    assert any(row.p99_s for row in rows)
    assert any(row.answers is not None and row.flips is not None and row.flips.near_ties for row in rows)


@pytest.mark.parametrize("name", TAKEN)
def test_every_figure_comes_of_the_samples(name: str, beside: Path) -> None:
    rows = store.read(beside / name / "results.jsonl")
    for row in rows:
        integrity.check(row, name, rows)
        if row.status == "ok":
            _check_times(row)
            _check_beside(row, rows)


def _check_times(row: Row) -> None:
    clocks = {
        "": [sitting.latency for sitting in row.sittings],
        "compute_": [sitting.compute for sitting in row.sittings],
        "image_": [sitting.image for sitting in row.sittings if sitting.image is not None],
    }
    for clock, series in clocks.items():
        processes = [one.rounds_s for one in series]
        samples = statistics_intervals.together(processes)
        quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999} if clock == "" else {"p50": 0.5}
        given = [q for q in quantiles.values() if statistics_intervals.enough_for(samples, q)]
        intervals = dict(
            zip(
                given, statistics_intervals.quantile_intervals(processes, given, row.seed) if given else (), strict=True
            )
        )
        for word, q in quantiles.items():
            value, interval = getattr(row, f"{clock}{word}_s"), getattr(row, f"{clock}{word}_interval_s")
            assert (value is not None) == (interval is not None) == (q in given)
            if q in given:
                assert value == statistics_intervals.quantile(samples, q)
                assert interval == pytest.approx(intervals[q], rel=SAME)
    assert row.disturbances == disturbances_of_all([sitting.conditions for sitting in row.sittings], row.threads)


def _check_beside(row: Row, rows: tuple[Row, ...]) -> None:
    """The figures that are taken against the reference row of the same run and network."""
    if is_reference(row.runtime, row.precision):
        assert (row.ratio, row.ratio_interval, row.verdict) == (1.0, (1.0, 1.0), None)
    every = [one for one in rows if is_reference(one.runtime, one.precision) and one.status == "ok"]
    own = next((one for one in every if one.batch == row.batch), None)
    if own is None:
        assert (row.ratio, row.verdict) == (None, None)
    elif own is not row:
        theirs, mine = ([sitting.latency.rounds_s for sitting in one.sittings] for one in (own, row))
        compared = statistics.compare_paired if own.field == row.field else statistics.compare_unpaired
        taken = compared(theirs, mine, seed=row.seed)
        assert row.ratio == pytest.approx(taken.ratio, rel=SAME)
        assert row.ratio_interval == pytest.approx(taken.interval, rel=SAME)
        assert row.verdict == taken.verdict
    answered = next((one for one in every if one.answers is not None), None)
    if row.answers is None:
        assert (row.images, row.top1, row.agreement, row.drop, row.flips) == (None,) * 5
        return
    here = packing.unpack_predictions(row.answers)
    assert packing.pack_predictions(here, row.answers.labels) == row.answers
    assert row.images == len(here.indices)
    shares = {"top1": predictions.top1(here), "top5": predictions.top5(here)}
    if answered is not None and answered.answers is not None:
        reference = packing.unpack_predictions(answered.answers)
        shares |= {"agreement": predictions.agreement(here, reference), "drop": predictions.drop(here, reference)}
        assert row.flips == (None if answered is row else flips.flips(here, reference))
    for name in ("top1", "top5", "agreement", "drop"):
        share = shares.get(name)
        assert getattr(row, name) == (None if share is None else share.value)
        assert getattr(row, f"{name}_interval") == (None if share is None else share.interval)


@pytest.mark.parametrize("name", LOADS)
def test_every_figure_of_a_load_comes_of_its_requests(name: str, beside: Path) -> None:
    rows = store.read(beside / name / "results.jsonl")
    for row in rows:
        assert row.load is not None
        integrity.check(row, name, rows)
        samples, cold = row.load.responses_s, row.load.shape == "cold"
        processes = [[[sample]] for sample in samples] if cold else [[samples]]
        for word, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
            value, interval = getattr(row, f"{word}_s"), getattr(row, f"{word}_interval_s")
            assert (value is not None) == statistics_intervals.enough_for(samples, q)
            if value is not None:
                assert value == statistics_intervals.quantile(samples, q)
        given = [q for q in statistics_intervals.MIN_SAMPLES if statistics_intervals.enough_for(samples, q)]
        found = [row.p50_interval_s, row.p90_interval_s, row.p99_interval_s, row.p999_interval_s]
        intervals = statistics_intervals.quantile_intervals(processes, given, row.seed)
        for interval, again in zip([one for one in found if one is not None], intervals, strict=True):
            assert interval == pytest.approx(again, rel=SAME)
        assert row.images_per_s == row.batch * row.load.achieved_per_s
        about = conditions_of(row, row.load)
        assert row.disturbances == (None if about is None else disturbances(about, row.threads * row.load.clients))


@pytest.mark.parametrize("name", ALL)
def test_spreadsheet_markdown_and_table_are_the_same(name: str, beside: Path) -> None:
    rows = store.read(beside / name / "results.jsonl")
    assert csv_text(rows) == (beside / name / "results.csv").read_text()
    done = CliRunner().invoke(rbench, ["report", name, "--markdown", "-"], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (0, (beside / name / "report.md").read_text())
    text = io.StringIO()
    if name in LOADS:
        terminal.print_sections(loadtable.sections(rows), rows, loadtable.MEANING, text, True)
    else:
        terminal.print_table(rows, text)
    assert text.getvalue() == (beside / name / "table.txt").read_text()


@pytest.mark.parametrize("name", COMPARED)
def test_a_comparison_comes_out_as_it_did(name: str, beside: Path) -> None:
    old, new, limits = COMPARED[name]
    found, text, told = compare(old, new, limits), io.StringIO(), beside.parent / "compare"
    view.print_report(found, text)
    assert text.getvalue() == (told / f"{name}.txt").read_text()
    assert view.as_markdown(found) == (told / f"{name}.md").read_text()
    assert _rounded(json.loads(codec.dumps(found))) == _rounded(json.loads((told / f"{name}.json").read_text()))


def _rounded(value: object) -> object:
    """With eleven digits: see ``SAME``."""
    if isinstance(value, float):
        return float(f"{value:.11g}")
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return {name: _rounded(one) for name, one in value.items()} if isinstance(value, dict) else value


def test_merged_rows_are_the_same_rows(beside: Path, tmp_path: Path) -> None:
    every = [row for name in ALL for row in store.read(beside / name / "results.jsonl")]
    done = CliRunner().invoke(rbench, ["merge", *ALL, "-o", str(tmp_path / "all.jsonl")], catch_exceptions=False)
    assert done.exit_code == 0
    assert list(store.read(tmp_path / "all.jsonl")) == every


@pytest.mark.parametrize(("name", "runtime"), PAIRS)
def test_an_artifact_answers_as_its_vectors_say(name: str, runtime: str, unpacked: Path) -> None:
    with runtimes.open(unpacked / "artifacts" / name, backend=runtime, threads=1) as opened:
        manifest, vectors = opened.artifact.manifest, opened.artifact.vectors()
        assert manifest is not None
        assert manifest.parity is not None
        size = opened.inputs[0].shape[0]
        logits = logits_of(opened, vectors.inputs, size if isinstance(size, int) else len(vectors.inputs))
        # What narrow arithmetic gives away is in the record; a processor may round otherwise.
        allowed = 1e-4 if manifest.precision == "fp32" else 1.5 * manifest.parity.relative_difference + 1e-3
        assert LogitComparison.compare(logits, vectors.logits).relative_difference <= allowed
        assert np.array_equal(logits.argmax(1), vectors.logits.argmax(1)) or manifest.precision != "fp32"


@pytest.mark.parametrize("name", [*RUNTIMES, "small-basic.engine"])
def test_an_artifact_is_inspected_and_verified(name: str, unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unpacked / "artifacts")
    shown = CliRunner().invoke(cli.cli, ["inspect", name], catch_exceptions=False)
    lines = [line for line in shown.stdout.splitlines() if not line.startswith(("layers:", "  "))]
    assert lines == (unpacked / "inspected" / f"{name}.txt").read_text().splitlines()
    if name in RUNTIMES:
        words = ["verify", name, "--runtime", RUNTIMES[name][0], "--threads", "1"]
        assert CliRunner().invoke(cli.cli, words, catch_exceptions=False).exit_code == 0


def test_an_engine_is_known_by_its_manifest(unpacked: Path) -> None:
    artifact = Artifact.read(unpacked / "artifacts" / "small-basic.engine")
    artifact.check_digest()
    assert artifact.vectors().logits.shape == (7, 10)
    assert artifact.manifest is not None
    engine = artifact.manifest.engine
    assert engine is not None
    assert (engine.flavor, engine.version, engine.onnx) == ("rtx", "1.7.1.116", "small-basic.onnx")
    assert [(one.least, one.best, one.most) for one in engine.profiles] == [(1, 4, 4)]
    parent = Artifact.read(unpacked / "artifacts" / "small-basic.onnx").manifest
    assert parent is not None
    assert artifact.manifest.parent == parent.sha256


@pytest.mark.skipif(usable_processors() < 2, reason="it was tuned for two processors")
def test_a_tuned_artifact_opens_as_it_was_tuned(unpacked: Path) -> None:
    path = unpacked / "artifacts" / "tuned.onnx"
    manifest = Artifact.read(path).manifest
    assert manifest is not None
    assert manifest.tuning is not None
    best = max(store.read(unpacked / "results" / "tune" / "results.jsonl"), key=lambda row: row.images_per_s or 0.0)
    about = (best.runtime, best.device, best.threads, best.batch, best.p50_s, best.images_per_s)
    tuning = manifest.tuning
    assert about == (
        *(tuning.runtime, tuning.device, tuning.threads, tuning.batch),
        *(tuning.p50_s, tuning.images_per_s),
    )
    with runtimes.open(path) as opened:
        ran = opened.description
    assert (ran.backend, ran.device, ran.threads) == ("onnxruntime", "cpu", 2)


def test_a_classifier_prepares_pixels_as_the_manifest_says(unpacked: Path) -> None:
    with runtimes.Classifier.open(unpacked / "artifacts" / "resnet20.raw.int8.onnx", threads=1) as classifier:
        (found,) = classifier.predict([np.zeros((28, 28, 3), np.uint8)])
    assert found.label in {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"}


def test_a_finished_training_run_is_read(unpacked: Path) -> None:
    folder = unpacked / "training" / "finished"
    run, points = runs.open_run(folder), runs.curve(folder)
    assert run.outcome is not None
    assert run.outcome.test_error == points[-1].test_error
    assert [point.iteration for point in points] == list(range(2, 33, 2))
    iteration, state = runs.state_of(folder)
    assert iteration == run.identity.recipe.iterations == 32
    kept = runs.states_of(folder)
    assert [number for number, _ in kept] == [0, 16, 32]
    assert all(torch.equal(kept[-1][1][name], tensor) for name, tensor in state.items())


@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_training_run_goes_on_to_the_same_end(unpacked: Path, tmp_path: Path) -> None:
    whole, folder = unpacked / "training" / "finished", tmp_path / "run"
    shutil.copytree(unpacked / "training" / "interrupted", folder)
    run, begun = runs.open_run(folder), runs.curve(folder)
    iteration, _ = runs.state_of(folder)
    assert (run.outcome, iteration, begun[-1].iteration) == (None, 16, 16)
    recipe, arithmetic = run.identity.recipe, run.sittings[0].arithmetic
    images = corpus.load(corpus.Source("fashion-mnist-sample", limit=320, size=28), recipe.held_out, recipe.batch)
    assert images.digest == run.identity.corpus
    data = loop.on_device(images, recipe, run.identity.variant, arithmetic)
    (ended,) = schedule.drive(
        [loop.TrainingJob(folder, run.identity, arithmetic)], data, SILENT, loop.Pace(states=2)
    )
    expected = runs.open_run(whole)
    assert ended.identity == expected.identity
    assert ended.outcome is not None
    assert expected.outcome is not None
    assert ended.outcome.test_error == pytest.approx(expected.outcome.test_error, abs=0.02)  # the same on one machine
    points, others = ([replace(point, elapsed_s=0.0) for point in runs.curve(place)] for place in (folder, whole))
    assert points[: len(begun)] == others[: len(begun)]
    assert [point.loss for point in points] == pytest.approx([point.loss for point in others], rel=1e-2)
    assert runs.state_of(folder)[0] == 32


def test_findings_are_read_and_come_of_their_runs(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unpacked / "training")
    found = findings.read(Path("experiment/degradation.findings.json"))
    folders = [Path("experiment/runs") / f"{name}-seed{seed}" for seed in range(2) for name in ("plain20", "resnet20")]
    again = degradation.findings(curves.gather_runs(folders), found.provenance.command)
    assert replace(again, provenance=found.provenance) == found
    assert replace(again.provenance, time=found.provenance.time) == found.provenance
    assert findings.read(Path("experiment/responses.findings.json")).experiment == "responses"
    done = CliRunner().invoke(rbench, ["report", "experiment", "--markdown", "-"], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (0, Path("experiment/report.md").read_text())
