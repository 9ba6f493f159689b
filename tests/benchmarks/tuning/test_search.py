from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import runtimes
from benchmarks import cli
from benchmarks.analysis.figures import Figures
from benchmarks.commands.measure import tune as tune_command
from benchmarks.records import store
from benchmarks.records.request import BenchmarkRequest, PrecisionVariant, Refusal, RunListener
from benchmarks.report.tuning import tuning_document
from benchmarks.tuning import checks
from benchmarks.tuning import findings as found_so_far
from benchmarks.tuning import search as tune
from benchmarks.tuning.findings import TuningGoal, TuningResult
from benchmarks.tuning.pareto import ParetoPoint
from benchmarks.tuning.search import TuningSearch
from exporter.document.blocks import Table
from runtimes import Artifact
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import FileRecord, Manifest
from runtimes.errors import CheckFailedError, Reason, RexportError, UsageError
from tests.benchmarks.scripts import SCRIPT, artifact, foreign, with_batch
from tests.benchmarks.searches import TRIED, ScriptedHarness, searched, subject, typed
from tests.exporter.command_line import here
from tests.processes import default_interrupt
from tests.refusals import error_codes, refuses

LISTENER = RunListener(lambda *_: None, lambda _: None)
RBENCH = (sys.executable, "-m", "benchmarks.cli")


def describe(point: ParetoPoint) -> tuple[str, str | None, int, int]:
    """Backend, precision, threads and batch."""
    of = point.figures.result.identity
    return of.backend, of.precision, point.figures.result.ran.threads, of.batch


@pytest.fixture(autouse=True)
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_so_far, "usable_processors", lambda: 4)


