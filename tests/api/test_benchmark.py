"""Benchmarks from Python, in real workers, on files of the fake backend, whose calls take no library."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import rexport
from rexport.benchmarking import DEFAULTS
from runtimes.errors import RexportError
from tests.benchmarks.scripts import SCRIPT, artifact, foreign
from tests.processes import default_interrupt
from tests.refusals import refuses

REPO = Path(rexport.__file__).parents[1]
QUICK: dict[str, Any] = {"backends": "fake", "processes": 1, "duration": 0.01, "rounds": 2, "roofline": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("model"), SCRIPT)


def statuses(report: rexport.Report) -> dict[str, str]:
    return {row.result.identity.backend: row.result.status for row in report.rows}


def test_rows_records_and_silence(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = rexport.benchmark(rexport.Artifact.read(model), batch=[1, 2], **QUICK)
    assert report.complete
    assert [(row.result.identity.backend, row.result.identity.batch) for row in report.rows] == [
        ("fake", 1), ("fake", 2),
    ]  # fmt: skip
    assert statuses(report) == {"fake": "ok"}
    records = report.to_records()
    assert [record["status"] for record in records] == ["ok", "ok"]
    assert isinstance(records[1]["p50_s"], float)
    assert records[0]["top1"] is None
    assert {record["baseline_backend"] for record in records} == {"fake"}
    assert {type(value) for record in records for value in record.values()} <= {str, int, float, bool, type(None)}
    assert "fake" in report.verdict.lower()
    assert capfd.readouterr() == ("", "")


def test_the_recorded_command_measures_the_same(model: Path) -> None:
    report = rexport.benchmark([model], batch=2, **QUICK)
    command = report.rows[0].result.asked.command
    assert command is not None
    assert command[:2] == ("python", "-c")
    done = subprocess.run(
        [sys.executable, *command[1:]], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "batch 2" in done.stdout.lower()


def test_progress_in_seconds_ends_at_its_total(model: Path) -> None:
    seen: list[tuple[float, float | None, str]] = []
    rexport.benchmark(model, progress=lambda *told: seen.append(told), **QUICK)
    done = [told[0] for told in seen]
    assert done == sorted(done)
    assert all(total is None or total >= so_far for so_far, total, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    assert any("fake fp32" in description for _, _, description in seen)


def test_progress_of_the_command_goes_to_stderr(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rexport.benchmark(model, progress=True, **QUICK)
    out, err = capfd.readouterr()
    assert out == ""
    assert "fake fp32" in err


def test_an_error_of_the_callback_ends_the_workers(model: Path) -> None:
    def fail(done: float, total: float | None, description: str) -> None:
        del done, total
        if "warm-up" in description:
            raise ZeroDivisionError

    before = set(children())  # other tests of this process may have left multiprocessing's resource tracker
    with pytest.raises(ZeroDivisionError):
        rexport.benchmark(model, progress=fail, **QUICK)
    assert set(children()) <= before


def test_in_a_running_event_loop_and_in_a_thread(model: Path) -> None:
    async def in_a_loop() -> rexport.Report:
        return rexport.benchmark(model, **QUICK)

    reports = [asyncio.run(in_a_loop())]
    thread = threading.Thread(target=lambda: reports.append(rexport.benchmark(model, **QUICK)))
    thread.start()
    thread.join()
    assert [statuses(report)["fake"] for report in reports] == ["ok", "ok"]


def test_a_script_needs_no_guard(model: Path, tmp_path: Path) -> None:
    script = tmp_path / "measure.py"
    script.write_text(
        f"import rexport\nprint('begin')\nprint(rexport.benchmark({str(model)!r}, **{QUICK!r}).rows[0].p50)\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.count("begin") == 1
    assert "Estimate" in done.stdout


INTERRUPTED = """
import json, os, signal, sys
from pathlib import Path
import rexport
from tests.api.test_benchmark import children

def stop(done, total, description):
    if description.find("process 2") >= 0 and "round" in description:
        os.kill(os.getpid(), signal.SIGINT)

try:
    rexport.benchmark(sys.argv[1], backends="fake", processes=2, duration=0.01, rounds=2, roofline=False, progress=stop)
except KeyboardInterrupt as interrupt:
    report = interrupt.report
    report.save(sys.argv[2])
    rows = [(row.result.status, len(row.result.samples)) for row in report.rows]
    print(json.dumps([type(interrupt).__name__, report.complete, rows, children(), str(interrupt)]))
"""


def test_an_interrupt_keeps_the_results_and_ends_the_workers(model: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.md"
    with default_interrupt():
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, model, page],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    kind, complete, rows, left, words = json.loads(done.stdout)
    assert (kind, complete, rows, left) == ("BenchmarkInterrupt", False, [["ok", 1]], [])
    assert words.startswith("1 of 1 rows")
    assert "Incomplete" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "kind", "code", "values"),
    [
        ({"backends": "tflite"}, rexport.UsageError, "backend-unknown", ["tflite"]),
        ({"batch": 0}, rexport.UsageError, "number-too-small", ["batch", "0"]),
        ({"threads": 0}, rexport.UsageError, "number-too-small", ["threads", "0"]),
        ({"processes": 0}, rexport.UsageError, "number-too-small", ["processes"]),
        ({"rounds": 0}, rexport.UsageError, "number-too-small", ["rounds"]),
        ({"limit": 0}, rexport.UsageError, "number-too-small", ["limit"]),
        ({"seed": -1}, rexport.UsageError, "number-too-small", ["seed", "-1"]),
        ({"calibration_images": 0}, rexport.UsageError, "number-too-small", ["calibration images"]),
        ({"device": "gpu"}, rexport.UsageError, "device-unknown", ["gpu", "cuda"]),
        ({"duration": 0.0}, rexport.UsageError, "seconds-not-positive", ["duration"]),
        ({"budget": float("nan")}, rexport.UsageError, "seconds-not-positive", ["budget"]),
        ({"precision": "fp4"}, rexport.UsageError, "precision-unknown", ["fp4"]),
        ({"data": "nowhere"}, rexport.UsageError, "dataset-unknown", ["nowhere"]),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words_of_python(
    model: Path, arguments: dict[str, Any], kind: type[RexportError], code: str, values: list[str]
) -> None:
    with refuses(kind, code, *values) as caught:
        rexport.benchmark(model, **{**QUICK, **arguments})
    assert "--" not in str(caught.value)


def test_a_precision_of_a_model_without_manifest_is_refused(tmp_path: Path) -> None:
    with refuses(rexport.UsageError, "precision-needs-manifest", "leave precision out"):
        rexport.benchmark(foreign(tmp_path), precision="fp16", **QUICK)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(rexport.RexportError, match=r"gone\.onnx"):
        rexport.benchmark(tmp_path / "gone.onnx", **QUICK)


def test_the_defaults_are_those_of_the_command() -> None:
    from benchmarks.commands.measure import run

    options = {parameter.name: parameter.default for parameter in run.params}
    for option, value in (
        ("duration_s", DEFAULTS.duration_s),
        ("rounds", DEFAULTS.rounds),
        ("budget_s", DEFAULTS.budget_s),
        ("silence_s", DEFAULTS.silence_s),
        ("seed", DEFAULTS.seed),
        ("device", DEFAULTS.device),
        ("roofline", DEFAULTS.roofline),
    ):
        assert options[option] == value


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPO)}


def children() -> list[int]:
    """The processes that this one has started and that are still there."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(number) for task in tasks for number in (task / "children").read_text().split()]
