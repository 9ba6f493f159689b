from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import cli, results
from benchmarks.request import Request
from benchmarks.results import ResultsFile, Row
from runtimes.errors import ResourceError
from tests.benchmarks.scripts import SCRIPT, artifact

RBENCH = (sys.executable, "-m", "benchmarks.cli")


def rbench(*arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RBENCH, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


def test_a_run_prints_a_table_and_writes_its_files(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    out, lines = tmp_path / "deep" / "out", tmp_path / "lines.jsonl"
    done = rbench("run", path, "--threads", 1, "--duration", 0.02, "-o", out, "--json", lines)
    assert (done.returncode, done.stderr) == (0, "net.fake · fake fp32 · batch 1 · 1 thread\n")
    assert "net.fake · resnet20, bundled weights" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert sorted(os.listdir(out)) == ["results.csv", "results.html", "results.jsonl", "results.md"]
    assert [row.status for row in results.read(lines)] == ["skipped", "ok"]
    assert results.read(out / "results.jsonl") == results.read(lines)
    rbench("run", path, "--duration", 0.02, "-o", out)
    assert len(results.read(out / "results.jsonl")) == 4


def test_a_raw_int8_network_is_measured_on_real_images_and_compared_with_fp32(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    done = rbench(
        *("run", "resnet20", "--weights", "bundled", "--input", "raw", "--precision", "int8"),
        *("--calibration-images", 50, "--runtime", "onnxruntime"),
        *("--threads", 1, "--limit", 200, "--duration", 0.05, "--json", lines),
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "resnet20, bundled weights · cpu, 1 thread · fashion-mnist, 200 images" in done.stdout
    reference, row = results.read(lines)
    assert (reference.runtime, reference.precision, reference.drop) == ("pytorch", "fp32", 0.0)
    assert (row.runtime, row.precision, row.subject, row.images) == ("onnxruntime", "int8", "resnet20", 200)
    assert row.arithmetic is not None
    assert row.arithmetic.startswith("int8")
    assert row.drop == pytest.approx((reference.top1 or 0) - (row.top1 or 0))
    assert row.drop_interval is not None
    assert row.drop_interval[0] <= (row.drop or 0) <= row.drop_interval[1]
    assert "int8: logits' error" in done.stderr


def test_cuda_graphs_are_a_wish_of_the_user(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    options = ("--duration", 0.02, "--json", lines, "--runtime", "fake", "--device", "cuda")
    for more in ((), ("--no-cuda-graphs",), ("--cuda-graphs",)):
        assert rbench("run", artifact(tmp_path), *options, *more).returncode == 5
    assert [row.cuda_graphs for row in results.read(lines) if row.runtime == "fake"] == [True, False, True]


def test_untrained_weights_are_marked(tmp_path: Path) -> None:
    done = rbench("run", artifact(tmp_path, trained=False), "--duration", 0.02)
    assert "*untrained* random weights" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "resnet21"], 2, "error: no variant 'resnet21' (one of resnet18"),
        (["run", "x.onnx"], 6, "error: x.onnx: cannot read: No such file or directory"),
        (["run", "--batch", "0", "x.onnx"], 2, "error: Invalid value for '--batch': 0 is not in the range"),
        (["run", "--duration", "nan", "x.onnx"], 2, "error: the duration must be a number of seconds above 0, not nan"),
        (["run", "--runtime", "nothing", "x.onnx"], 2, "error: no runtime 'nothing' (one of "),
        (["run", "--precision", "fp64", "x.onnx"], 2, "error: Invalid value for '--precision': 'fp64' is not one of"),
        (["run", "--calibration", "d", "x.onnx"], 2, "error: --calibration is for int8, which was not asked for"),
        (["tune", "x.onnx", "--max-drop", "101"], 2, "error: Invalid value for '--max-drop'"),
        (["tune", "x.onnx", "--threads", "100000"], 2, "error: threads must lie between 1 and the"),
        (["tune", "resnet21"], 2, "error: no variant 'resnet21'"),
        (["tune"], 2, "error: Missing argument 'ARTIFACT|VARIANT'"),
        (["walk"], 2, "error: No such command 'walk'"),
        (["run", "--nonsense"], 2, "error: No such option"),
        (["run", "README", "-o", "/proc/nothing"], 6, "error: "),
    ],
)
def test_errors_are_one_line_with_their_exit_code(arguments: list[str], code: int, message: str) -> None:
    done = rbench(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_debug_shows_where(tmp_path: Path) -> None:
    done = rbench("run", tmp_path / "x.onnx", "--debug")
    assert done.returncode == 6
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_results_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("dear diary\n")
    done = rbench("run", artifact(tmp_path), "--json", notes)
    assert done.returncode == 3
    assert "notes.txt: line 1: not valid JSON" in done.stderr
    assert notes.read_text() == "dear diary\n"


def test_a_file_that_can_no_longer_be_written_loses_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    appended: list[Row] = []

    def full_after_one(_: ResultsFile, row: Row) -> None:
        appended.append(row)
        if len(appended) == 2:
            raise ResourceError("cannot write: No space left on device", path="lines.jsonl", errno=28)

    monkeypatch.setattr(ResultsFile, "append", full_after_one)
    request = Request(subjects=(str(artifact(tmp_path)),), duration_s=0.02)
    with pytest.raises(ResourceError, match=r"lines\.jsonl: cannot write: No space left"):
        cli._run(request, tmp_path / "lines.jsonl", None)
    printed = capsys.readouterr().out
    assert "net.fake" in printed
    assert "incomplete: the run ended early" in printed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_the_finished_rows_and_ends_the_worker(tmp_path: Path, number: int, code: int) -> None:
    quick = artifact(tmp_path, SCRIPT, "quick.fake")
    slow = artifact(tmp_path, replace(SCRIPT, delays_s=(0.5,)), "slow.fake")
    lines = tmp_path / "lines.jsonl"
    arguments = [*RBENCH, "run", str(quick), str(slow), "--runtime", "fake", "--duration", "0.05", "--json", str(lines)]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (lines.exists() and len(results.read(lines)) == 3):
            time.sleep(0.02)
        time.sleep(0.4)
        process.send_signal(number)
        start = time.monotonic()
        out, errors = process.communicate(timeout=20)
    assert time.monotonic() - start < 5
    assert process.returncode == code
    assert "incomplete: the run ended early" in out
    assert "quick.fake" in out
    assert "Traceback" not in errors
    assert [row.artifact for row in results.read(lines)] == ["quick.fake", "quick.fake", "slow.fake"]
    assert not _workers_of(process.pid)


def _workers_of(pid: int) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(place.parent.name)
    return found


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['rbench', '--help']\n"
        "from benchmarks.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        "    heavy = {'numpy', 'torch', 'onnx', 'onnxruntime', 'rich', 'runtimes'} & set(sys.modules)\n"
        "    sys.stderr.write(f'{end.code} {sorted(heavy)}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "0 []"
    assert "run" in done.stdout
