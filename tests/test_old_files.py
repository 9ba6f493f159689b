"""Files that version 0.1 wrote are opened, and say what they said.

``fixtures/version-0.1/README.md`` tells what they are and which commands wrote them.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import runtimes
from benchmarks.analysis.figures import Figures
from benchmarks.cli import rbench
from benchmarks.compare.compare import Limits, check_facts, compare
from benchmarks.format import milliseconds
from benchmarks.paper.experiments import curves
from benchmarks.paper.experiments.comparisons import degradation_findings
from benchmarks.paper.training import batches, corpus, loop
from benchmarks.paper.training import run as runs
from benchmarks.records import findings, store
from benchmarks.records.plan import FORMER_SHAPES
from benchmarks.report.comparison import comparison_document
from benchmarks.report.csv_export import COLUMNS, csv_text, value_at
from benchmarks.report.document import load_document, run_document
from benchmarks.stats.comparison import NO_DIFFERENCE
from exporter import cli
from exporter.document.terminal import as_text
from exporter.export_request import ExportListener
from runtimes import Artifact, codec
from runtimes.parity import LogitComparison, logits_of
from runtimes.processors import usable_processors
from tests.documents import numbers

OLD = Path(__file__).parent / "fixtures" / "version-0.1"

TAKEN = ("demo", "again", "broken", "noise", "tune")
LOADS = ("load", "shapes")
OLDER = ("schema-1", "schema-2", "schema-3")
ALL = (*TAKEN, *LOADS, *OLDER)

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


RENAMED = {"runtime": "backend", "runtime_version": "backend_version", "field": "group", "roof_share": "roofline_share"}
"""Columns that have another name than in version 0.1."""

AGAINST = ("drop", "drop_low", "drop_high")
"""Columns of the top-1 that was lost, in place of its change."""

TIMES = ("p50", "p90", "p99", "p999", "compute_p50", "device_p50", "image_p50", "ratio")
"""Figures that have an interval from three processes on."""

SENTENCES = ("warnings", "disturbances")
"""Columns whose wording is free: the number of sentences is compared."""

PARTS = ("gpu_before", "gpu_after", "roof", "flips", "load")
"""Objects in a row, whose fields are columns."""


def _shape(former: str, arrivals: str | None) -> str:
    """The present name of a load shape; one of version 0.1 at a fixed rate was called ``open`` or ``paced``."""
    return "fixed-rate" if arrivals == "fixed" else FORMER_SHAPES.get(former, former)


def flatten(row: dict[str, Any]) -> dict[str, Any]:
    """A row of version 0.1 by the names of today's columns."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if "interval" in name:
            ends = value or (None, None)
            flat |= {name.replace("interval", word): end for word, end in zip(("low", "high"), ends, strict=True)}
        elif name in PARTS:
            part = "changed_predictions" if name == "flips" else name
            flat |= {f"{part}_{inner}".replace("_interval", ""): each for inner, each in (value or {}).items()}
        elif name != "schema_version":
            flat[RENAMED.get(name, name)] = value
    value, low, high = (flat.pop(name, None) for name in AGAINST)
    changes = {"top1_change": value, "top1_change_low": high, "top1_change_high": low}
    flat |= {name: None if each is None else -each for name, each in changes.items()}
    flat = {RENAMED.get(name, name): each for name, each in flat.items()}
    if flat.get("verdict") == "tie":
        flat["verdict"] = NO_DIFFERENCE
    if flat.get("load_shape"):
        flat["load_shape"] = _shape(flat["load_shape"], flat["load_arrivals"])
    return {name: value for name, value in flat.items() if name in COLUMNS}


LATER_WARNINGS = {"speed-changed"}
"""Warnings that version 0.1 did not have."""


