from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks import cli
from benchmarks.analysis.figures import Figures
from benchmarks.commands import options
from benchmarks.commands.measure import run
from benchmarks.harness import run as harness_run
from benchmarks.records import store
from benchmarks.records.plan import LEAST_PROCESSES, MOST_PROCESSES, STREAMS
from benchmarks.records.request import BenchmarkRequest, RunListener, throughput_streams
from benchmarks.records.result import Result
from benchmarks.records.store import ResultsFile
from benchmarks.tuning import search
from benchmarks.tuning.findings import TuningGoal, TuningResult
from runtimes.errors import ResourceError, UsageError
from tests.benchmarks.results import FASTER, QUIET, change_facts
from tests.benchmarks.scripts import SCRIPT, artifact
from tests.benchmarks.terminals import Terminal
from tests.exporter.command_line import here
from tests.processes import default_interrupt
from tests.refusals import error_codes, refuses
from tests.screens import watch

RBENCH = (sys.executable, "-m", "benchmarks.cli")
TIMED = replace(SCRIPT, delays_s=(0.001,))
"""So long that a busy machine cannot make it look undone."""

SHORT = ("--duration", 0.02, "--processes", 1, "--rounds", 2, "--no-roofline")


def rbench(*arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RBENCH, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


def test_a_run_prints_a_table_and_writes_its_files(tmp_path: Path) -> None:
    path = artifact(tmp_path, TIMED)
    out, lines = tmp_path / "out", tmp_path / "lines.jsonl"
    asked = ("run", path, "--threads", 1, "--batch", 1, "--batch", 2, *SHORT, "--processes", 2)
    done = rbench(*asked, "-o", out, "--json", lines)
    assert done.returncode == 0
    plan, *begun = done.stderr.splitlines()
    assert plan.startswith("Plan: 1 network x 1 backend x 2 batch sizes = 2 configurations, 2 processes each; about ")
    steps = [line.split(" · ") for line in begun]
    assert steps == [[f"[{batch}/2] fake fp32", f"batch {batch}", "1 thread"] for batch in (1, 2)]
    assert "net.fake · resnet20," in done.stdout
    assert "\x1b" not in done.stdout
    *table, page = done.stdout.splitlines()
    assert page == str(out / "results.html")
    assert max(map(len, table)) <= 100
    assert "ncomplete" not in done.stdout
    assert sorted(os.listdir(out)) == ["results.csv", "results.html", "results.jsonl", "results.md"]
    results = store.read(lines)
    assert [(each.status, each.identity.batch, each.asked.group) for each in results] == [
        ("skipped", 1, 1),
        ("ok", 1, 1),
        ("skipped", 2, 2),
        ("ok", 2, 2),
    ]
    assert store.read(out / "results.jsonl") == results
    command = ("rbench", *map(str, asked), "-o", str(out), "--json", str(lines))
    wanted = {(each.asked.processes, each.asked.rounds, each.asked.duration_s, each.asked.command) for each in results}
    assert wanted == {(2, 2, 0.02, command)}
    assert [len(each.samples) for each in results] == [0, 2, 0, 2]
    assert all(each.roof is None for each in results)
    last = json.loads(lines.read_text().splitlines()[-1])
    p50 = Figures.of(results[-1], results).p50
    assert p50 is not None
    assert last["figures"]["p50"]["value"] == p50.value
    for name in ("results.md", "results.html", "results.csv"):
        text = (out / name).read_text()
        assert "net.fake" in text
        assert "ncomplete" not in text
    assert "<svg" in (out / "results.html").read_text()
    rbench("run", path, *SHORT, "-o", out)
    assert len(store.read(out / "results.jsonl")) == 6


def test_a_terminal_shows_one_line_and_the_time_left(tmp_path: Path) -> None:
    command = [*RBENCH, *map(str, ("run", artifact(tmp_path, TIMED), *SHORT, "--processes", 2))]
    session = watch(command, 100, stdout=tmp_path / "stdout")
    plan = " ".join(session.lines)  # it may take two lines
    assert (session.code, plan.split(":")[0], plan.count("Plan")) == (0, "Plan", 1)
    begun, *_, last = [status for status in session.statuses() if status.startswith("[1/1]")]
    assert "fake fp32 · batch 1" in begun
    assert " left" in begun
    assert "process 2 of 2" in last
    assert "\x1b" not in (tmp_path / "stdout").read_text()


@pytest.mark.slow
def test_a_raw_int8_network_is_compared_with_fp32(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    done = rbench(
        *("run", "resnet20", "--weights", "bundled", "--input", "raw", "--precision", "int8"),
        *("--calibration-images", 50, "--backend", "onnxruntime", "--baseline", "pytorch"),
        *("--threads", 1, "--limit", 200, *SHORT, "--json", lines),
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "resnet20, bundled weights · cpu, 1 thread · fashion-mnist, 200 images" in done.stdout
    reference, figures = Figures.of_all(store.read(lines))
    assert reference.is_reference
    of = figures.result.identity
    assert (of.backend, of.precision, of.subject, figures.images) == ("onnxruntime", "int8", "resnet20", 200)
    assert (figures.result.ran.arithmetic or "").startswith("int8")
    assert reference.top1_change is not None
    assert reference.top1_change.value == 0.0
    assert reference.top1 is not None
    assert figures.top1 is not None
    assert figures.top1_change is not None
    assert figures.top1_change.value == pytest.approx(figures.top1.value - reference.top1.value)
    low, high = figures.top1_change.interval or (1.0, 0.0)
    assert low <= figures.top1_change.value <= high
    assert "int8: logit error" in done.stderr


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[BenchmarkRequest]:
    """What ``rbench run`` asks for; a result is given without measuring. There is a GPU."""
    requests: list[BenchmarkRequest] = []

    def found(request: BenchmarkRequest, _: RunListener) -> Iterator[Result]:
        requests.append(request)
        yield change_facts(FASTER.result, quick=request.quick)

    monkeypatch.setattr(harness_run, "run", found)
    monkeypatch.setattr(options, "require_device", lambda _: None)
    return requests


def invoke(*arguments: str) -> click.testing.Result:
    return CliRunner().invoke(cli.rbench, arguments)


def test_cuda_graphs_are_a_wish_of_the_user(asked: list[BenchmarkRequest]) -> None:
    for more in ((), ("--no-cuda-graphs",), ("--cuda-graphs",)):
        done = invoke("run", "net.fake", "--device", "cuda", *more)
        assert "no effect" not in done.stderr
    assert [request.cuda_graphs for request in asked] == [True, False, True]


def test_sizes_are_given_at_once_or_one_by_one(asked: list[BenchmarkRequest]) -> None:
    invoke("run", "resnet20", "--size", "24,28x32", "--size", "32")
    assert asked[0].sizes == ((24, 24), (28, 32), (32, 32))
    done = invoke("run", "resnet20", "--size", "24,28y")
    assert (done.exit_code, len(asked), "'28y'" in done.stderr) == (2, 1, True)


def test_a_search_takes_its_own_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    goals: list[TuningGoal] = []

    def found(request: BenchmarkRequest, findings: TuningResult, _: RunListener) -> Iterator[Result]:
        goals.append(findings.goal)
        assert request.subjects == ("resnet20", "a.pth")
        yield FASTER.result

    monkeypatch.setattr(search, "tune", found)
    done = invoke("tune", "resnet20", "a.pth", "--budget", "30", "--relative-to", "own")
    assert (goals[0].budget_s, goals[0].relative_to, goals[0].max_drop) == (30.0, "own", 0.005)
    assert "no effect" not in done.stderr


def test_quick_is_short_and_said_to_be_preliminary(asked: list[BenchmarkRequest], tmp_path: Path) -> None:
    done = invoke("run", "--quick", "--json", str(tmp_path / "lines.jsonl"), "-o", str(tmp_path / "out"))
    assert asked[0] == replace(
        BenchmarkRequest(quick=True, duration_s=0.1, warmup_limit_s=1.0, processes=1, limit=500, roofline=False),
        command=asked[0].command,
    )
    shown = [done.stdout, *((tmp_path / "out" / f"results.{end}").read_text() for end in ("md", "html"))]
    assert all("preliminary (--quick)" in text for text in shown)
    assert json.loads((tmp_path / "lines.jsonl").read_text())["asked"]["quick"] is True
    assert "PRELIMINARY: measured with --quick, in short samples" in shown[0]
    assert "preliminary" not in invoke("run").stdout.lower()
    invoke("run", "--quick", "--processes", "3", "--limit", "7", "--roofline")
    assert (asked[2].processes, asked[2].limit, asked[2].roofline, asked[2].duration_s) == (3, 7, True, 0.1)


@pytest.mark.parametrize(
    ("arguments", "notices"),
    [
        (("--calibration", "d", "--target", "tensorrt"), ["without --precision int8 or fp8: --calibration, --target"]),
        (("--calibration", "d", "--precision", "int8"), []),
        (("--weights", "bundled", "--input", "raw"), ["on a model file: --weights, --input"]),
        (("--no-cuda-graphs",), ["on a CPU: --cuda-graphs"]),
        (("--streams", "2", "--trtexec"), ["on a CPU: --streams, --trtexec"]),
        (("--processes", "3", "--budget", "5"), ["with a number of processes: --budget"]),
        (("--processes", "3", "--limit", "5"), []),
    ],
)
def test_options_without_effect_are_notices(
    arguments: tuple[str, ...], notices: list[str], asked: list[BenchmarkRequest], tmp_path: Path
) -> None:
    done = invoke("run", str(artifact(tmp_path)), *arguments)
    assert (done.exit_code, len(asked)) == (0, 1)
    assert done.stderr.splitlines() == [f"warning[options-without-effect]: no effect {notice}" for notice in notices]


@pytest.fixture
def gpu_request(asked: list[BenchmarkRequest], monkeypatch: pytest.MonkeyPatch) -> list[BenchmarkRequest]:
    """The requests for a GPU, which is taken to be there."""
    monkeypatch.setattr(options, "require_device", lambda _: None)
    return asked


def test_trtexec_is_found_or_named(
    gpu_request: list[BenchmarkRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "TRTEXEC_FOLDER", tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = invoke("run", "--device", "cuda", "--trtexec")
    assert (missing.exit_code, "[trtexec-missing]" in missing.stderr) == (0, True)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/trtexec"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for arguments in (("--trtexec",), (f"--trtexec={program}",)):
        assert invoke("run", "--device", "cuda", *arguments).stderr == ""
    assert [request.trtexec for request in gpu_request] == [None, str(program), str(program)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_model_in_place_of_trtexec_is_no_program(
    gpu_request: list[BenchmarkRequest], tmp_path: Path, device: str
) -> None:
    done = invoke("run", "--device", device, "--trtexec", str(artifact(tmp_path)))
    assert isinstance(done.exception, UsageError)
    assert (done.exception.code, gpu_request) == ("trtexec-not-found", [])


def test_a_gpu_is_measured_with_streams_and_a_cpu_is_not() -> None:
    request = BenchmarkRequest()
    assert throughput_streams(request) == ()
    assert throughput_streams(replace(request, device="cuda")) == STREAMS
    assert throughput_streams(replace(request, device="cuda", throughput=(8, 2, 8))) == (2, 8)
    with refuses(UsageError, "number-too-small", "streams is 0"):
        replace(request, throughput=(0,))


def test_the_columns_are_explained_on_demand(asked: list[BenchmarkRequest]) -> None:
    short, explained = (invoke("run", *more).stdout for more in ((), ("--explain",)))
    assert asked
    assert len(explained.splitlines()) > len(short.splitlines()) + 5


def test_untrained_weights_are_marked(tmp_path: Path) -> None:
    done = rbench("run", artifact(tmp_path, TIMED, trained=False), *SHORT)
    assert "*untrained* random weights" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "value"),
    [
        (["run", "resnet21"], 2, "variant-unknown", "'resnet21'"),
        (["run", "x.onnx"], 6, "model-missing", "x.onnx"),
        (["run", "--batch", "0", "x.onnx"], 2, "usage", "'--batch'"),
        (["run", "--duration", "nan", "x.onnx"], 2, "usage", "nan"),
        (["run", "--processes", "0", "x.onnx"], 2, "usage", "'--processes'"),
        (["run", "--rounds", "1001", "x.onnx"], 2, "usage", "'--rounds'"),
        (["run", "--backend", "nothing", "x.onnx"], 2, "backend-unknown", "'nothing'"),
        (["run", "--runtime", "nothing", "x.onnx"], 2, "backend-unknown", "'nothing'"),
        (["run", "--precision", "fp64", "x.onnx"], 2, "usage", "'fp64'"),
        (["tune", "x.onnx", "--max-drop", "101"], 2, "usage", "'--max-drop'"),
        (["tune", "x.onnx", "--threads", "100000"], 2, "tuning-threads-out-of-range", "100000"),
        (["tune", "resnet21"], 2, "variant-unknown", "'resnet21'"),
        (["tune"], 2, "usage", "'ARTIFACT|VARIANT|CHECKPOINT|MODULE:FACTORY...'"),
        (["walk"], 2, "usage", "'walk'"),
        (["run", "--nonsense"], 2, "usage", "--nonsense"),
        (["run", "README", "-o", "/proc/nothing"], 6, "file-access-failed", "/proc/nothing"),
    ],
)
def test_errors_are_one_line_with_their_codes(arguments: list[str], exit_code: int, code: str, value: str) -> None:
    done = here(cli.main, *arguments)
    assert (done.code, done.stdout, error_codes(done.stderr)) == (exit_code, "", [code])
    assert value in done.stderr
    assert done.stderr.count("\n") == 1


def test_debug_shows_where(tmp_path: Path) -> None:
    done = rbench("run", tmp_path / "x.onnx", "--debug")
    assert done.returncode == 6
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error")


@pytest.mark.parametrize("command", ["run", "load"])
def test_files_of_others_in_the_folder_are_kept(tmp_path: Path, command: str) -> None:
    subject = artifact(tmp_path, TIMED)
    (tmp_path / "out").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "out/results.md").write_text("mine")
    done = here(cli.main, command, subject, "-o", tmp_path / "out")
    assert (done.code, error_codes(done.stderr)) == (2, ["folder-of-others"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.md"]
    for name in ("results.jsonl", "results.html"):
        done = here(cli.main, command, subject, "-o", tmp_path / "new", "--json", tmp_path / "new" / name)
        assert (done.code, error_codes(done.stderr)) == (2, ["results-written-twice"])


def test_a_results_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("dear diary\n")
    done = here(cli.main, "run", artifact(tmp_path), "--json", notes)
    assert (done.code, error_codes(done.stderr)) == (3, ["json-invalid"])
    assert "notes.txt: line 1:" in done.stderr
    assert notes.read_text() == "dear diary\n"


def test_a_file_that_can_no_longer_be_written_loses_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    appended: list[Result] = []

    def full_after_one(_: ResultsFile, result: Result, figures: object) -> None:
        assert figures
        appended.append(result)
        if len(appended) == 2:
            raise ResourceError("full", code="disk-full", path="lines.jsonl", errno=28)

    monkeypatch.setattr(ResultsFile, "append", full_after_one)
    short = ["--duration", "0.02", "--processes", "1", "--rounds", "2", "--no-roofline"]
    arguments = [str(artifact(tmp_path, TIMED)), *short, "--json", str(tmp_path / "lines.jsonl")]
    with refuses(ResourceError, "disk-full", "lines.jsonl"):
        run.main(arguments, standalone_mode=False)
    printed = capsys.readouterr().out
    assert "net.fake" in printed
    assert "Incomplete" in printed


@pytest.mark.parametrize(("foreign_cores", "strict", "code"), [(1.5, True, 1), (1.5, False, 0), (0.0, True, 0)])
def test_strict_fails_on_a_machine_that_was_not_quiet(
    foreign_cores: float, strict: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = replace(QUIET, foreign_cores=foreign_cores, processors=2)
    samples = tuple(replace(process, conditions=conditions) for process in FASTER.result.samples)
    measured = change_facts(FASTER.result, samples=samples)
    asked: list[BenchmarkRequest] = []

    def found(request: BenchmarkRequest, _: RunListener) -> Iterator[Result]:
        asked.append(request)
        yield measured

    monkeypatch.setattr(harness_run, "run", found)
    arguments = ["run", "net.fake", "--json", str(tmp_path / "lines.jsonl"), *(["--strict"] if strict else [])]
    assert CliRunner().invoke(cli.rbench, arguments).exit_code == code
    assert store.read(tmp_path / "lines.jsonl") == (measured,)
    assert (asked[0].strict, asked[0].roofline, asked[0].processes, asked[0].rounds) == (strict, True, None, 10)
    assert asked[0] == replace(BenchmarkRequest(("net.fake",), strict=strict), command=asked[0].command), (
        "its own defaults"
    )


def test_without_a_model_the_bundled_one_is_measured(asked: list[BenchmarkRequest]) -> None:
    assert invoke("run").exit_code == 0
    assert asked == [replace(BenchmarkRequest(), command=asked[0].command)]
    help_text = invoke("run", "--help").stdout
    assert f"default: {LEAST_PROCESSES} to {MOST_PROCESSES}" in " ".join(help_text.split())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_early_end_keeps_rows_and_ends_the_workers(tmp_path: Path, number: int, code: int) -> None:
    """In the second network's second process: the rows of the first network are whole, and those of the second are of
    its first process."""
    quick, slow = artifact(tmp_path, TIMED, "quick.fake"), artifact(tmp_path, TIMED, "slow.fake")
    out = tmp_path / "out"
    with Terminal(columns=100) as terminal:
        long = ("--backend", "fake", *SHORT, "--processes", 2, "--rounds", 1000, "-o", out)
        with default_interrupt():
            process = subprocess.Popen(
                [*RBENCH, *map(str, ("run", quick, slow, *long))],
                stdout=subprocess.PIPE,
                stderr=terminal.descriptor,
                text=True,
                start_new_session=True,
            )
        shown, deadline = "", time.monotonic() + 60
        while time.monotonic() < deadline and not re.search(r"\[2/2\][^\r]*process 2 of 2", shown):
            shown += terminal.read()
            time.sleep(0.005)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=60)
        shown += terminal.read()
    assert process.returncode == code
    assert "Incomplete" in printed
    assert f"2 of 2 configurations were measured; they are in {out}/results.jsonl" in shown
    assert "quick.fake" in printed
    assert "Traceback" not in shown
    results = [result for result in store.read(out / "results.jsonl") if result.identity.backend == "fake"]
    assert [(each.identity.subject, each.status, len(each.samples)) for each in results] == [
        ("quick.fake", "ok", 2),
        ("slow.fake", "ok", 1),
    ]
    assert "processes-missing" in [warning.code for warning in Figures(results[1]).warnings]
    for name in ("results.md", "results.html"):
        assert "ncomplete" in (out / name).read_text()
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
        "    heavy = {'numpy', 'torch', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules)\n"
        "    sys.stderr.write(f'{end.code} {sorted(heavy)}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "0 []"
    assert "run" in done.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (("lo",), {"load"}),
        (("paper", "deg"), {"degradation"}),
        (("load", "--shape", "S"), {"single-stream", "server"}),
        (("run", "--baseline", "open"), {"openvino"}),
        (("run", "resnet11"), {"resnet110", "resnet11"}),  # the last one stands for files
        (("completion", ""), {"bash", "zsh", "fish"}),
    ],
)
def test_a_shell_completes_commands_and_names(words: tuple[str, ...], completed: set[str]) -> None:
    line = " ".join(["rbench", *words[:-1], words[-1] or "''"])
    asked = {"_RBENCH_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    answer = CliRunner(env=asked).invoke(cli.rbench, prog_name="rbench").output
    assert {line.split(",", 1)[1] for line in answer.splitlines()} == completed
