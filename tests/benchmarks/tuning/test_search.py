from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import runtimes
from benchmarks import cli
from benchmarks.commands import tune as cli_tune
from benchmarks.records import store
from benchmarks.records.request import BenchmarkRequest, RunListener
from benchmarks.records.result import Row
from benchmarks.records.subject import PrecisionVariant, Refusal
from benchmarks.report import tuning as verdict
from benchmarks.tuning import search as tune
from benchmarks.tuning.search import TuningGoal, TuningResult
from runtimes import Artifact
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import FileRecord, Manifest
from runtimes.errors import CheckFailedError, RexportError, UsageError
from tests.benchmarks.scripts import SCRIPT, artifact, foreign, with_batch
from tests.benchmarks.searches import TRIED, ScriptedBench, searched, subject, typed
from tests.exporter.command_line import here
from tests.processes import default_interrupt

LISTENER = RunListener(lambda *_: None, lambda _: None)
RBENCH = (sys.executable, "-m", "benchmarks.cli")


@pytest.fixture(autouse=True)
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "usable_processors", lambda: 4)


def test_every_runtime_precision_and_thread_count_is_tried_and_the_reference_first(tmp_path: Path) -> None:
    bench = ScriptedBench({("openvino", "int8", 2, 1): 1.0, ("openvino", "int8", 4, 1): 2.0}, {"int8": 0.002})
    found = searched(bench, subject(tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8")), TuningGoal())
    assert bench.asked[0] == ("pytorch", "fp32", 4, 1)
    expected = {
        (runtime, precision, threads, 1) for runtime in TRIED for precision in ("fp32", "int8") for threads in (1, 2, 4)
    }
    assert set(bench.asked[1:]) == expected
    assert len(bench.asked) == 13
    best = found.choice().best
    assert best is not None
    assert (best.row.runtime, best.row.precision, best.row.threads, best.accuracy_drop) == (
        "openvino",
        "int8",
        2,
        0.002,
    )
    assert found.labelled
    assert found.left_out == []


def test_inductor_is_never_tried(tmp_path: Path) -> None:
    bench = ScriptedBench({}, {})
    searched(
        bench,
        subject(tmp_path, typed(tmp_path, "fp32")),
        TuningGoal(threads=(4,)),
        BenchmarkRequest(subjects=("resnet20",)),
    )
    assert {key[0] for key in bench.asked} == {"pytorch", *TRIED}


def test_on_a_gpu_the_threads_are_not_searched_and_pytorchs_own_programs_never_tried(tmp_path: Path) -> None:
    bench = ScriptedBench({}, {})
    of = subject(tmp_path, typed(tmp_path, "fp32"))
    program = PrecisionVariant("fp16", Artifact(tmp_path / "net.fp16.pt2", FORMATS["pt2"], None))
    request = BenchmarkRequest(subjects=("resnet20",), device="cuda", cuda_graphs=False)
    searched(bench, replace(of, programs=(program,)), TuningGoal(), request)
    assert [key for key in bench.asked if key[0] == "pytorch"] == [("pytorch", "fp32", 4, 1)]
    assert "inductor" not in {key[0] for key in bench.asked}
    assert {key[2] for key in bench.asked} == {4}
    assert not any(bench.graphs)
    assert TuningGoal(threads=(2, 1)).thread_counts("cuda") == (2, 1)


def test_what_is_beyond_the_bound_is_not_tried_further_and_said_so(tmp_path: Path) -> None:
    bench = ScriptedBench({("onnxruntime", "int8", 4, 1): 0.1}, {"int8": 0.02})
    found = searched(
        bench, subject(tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8")), TuningGoal(max_drop=0.01)
    )
    assert [key for key in bench.asked if key[1] == "int8"] == [(runtime, "int8", 4, 1) for runtime in TRIED]
    assert "onnxruntime int8: beyond the bound, so its other batches and threads were not tried" in found.left_out
    best = found.choice().best
    assert best is not None
    assert best.row.precision == "fp32"
    assert len(found.choice().beyond) == 2


def test_the_time_that_is_left_is_that_of_what_is_still_to_be_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each configuration takes a second; of the four pairs one breaks and two are beyond the bound."""
    bench, told = ScriptedBench({("onnxruntime", "fp32", 4, 1): -1.0}, {"int8": 0.02}), list[float | None]()
    monkeypatch.setattr(tune, "time", SimpleNamespace(monotonic=lambda: float(len(bench.asked))))
    of = subject(tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8"))
    searched(bench, of, TuningGoal(max_drop=0.01), left=told.append)
    assert told == pytest.approx([12, 22, 18, 12, 9, 20 / 3, 5, 3.6, 7 / 3, 0])


def test_throughput_tries_the_batches_first_and_fewer_threads_at_the_best_of_them(tmp_path: Path) -> None:
    bench = ScriptedBench(
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
        BenchmarkRequest(subjects=("resnet20",), backends=("onnxruntime",)),
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
    assert (best.row.threads, best.row.batch, best.cost_s) == (2, 8, 0.003 / 8)
    assert "fewer threads were tried at each one's fastest batch alone" in found.left_out


def test_a_pair_that_does_not_run_is_tried_once(tmp_path: Path) -> None:
    bench = ScriptedBench({("onnxruntime", "fp32", 4, 1): -1.0}, {})
    gone = PrecisionVariant("bf16", Refusal("failed", "bf16 failed its gate"))
    found = searched(bench, subject(tmp_path, typed(tmp_path, "fp32"), gone), TuningGoal())
    assert [key for key in bench.asked if key[0] == "onnxruntime"] == [
        ("onnxruntime", "fp32", 4, 1),
        ("onnxruntime", "bf16", 4, 1),
    ]
    text = "\n".join(verdict.section(found).remarks)
    assert "onnxruntime fp32, 4 threads, batch 1: error: it broke" in text
    assert "openvino bf16, 4 threads, batch 1: failed: bf16 failed its gate" in text


def test_without_labels_the_gates_error_is_what_counts_and_there_is_no_bound(tmp_path: Path) -> None:
    bench = ScriptedBench({("openvino", "int8", 4, 1): 0.5}, {}, labelled=False)
    of = subject(tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8", 0.25), data=None)
    found = searched(bench, of, TuningGoal(max_drop=0.0))
    assert not found.labelled
    assert {(one.row.precision, one.accuracy_drop) for one in found.candidates} == {("fp32", 0.0), ("int8", 0.25)}
    best = found.choice().best
    assert best is not None
    assert (best.row.precision, best.row.threads) == ("int8", 4)
    text = "\n".join(verdict.section(found).remarks)
    assert "bound: accuracy was not measured" in text
    assert verdict.section(found).tables[0].headings[-2][0] == "logit error %"


def test_a_reference_that_is_missing_leaves_the_gate(tmp_path: Path) -> None:
    bench = ScriptedBench({("pytorch", "fp32", 4, 1): -1.0}, {"int8": 0.5})
    found = searched(bench, subject(tmp_path, typed(tmp_path, "int8", 0.125)), TuningGoal())
    assert not found.labelled
    assert {one.accuracy_drop for one in found.candidates} == {0.125}


def test_thread_counts_are_powers_of_two_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for usable, expected in ((1, (1,)), (2, (2, 1)), (6, (6, 4, 2, 1)), (8, (8, 4, 2, 1))):
        monkeypatch.setattr(tune, "usable_processors", lambda usable=usable: usable)
        assert TuningGoal().thread_counts() == expected
    assert TuningGoal(threads=(1, 3, 1)).thread_counts() == (3, 1)


def test_exit_codes(tmp_path: Path) -> None:
    request = BenchmarkRequest(subjects=("resnet20",), backends=TRIED)
    of = subject(tmp_path, typed(tmp_path, "fp32"), PrecisionVariant("bf16", Refusal("failed", "its gate")))
    assert tune.exit_code(searched(ScriptedBench({}, {}), of, TuningGoal()), request) == 0
    one_broken = ScriptedBench({("openvino", "fp32", 4, 1): -1.0}, {})
    assert tune.exit_code(searched(one_broken, of, TuningGoal()), request) == 5  # it was asked for by name
    assert tune.exit_code(searched(one_broken, of, TuningGoal()), BenchmarkRequest()) == 0
    all_broken = ScriptedBench({(runtime, "fp32", 4, 1): -1.0 for runtime in TRIED}, {})
    assert tune.exit_code(searched(all_broken, of, TuningGoal()), request) == 1
    with pytest.raises(
        CheckFailedError, match=r"nothing is within a drop of 0\.50 points: the least is 3\.00 .*--max-drop"
    ):
        tune.exit_code(searched(ScriptedBench({}, {"fp32": 0.03}), of, TuningGoal()), request)


def test_weights_in_files_of_their_own_are_a_row_and_not_copied(tmp_path: Path) -> None:
    whole, parted = typed(tmp_path, "int8"), typed(tmp_path, "fp32")
    assert isinstance(parted.made, Artifact)
    assert parted.made.manifest is not None
    large: Manifest = replace(parted.made.manifest, external=(FileRecord("x.data", "ab" * 32),))
    parted = replace(parted, made=replace(parted.made, manifest=large))
    found = tune._portable(subject(tmp_path, parted, whole)).typed
    assert isinstance(found[0].made, Refusal)
    assert "its weights lie in files of their own" in found[0].made.reason
    assert found[1] is whole


@pytest.mark.parametrize(
    ("make", "request_", "message"),
    [
        (artifact, {"subjects": ()}, "one network is tuned at a time, not 0"),
        (artifact, {"runtimes": ("pytorch",)}, "runtime pytorch is never chosen: no tuned file can carry it"),
        (artifact, {"runtimes": ("inductor",)}, "runtime inductor is never chosen"),
        (artifact, {"runtimes": ("tensorflow",)}, "no runtime 'tensorflow'"),
        (
            artifact,
            {"batches": (1, 2)},
            "the latencies of different batches cannot be compared .*--objective throughput",
        ),
        (foreign, {}, r"net\.fake: it has no manifest that could keep the best options"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object, request_: dict[str, tuple[str, ...]], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert callable(make)
    request = replace(BenchmarkRequest(subjects=(str(make(tmp_path)),), precisions=("fp32",)), **request_)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        tune.tune(request, TuningResult(TuningGoal()), LISTENER, lambda _: None)
    assert [name for name in os.listdir(tmp_path) if "tuned" in name] == []


def test_a_pytorch_program_is_refused(pt2_artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a pt2 file cannot be tuned .*name the variant or its ONNX file"):
        tune.tune(
            BenchmarkRequest(subjects=(str(pt2_artifact.path),)),
            TuningResult(TuningGoal(out=f"{tmp_path}/")),
            LISTENER,
            print,
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_drop": -0.1}, "the largest drop must lie between 0 and 100 points, not be -10"),
        ({"max_drop": float("nan")}, "between 0 and 100 points, not be nan"),
        ({"threads": (5,)}, "threads must lie between 1 and the 4 that this process may use, not 5"),
        ({"threads": (0,)}, "not 0"),
    ],
)
def test_impossible_aims_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TuningGoal(**wrong)  # type: ignore[arg-type]


def test_a_fixed_batch_is_the_one_that_is_tried(tmp_path: Path) -> None:
    of = replace(subject(tmp_path, typed(tmp_path, "fp32")), fixed_batch=4)
    bench = ScriptedBench({}, {})
    searched(bench, of, TuningGoal("throughput", threads=(1,)))
    assert {key[3] for key in bench.asked} == {4}


def rbench(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RBENCH, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


QUICK = ("--precision", "fp32", "--threads", 1, "--duration", 0.02, "--rounds", 2)
TIMED = replace(SCRIPT, delays_s=(0.001,))
"""So long that a busy machine cannot make it look undone."""


def test_the_command_prints_what_it_found_and_the_path_on_the_last_line(tmp_path: Path) -> None:
    out, lines = tmp_path / "best.fake", tmp_path / "lines.jsonl"
    done = rbench("tune", artifact(tmp_path, TIMED), *QUICK, "-o", out, "--json", lines)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(out))
    assert "fake     fp32" in done.stdout
    assert [(row.runtime, row.status) for row in store.read(lines)] == [("pytorch", "skipped"), ("fake", "ok")]
    found = Artifact.read(out)
    assert found.manifest is not None
    tuning = found.manifest.tuning
    assert tuning is not None
    assert (tuning.runtime, tuning.threads, tuning.batch, tuning.objective) == ("fake", 1, 1, "latency")
    row = store.read(lines)[-1]
    assert tuning.p50_s == row.p50_s
    assert (row.processes, row.rounds, len(row.sittings), row.roof) == (1, 2, 1, None)
    assert done.stderr == "net.fake · fake fp32 · batch 1 · 1 thread\n"
    with runtimes.open(out) as runtime:
        assert runtime.description.threads == 1
    again = rbench("tune", artifact(tmp_path, TIMED), *QUICK, "-o", out)
    assert (again.returncode, again.stdout) == (2, "")
    assert "best.fake: it is there already" in again.stderr
    assert rbench("tune", artifact(tmp_path, TIMED), *QUICK, "-o", out, "--force").returncode == 0


def test_those_that_come_near_the_best_are_measured_again_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script sleeps as long with one thread as with two."""
    monkeypatch.setattr(tune, "NEAR", 10.0)  # however busy the machine is
    path, out = artifact(tmp_path, TIMED), tmp_path / "best.fake"
    findings, heard = TuningResult(TuningGoal(threads=(1, 2), out=str(out))), list[Row]()
    request = BenchmarkRequest((str(path),), precisions=("fp32",), processes=1, rounds=4, duration_s=0.02)
    written = tune.tune(request, findings, LISTENER, heard.append)
    assert written is not None
    reference, *first, one, other = heard
    assert (reference.status, [row.threads for row in first]) == ("skipped", [2, 1])
    assert one.field == other.field not in {row.field for row in first}
    assert [(row.status, row.processes, len(row.sittings), row.answers) for row in (one, other)] == [
        ("ok", 3, 3, None)
    ] * 2
    assert findings.rows == heard
    assert len(findings.candidates) == len(findings.finalists) == 2
    best = findings.choice().best
    assert best is not None
    assert best.row in (one, other)
    text = "\n".join(verdict.section(findings).remarks)
    assert "measured again in turns, in 3 processes each: fake fp32, " in text


def test_what_fails_in_the_last_turns_is_not_chosen_and_what_leads_clearly_has_none(tmp_path: Path) -> None:
    milliseconds = {("onnxruntime", "fp32", 4, 1): 1.0, ("openvino", "fp32", 4, 1): 1.0}
    of = subject(tmp_path, typed(tmp_path, "fp32"))
    bench, findings = ScriptedBench(milliseconds, {}), TuningResult(TuningGoal())
    search = tune._TuningSearch(bench, of, BenchmarkRequest(("resnet20",), backends=TRIED), findings, lambda _: None)  # type: ignore[arg-type]
    list(search.rows())
    bench.milliseconds = {**milliseconds, ("onnxruntime", "fp32", 4, 1): -1.0}
    assert [row.status for row in search.finals()] == ["error", "ok"]
    assert bench.together == [(2, 3)]
    best = findings.choice().best
    assert best is not None
    assert (best.row.runtime, findings.choice().tied) == ("openvino", ())
    clear = ScriptedBench({("openvino", "fp32", 2, 1): 1.0}, {})
    request = BenchmarkRequest(("resnet20",), backends=TRIED)
    search = tune._TuningSearch(clear, of, request, TuningResult(TuningGoal()), lambda _: None)  # type: ignore[arg-type]
    list(search.rows())
    assert list(search.finals()) == []
    assert clear.together == []


def test_a_slower_copy_is_not_taken_for_the_throughput_of_a_larger_batch(tmp_path: Path) -> None:
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
    assert "fake fp32, 1 thread, batch 1: failed: no parity" in done.stdout
    assert not out.exists()
    fixed = rbench("tune", artifact(tmp_path, with_batch(SCRIPT, 4)), *QUICK, "--batch", 2, "-o", out)
    assert fixed.returncode == 1
    assert "error: the model's batch is fixed at 4" in fixed.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_no_artifact_and_prints_what_was_measured(tmp_path: Path, number: int, code: int) -> None:
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
    assert "incomplete: the run ended early" in out
    assert "fake" in out
    assert "Traceback" not in errors
    assert not (tmp_path / "best.fake").exists()


def test_an_error_after_rows_still_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RexportError("no space left")

    monkeypatch.setattr(tune, "copy_with_tuning", full)
    monkeypatch.setattr(tune, "usable_processors", lambda: 1)
    findings = TuningResult(TuningGoal(threads=(1,), out=f"{tmp_path}/best.fake"))
    request = BenchmarkRequest(subjects=(str(artifact(tmp_path)),), precisions=("fp32",), duration_s=0.02)
    with pytest.raises(RexportError, match="no space left"):
        cli_tune._tune(request, findings, None)
    assert [row.status for row in findings.rows] == ["skipped", "ok"]


def test_the_bundled_network_is_tuned_and_its_artifact_opens_as_it_was_measured(tmp_path: Path) -> None:
    """Real networks, real runtimes, real images."""
    out = tmp_path / "best.onnx"
    done = here(
        cli.main,
        *("tune", "resnet20", "--weights", "bundled", "--precision", "fp32", "--precision", "fp16"),
        *("--backend", "onnxruntime", "--threads", 1, "--limit", 200, "--duration", 0.05, "-o", out),
    )
    assert (done.code, done.stdout.splitlines()[-1]) == (0, str(out))
    assert "bound: a drop of top-1 of at most 0.50 points, 200 images" in done.stdout
    with runtimes.open(out) as runtime:
        assert (runtime.description.backend, runtime.description.threads) == ("onnxruntime", 1)