def columns(figures: Figures) -> dict[str, Any]:
    """All columns of a result, as JSON has them; reasons are their sentences."""
    values: dict[str, Any] = {heading: value_at(figures, path) for heading, path in COLUMNS.items()}
    for name in ("reason", "warnings", "disturbances"):
        reasons = values[name]
        if name != "reason" and reasons is not None:
            values[name] = [str(each) for each in reasons if each.code not in LATER_WARNINGS]
    values |= {
        "reason": values["reason"] and str(values["reason"]),
        "unreadable_names": values["unreadable_names"] or (),
    }
    return cast(dict[str, Any], json.loads(codec.dumps(values)))


@pytest.mark.parametrize("name", ALL)
def test_every_figure_comes_out_as_it_was_written(name: str, beside: Path) -> None:
    results = store.read(beside / name / "results.jsonl")
    written = [flatten(row) for row in json.loads((beside / name / "figures.json").read_text())]
    for figures, expected in zip(Figures.of_all(results), written, strict=True):
        found = columns(figures)
        for sentences in SENTENCES:
            found[sentences], expected[sentences] = (len(each[sentences] or ()) for each in (found, expected))
        if not figures.has_enough_processes and figures.result.load is None:
            gone = {f"{time}_{end}{unit}" for time in TIMES for end in ("low", "high") for unit in ("", "_s")}
            expected |= {heading: None for heading in expected if heading in {*gone, "verdict"}}
        if figures.is_reference:
            expected |= dict.fromkeys(("ratio_low", "ratio_high") if expected["ratio"] else ())
        if figures.result.load is not None and figures.result.load.shape != "cold":
            expected |= {heading: None for heading in expected if heading.endswith(("_low_s", "_high_s"))}
        assert {heading: found[heading] for heading in expected} == _approximately(expected)
        assert bool(figures.result.samples or figures.result.load) == (figures.result.status == "ok")
        assert (figures.result.recorded is not None) == (name in OLDER and figures.result.status == "ok")


def _approximately(value: Any) -> Any:
    """Equal to the last digit, but for the bits in which the logarithms of two processors differ."""
    if isinstance(value, float):
        return pytest.approx(value, rel=SAME)
    return {name: _approximately(one) for name, one in value.items()} if isinstance(value, dict) else value


def test_the_files_hold_what_can_come_of_a_configuration(beside: Path) -> None:
    every = [each for name in ALL for each in Figures.of_all(store.read(beside / name / "results.jsonl"))]
    results = [figures.result for figures in every]
    assert {result.status for result in results} == {"ok", "failed", "skipped", "error"}
    assert {result.identity.backend for result in results} >= {"pytorch", "onnxruntime", "openvino"}
    assert {result.identity.precision for result in results} >= {"fp32", "int8", "bf16"}
    shapes = {result.load.shape for result in results if result.load is not None}
    assert shapes == {"single-stream", "server", "fixed-rate", "clients", "batches", "cold"}
    assert {len(result.samples) for result in results} == {0, 1, 3}
    assert any(figures.p99 for figures in every)
    assert any(figures.changed_predictions is not None and figures.changed_predictions.near_ties for figures in every)


@pytest.mark.parametrize("name", [*TAKEN, *LOADS])
def test_no_facts_of_an_old_file_contradict_each_other(name: str, beside: Path) -> None:
    for read in store.read(beside / name / "results.jsonl"):
        check_facts(read, name)


@pytest.mark.parametrize("name", ALL)
def test_old_results_are_shown_as_markdown_spreadsheet_and_table(name: str, beside: Path) -> None:
    rows = Figures.of_all(store.read(beside / name / "results.jsonl"))
    done = CliRunner().invoke(rbench, ["report", name, "--markdown", "-"], catch_exceptions=False)
    shown = (load_document if name in LOADS else run_document)(rows, explain=True)
    sheet = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert (done.exit_code, len(sheet)) == (0, len(rows))
    for figures, line in zip(rows, sheet, strict=True):
        assert line["run"] == figures.result.run
        for text in (done.stdout, as_text(shown)):
            assert figures.result.identity.backend in text
            if figures.p50 is not None and figures.result.load is None:
                assert milliseconds(figures.p50.value) in text