def test_everything_is_tried_and_the_reference_first(tmp_path: Path) -> None:
    bench = ScriptedHarness({("openvino", "int8", 2, 1): 1.0}, {"int8": 0.002})
    found = searched(bench, subject(tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8")), TuningGoal())
    assert bench.asked[0] == ("pytorch", "fp32", 4, 1)
    expected = {
        (runtime, precision, threads, 1) for runtime in TRIED for precision in ("fp32", "int8") for threads in (1, 2, 4)
    }
    assert set(bench.asked[1:]) == expected
    assert len(bench.asked) == 13
    best = found.choice().best
    assert best is not None
    assert (describe(best), best.accuracy_drop.value) == (("openvino", "int8", 2, 1), 0.002)
    assert found.labelled
    assert found.left_out == {}


def test_inductor_is_never_tried(tmp_path: Path) -> None:
    bench = ScriptedHarness({}, {})
    searched(
        bench,
        subject(tmp_path, typed(tmp_path, "fp32")),
        TuningGoal(threads=(4,)),
        BenchmarkRequest(subjects=("resnet20",)),
    )
    assert {key[0] for key in bench.asked} == {"pytorch", *TRIED}


def test_on_a_gpu_neither_threads_nor_programs_are_searched(tmp_path: Path) -> None:
    bench = ScriptedHarness({}, {})
    of = subject(tmp_path, typed(tmp_path, "fp32"))
    program = PrecisionVariant("fp16", Artifact(tmp_path / "net.fp16.pt2", FORMATS["pt2"], None))
    request = BenchmarkRequest(subjects=("resnet20",), device="cuda", cuda_graphs=False)
    searched(bench, replace(of, programs=(program,)), TuningGoal(), request)
    assert [key for key in bench.asked if key[0] == "pytorch"] == [("pytorch", "fp32", 4, 1)]
    assert "inductor" not in {key[0] for key in bench.asked}
    assert {key[2] for key in bench.asked} == {4}
    assert not any(bench.graphs)
    assert TuningGoal(threads=(2, 1)).thread_counts("cuda") == (2, 1)


def test_what_is_beyond_the_bound_is_not_tried_further(tmp_path: Path) -> None:
    bench = ScriptedHarness({("onnxruntime", "int8", 4, 1): 0.1}, {"int8": 0.02})
    found = searched(
        bench, subject(tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8")), TuningGoal(max_drop=0.01)
    )
    assert [key for key in bench.asked if key[1] == "int8"] == [(runtime, "int8", 4, 1) for runtime in TRIED]
    assert list(found.left_out.values()) == [["onnxruntime int8", "openvino int8"]]
    best = found.choice().best
    assert best is not None
    assert best.figures.result.identity.precision == "fp32"
    assert len(found.choice().beyond) == 2


def test_each_trial_says_how_many_are_still_to_come(tmp_path: Path) -> None:
    """Of the four pairs one breaks and two are beyond the bound."""
    harness = ScriptedHarness({("onnxruntime", "fp32", 4, 1): -1.0}, {"int8": 0.02})
    of = subject(tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8"))
    searched(harness, of, TuningGoal(max_drop=0.01))
    assert harness.later == [13, 12, 11, 10, 9, 2, 1]


def test_throughput_tries_the_batches_before_fewer_threads(tmp_path: Path) -> None:
    bench = ScriptedHarness(
        {
            ("onnxruntime", "fp32", 4, 1): 1.0,
            ("onnxruntime", "fp32", 4, 8): 4.0,
            ("onnxruntime", "fp32", 4, 32): 32.0,
            ("onnxruntime", "fp32", 2, 8): 3.0,
        },
        {},
    )
    of, request = (
        subject(tmp_path, typed(tmp_path, "fp32")),
        BenchmarkRequest(subjects=("resnet20",), backends=("onnxruntime",), baseline="pytorch"),
    )
    found = searched(bench, of, TuningGoal("throughput"), request)
    assert bench.asked == [
        *(("pytorch", "fp32", 4, batch) for batch in (1, 8, 32)),
        *(("onnxruntime", "fp32", 4, batch) for batch in (1, 8, 32)),
        ("onnxruntime", "fp32", 2, 8),
        ("onnxruntime", "fp32", 1, 8),
    ]
    best = found.choice().best
    assert best is not None
    assert (describe(best)[2:], best.cost_s.value) == ((2, 8), 0.003 / 8)
    assert len(found.left_out) == 1


def test_a_pair_that_does_not_run_is_tried_once(tmp_path: Path) -> None:
    bench = ScriptedHarness({("onnxruntime", "fp32", 4, 1): -1.0}, {})
    gone = PrecisionVariant("bf16", Refusal("failed", Reason("refused", "bf16 failed its gate")))
    found = searched(bench, subject(tmp_path, typed(tmp_path, "fp32"), gone), TuningGoal())
    assert [key for key in bench.asked if key[0] == "onnxruntime"] == [
        ("onnxruntime", "fp32", 4, 1),
        ("onnxruntime", "bf16", 4, 1),
    ]
    failed = [result for result in found.results if result.status != "ok"]
    reasons = {(each.identity.backend, each.identity.precision, each.status): str(each.reason) for each in failed}
    assert reasons["onnxruntime", "fp32", "error"] == "it broke"
    assert {key for key in reasons if key[1] == "bf16"} == {(runtime, "bf16", "failed") for runtime in TRIED}


def test_without_labels_the_gates_error_counts(tmp_path: Path) -> None:
    bench = ScriptedHarness({("openvino", "int8", 4, 1): 0.5}, {}, labelled=False)
    of = subject(tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8", 0.25), data=None)
    found = searched(bench, of, TuningGoal(max_drop=0.0))
    assert not found.labelled
    drops = {(describe(point)[1], point.accuracy_drop.value) for point in found.candidates}
    assert drops == {("fp32", 0.0), ("int8", 0.25)}
    best = found.choice().best
    assert best is not None
    assert describe(best)[1:3] == ("int8", 4)
    assert tuning_document(found).sections[0].all_of(Table)[0].headings[-2] == "logit error %"


def test_a_reference_that_is_missing_leaves_the_gate(tmp_path: Path) -> None:
    bench = ScriptedHarness({("pytorch", "fp32", 4, 1): -1.0}, {"int8": 0.5})
    found = searched(bench, subject(tmp_path, typed(tmp_path, "int8", 0.125)), TuningGoal())
    assert not found.labelled
    assert {one.accuracy_drop.value for one in found.candidates} == {0.125}


def test_thread_counts_are_powers_of_two_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for usable, expected in ((1, (1,)), (2, (2, 1)), (6, (6, 4, 2, 1)), (8, (8, 4, 2, 1))):
        monkeypatch.setattr(found_so_far, "usable_processors", lambda usable=usable: usable)
        assert TuningGoal().thread_counts() == expected
    assert TuningGoal(threads=(1, 3, 1)).thread_counts() == (3, 1)


def test_exit_codes(tmp_path: Path) -> None:
    request = BenchmarkRequest(subjects=("resnet20",), backends=TRIED)
    of = subject(
        tmp_path, typed(tmp_path, "fp32"), PrecisionVariant("bf16", Refusal("failed", Reason("refused", "its gate")))
    )
    assert tune.exit_code(searched(ScriptedHarness({}, {}), of, TuningGoal()), request) == 0
    one_broken = ScriptedHarness({("openvino", "fp32", 4, 1): -1.0}, {})
    assert tune.exit_code(searched(one_broken, of, TuningGoal()), request) == 5  # it was asked for by name
    assert tune.exit_code(searched(one_broken, of, TuningGoal()), BenchmarkRequest()) == 0
    all_broken = ScriptedHarness({(runtime, "fp32", 4, 1): -1.0 for runtime in TRIED}, {})
    assert tune.exit_code(searched(all_broken, of, TuningGoal()), request) == 1
    with refuses(CheckFailedError, "nothing-within-bound", "0.50", "3.00", "--max-drop"):
        tune.exit_code(searched(ScriptedHarness({}, {"fp32": 0.03}), of, TuningGoal()), request)


def test_weights_in_files_of_their_own_are_a_row_and_not_copied(tmp_path: Path) -> None:
    whole, parted = typed(tmp_path, "int8"), typed(tmp_path, "fp32")
    assert isinstance(parted.made, Artifact)
    assert parted.made.manifest is not None
    large: Manifest = replace(parted.made.manifest, external=(FileRecord("x.data", "ab" * 32),))
    parted = replace(parted, made=replace(parted.made, manifest=large))
    found = checks.make_portable(subject(tmp_path, parted, whole)).typed
    assert isinstance(found[0].made, Refusal)
    assert found[0].made.status == "skipped"
    assert found[1] is whole


@pytest.mark.parametrize(
    ("make", "request_", "code", "value"),
    [
        (artifact, {"subjects": ()}, "tuning-needs-subject", ""),
        (artifact, {"backends": ("pytorch",)}, "backend-not-tunable", "pytorch"),
        (artifact, {"backends": ("inductor",)}, "backend-not-tunable", "inductor"),
        (artifact, {"backends": ("tensorflow",)}, "backend-unknown", "tensorflow"),
        (artifact, {"batches": (1, 2)}, "batches-not-comparable", "--batch"),
        (foreign, {}, "tuning-needs-manifest", "net.fake"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: object,
    request_: dict[str, tuple[str, ...]],
    code: str,
    value: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert callable(make)
    request = BenchmarkRequest(subjects=(str(make(tmp_path)),), precisions=("fp32",))
    with refuses(UsageError, code, value):
        request = replace(request, **request_)  # type: ignore[arg-type]
        list(tune.tune(request, TuningResult(TuningGoal()), LISTENER))
    assert [name for name in os.listdir(tmp_path) if "tuned" in name] == []


def test_a_pytorch_program_is_refused(pt2_artifact: Artifact, tmp_path: Path) -> None:
    request = BenchmarkRequest(subjects=(str(pt2_artifact.path),))
    with refuses(UsageError, "format-not-tunable", "pt2", pt2_artifact.path.name):
        list(tune.tune(request, TuningResult(TuningGoal(out=f"{tmp_path}/")), LISTENER))


@pytest.mark.parametrize(
    ("wrong", "code", "value"),
    [
        ({"max_drop": -0.1}, "drop-out-of-range", "-10"),
        ({"max_drop": float("nan")}, "drop-out-of-range", "nan"),
        ({"threads": (5,)}, "tuning-threads-out-of-range", "5"),
        ({"threads": (0,)}, "tuning-threads-out-of-range", "0"),
    ],
)
def test_impossible_aims_are_refused(wrong: dict[str, float], code: str, value: str) -> None:
    with refuses(UsageError, code, value):
        TuningGoal(**wrong)  # type: ignore[arg-type]


def test_a_fixed_batch_is_the_one_that_is_tried(tmp_path: Path) -> None:
    of = replace(subject(tmp_path, typed(tmp_path, "fp32")), fixed_batch=4)
    bench = ScriptedHarness({}, {})
    searched(bench, of, TuningGoal("throughput", threads=(1,)))
    assert {key[3] for key in bench.asked} == {4}


def rbench(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RBENCH, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


QUICK = ("--precision", "fp32", "--threads", 1, "--duration", 0.02, "--rounds", 2)
TIMED = replace(SCRIPT, delays_s=(0.001,))
"""So long that a busy machine cannot make it look undone."""


def test_the_command_prints_the_path_on_the_last_line(tmp_path: Path) -> None:
    out, lines, page = tmp_path / "best.fake", tmp_path / "lines.jsonl", tmp_path / "page.html"
    done = rbench("tune", artifact(tmp_path, TIMED), *QUICK, "-o", out, "--json", lines, "--page", page)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(out))
    assert "fake     fp32" in done.stdout
    assert page.read_text().count('<figure class="plot" data-kind="front">') == 1
    results = store.read(lines)
    assert [(each.identity.backend, each.status) for each in results] == [("pytorch", "skipped"), ("fake", "ok")]
    found = Artifact.read(out)
    assert found.manifest is not None
    tuning = found.manifest.tuning
    assert tuning is not None
    assert (tuning.runtime, tuning.threads, tuning.batch, tuning.objective) == ("fake", 1, 1, "latency")
    result = results[-1]
    p50 = Figures(result).p50
    assert p50 is not None
    assert tuning.p50_s == p50.value
    assert (result.asked.processes, result.asked.rounds, len(result.samples), result.roof) == (1, 2, 1, None)
    plan, configuration = done.stderr.splitlines()
    assert plan.startswith("Plan: up to 1 configuration, 1 process each; about ")
    assert configuration.split(" · ") == ["[1/1] fake fp32", "batch 1", "1 thread"]
    with runtimes.open(out) as runtime:
        assert runtime.description.threads == 1
    again = rbench("tune", artifact(tmp_path, TIMED), *QUICK, "-o", out)
    assert (again.returncode, again.stdout) == (2, "")
    assert len(error_codes(again.stderr)) == 1
    assert rbench("tune", artifact(tmp_path, TIMED), *QUICK, "-o", out, "--force").returncode == 0


def test_those_near_the_best_are_measured_again_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script sleeps as long with one thread as with two."""
    monkeypatch.setattr(tune, "NEAR", 10.0)  # however busy the machine is
    path, out = artifact(tmp_path, TIMED), tmp_path / "best.fake"
    findings = TuningResult(TuningGoal(threads=(1, 2), out=str(out)))
    request = BenchmarkRequest((str(path),), precisions=("fp32",), processes=1, rounds=4, duration_s=0.02)
    heard = list(tune.tune(request, findings, LISTENER))
    assert findings.artifact == Artifact.read(out)
    reference, *first, one, other = heard
    assert (reference.status, [each.ran.threads for each in first]) == ("skipped", [2, 1])
    assert one.asked.group == other.asked.group not in {each.asked.group for each in first}
    finals = [(each.status, each.asked.processes, len(each.samples), each.predictions) for each in (one, other)]
    assert finals == [("ok", 3, 3, None)] * 2
    assert findings.results == heard
    assert len(findings.candidates) == len(findings.finalists) == 2
    best = findings.choice().best
    assert best is not None
    assert best.figures.result in (one, other)


def test_what_fails_in_the_finals_is_not_chosen(tmp_path: Path) -> None:
    milliseconds = {("onnxruntime", "fp32", 4, 1): 1.0, ("openvino", "fp32", 4, 1): 1.0}
    of = subject(tmp_path, typed(tmp_path, "fp32"))
    bench, findings = ScriptedHarness(milliseconds, {}), TuningResult(TuningGoal())
    search = TuningSearch([of], BenchmarkRequest(("resnet20",), backends=TRIED, baseline="pytorch"), findings)
    for result in bench.measure(search.one_by_one()):
        findings.results.append(result)
    bench.milliseconds = {**milliseconds, ("onnxruntime", "fp32", 4, 1): -1.0}
    before = len(findings.results)
    for result in bench.measure(search.finals()):
        findings.results.append(result)
    assert [each.status for each in findings.results[before:]] == ["error", "ok"]
    assert bench.together == [(2, 3)]
    best = findings.choice().best
    assert best is not None
    assert (describe(best)[0], findings.choice().tied) == ("openvino", ())


def test_what_leads_clearly_is_not_measured_again(tmp_path: Path) -> None:
    harness, of = ScriptedHarness({("openvino", "fp32", 2, 1): 1.0}, {}), subject(tmp_path, typed(tmp_path, "fp32"))
    findings = TuningResult(TuningGoal())
    search = TuningSearch([of], BenchmarkRequest(("resnet20",), backends=TRIED, baseline="pytorch"), findings)
    for result in harness.measure(search.trials()):
        findings.results.append(result)
    assert harness.together == []


def test_throughput_counts_the_images_of_a_batch(tmp_path: Path) -> None:
    """A script takes as long for eight images as for one: eight at once are eight times as good."""
    out = tmp_path / "best.fake"
    path = artifact(tmp_path, replace(SCRIPT, delays_s=(0.004,)))
    done = rbench(
        "tune", path, *QUICK, "--objective", "throughput", "--batch", 1, "--batch", 8, "-o", out, "--limit", 8
    )
    assert done.returncode == 0, done.stderr
    manifest = Artifact.read(out).manifest
    assert manifest is not None
    assert manifest.tuning is not None
    assert manifest.tuning.batch == 8


def test_what_fails_leaves_no_artifact(tmp_path: Path) -> None:
    out = tmp_path / "best.fake"
    done = rbench("tune", artifact(tmp_path, replace(SCRIPT, scale=2.0)), *QUICK, "-o", out)
    assert done.returncode == 1
    assert "batch 1: failed: " in done.stdout
    assert not out.exists()
    fixed = rbench("tune", artifact(tmp_path, with_batch(SCRIPT, 4)), *QUICK, "--batch", 2, "-o", out)
    assert fixed.returncode == 1
    assert "batch 2: error: " in fixed.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_rows_and_no_artifact(tmp_path: Path, number: int, code: int) -> None:
    path = artifact(tmp_path, replace(SCRIPT, delays_s=(0.1,)))
    lines = tmp_path / "lines.jsonl"
    arguments = [*RBENCH, "tune", str(path), "--precision", "fp32", "--duration", "0.05", "--objective", "throughput"]
    arguments += ["--limit", "2", "--json", str(lines), "-o", str(tmp_path / "best.fake")]
    with default_interrupt():
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    with process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (lines.exists() and len(store.read(lines)) == 4):
            time.sleep(0.02)
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Incomplete" in out
    assert "fake" in out
    assert "Traceback" not in errors
    assert not (tmp_path / "best.fake").exists()


def test_an_error_after_rows_still_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise RexportError("no space left")

    monkeypatch.setattr(tune, "copy_with_tuning", full)
    monkeypatch.setattr(found_so_far, "usable_processors", lambda: 1)
    lines = tmp_path / "lines.jsonl"
    options = ["--precision", "fp32", "--threads", "1", "--duration", "0.02", "--json", str(lines)]
    arguments = [str(artifact(tmp_path)), *options, "-o", f"{tmp_path}/best.fake"]
    with pytest.raises(RexportError, match="no space left"):
        tune_command.main(arguments, standalone_mode=False)
    assert [result.status for result in store.read(lines)] == ["skipped", "ok"]
    assert "Incomplete" in capsys.readouterr().out


def test_the_bundled_network_is_tuned_and_opens_as_measured(tmp_path: Path) -> None:
    """Real networks, real runtimes, real images."""
    out = tmp_path / "best.onnx"
    done = here(
        cli.main,
        *("tune", "resnet20", "--weights", "bundled", "--precision", "fp32"),
        *("--backend", "onnxruntime", "--threads", 1, "--limit", 200, "--duration", 0.05, "-o", out),
    )
    assert (done.code, done.stdout.splitlines()[-1]) == (0, str(out))
    assert "200 images" in done.stdout
    with runtimes.open(out) as runtime:
        assert (runtime.description.backend, runtime.description.threads) == ("onnxruntime", 1)


@pytest.mark.parametrize(
    ("page", "lines", "code"),
    [
        ("best.fake", "lines.jsonl", "output-is-artifact"),
        ("best.fake.json", "lines.jsonl", "output-is-artifact"),
        ("page.html", "best.fake", "output-is-artifact"),
        ("same.html", "same.html", "output-is-input"),
        ("notes.txt", "lines.jsonl", "target-exists"),
        ("net.fake", "lines.jsonl", "output-is-input"),
    ],
)
def test_no_output_of_a_search_replaces_another_file(tmp_path: Path, page: str, lines: str, code: str) -> None:
    subject = artifact(tmp_path, TIMED)
    (tmp_path / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    outputs = ("-o", tmp_path / "best.fake", "--page", tmp_path / page, "--json", tmp_path / lines)
    done = here(cli.main, "tune", subject, *QUICK, *outputs)
    assert (done.code, error_codes(done.stderr)) == (2, [code])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