@pytest.mark.parametrize("name", COMPARED)
def test_a_comparison_comes_out_as_it_did(name: str, beside: Path) -> None:
    old, new, limits = COMPARED[name]
    found = compare(old, new, limits)
    text = (beside.parent / "compare" / f"{name}.json").read_text()
    for former, present in {"open, poisson": "server", "paced": "fixed-rate", "closed": "single-stream"}.items():
        text = text.replace(f"load {former}", f"load {present}").replace(f'"{former}"', f'"{present}"')
    expected = json.loads(text)
    expected["limits"]["strict"] = False
    for row in expected["rows"]:
        row["backend"] = row.pop("runtime")
        for change in filter(None, (row["p50"], row["p99"])):
            change["verdict"] = NO_DIFFERENCE if change["verdict"] == "tie" else change["verdict"]
    rows = json.loads(codec.dumps(found))
    for row in (*rows["rows"], *expected["rows"]):
        row |= {kind: len(row[kind]) for kind in ("regressions", "remarks")}
    assert _rounded(rows) == _rounded(expected)
    assert ("REGRESSION" in as_text(comparison_document(found))) != found.passed


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


def _shapes(text: str) -> list[str]:
    """All sizes in a text, such as ``32 x 32`` and ``(batch, 10)``."""
    return re.findall(r"\d+ x \d+|\(\w+(?:, \d+)+\)", text)


@pytest.mark.parametrize("name", [*RUNTIMES, "small-basic.engine"])
def test_an_artifact_is_inspected_and_verified(name: str, unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unpacked / "artifacts")
    shown = CliRunner().invoke(cli.cli, ["inspect", name], catch_exceptions=False)
    manifest = Artifact.read(Path(name)).manifest
    assert manifest is not None
    written = (unpacked / "inspected" / f"{name}.txt").read_text()
    figures = {manifest.sha256[:12], manifest.precision, str(manifest.opset or ""), manifest.weights.source or ""}
    assert shown.exit_code == 0
    assert all((each in shown.stdout) == (each in written) for each in figures)
    assert {*_shapes(written)} <= {*_shapes(shown.stdout)}
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
    every = Figures.of_all(store.read(unpacked / "results" / "tune" / "results.jsonl"))
    best = max(every, key=lambda figures: figures.images_per_s or 0.0)
    of, ran = best.result.identity, best.result.ran
    assert best.p50 is not None
    about = (of.backend, ran.device, ran.threads, of.batch, best.p50.value, best.images_per_s)
    tuning = manifest.tuning
    assert about == (
        *(tuning.runtime, tuning.device, tuning.threads, tuning.batch),
        *(tuning.p50_s, tuning.images_per_s),
    )
    with runtimes.open(path) as opened:
        description = opened.description
    assert (description.backend, description.device, description.threads) == ("onnxruntime", "cpu", 2)


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
    data = batches.on_device(images, recipe, run.identity.variant, arithmetic.device)
    (ended,) = loop.drive([loop.TrainingJob(folder, run.identity, arithmetic)], data, SILENT, loop.Pace(states=2))
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
    again = degradation_findings(curves.gather_runs(folders), found.provenance.command)
    assert replace(again, provenance=found.provenance, tables=found.tables, notes=found.notes) == found
    assert again.tables[0].rows == tuple(row[:-1] for row in found.tables[0].rows)  # the paper's have a table now
    assert again.tables[1].rows == tuple((row[0], row[-1]) for row in found.tables[0].rows if row[-1] != "–")
    assert replace(again.provenance, time=found.provenance.time) == found.provenance
    assert findings.read(Path("experiment/responses.findings.json")).experiment == "responses"
    done = CliRunner().invoke(rbench, ["report", "experiment", "--markdown", "-"], catch_exceptions=False)
    assert done.exit_code == 0
    before = Path("experiment/report.md").read_text().replace("0.00025 of", "0.025 % of")
    assert set(numbers(before)) <= set(numbers(done.stdout))
