from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.analysis.figures import Figures
from benchmarks.commands.measure import load as command
from benchmarks.format import milliseconds
from benchmarks.load import run as loadrun
from benchmarks.load.run import BATCHES, LoadPoint, LoadSpec, points, run
from benchmarks.records import store
from benchmarks.records.plan import SHAPES
from benchmarks.records.request import BenchmarkRequest, RunListener
from benchmarks.records.samples import LoadResult
from runtimes.errors import UsageError
from runtimes.processors import usable_processors
from tests.benchmarks.results import EMPTY, QUIET, change_facts
from tests.benchmarks.scripts import SCRIPT, artifact, foreign, with_batch
from tests.processes import default_interrupt
from tests.refusals import refuses

RBENCH = (
    sys.executable,
    "-c",
    "from exporter.commands import terminal; from benchmarks.commands.measure import load; terminal.run(load)",
)


def load(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RBENCH, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


def test_every_shape_is_a_row_with_its_load(tmp_path: Path) -> None:
    path, out = artifact(tmp_path, replace(SCRIPT, delays_s=(0.002,))), tmp_path / "out"
    options = ("--threads", 1, "--duration", 0.05, "--fps", 200, "--clients", 2, "--batch", 4)
    done = load(path, *options, "-o", out)
    assert done.returncode == 0, done.stderr
    rows = store.read(out / "results.jsonl")
    loads = [row.load for row in rows if row.load]
    assert tuple(found.shape for found in loads) == SHAPES
    assert [row.identity.batch for row in rows] == [1, 1, 1, 1, 4, 1]
    assert {(row.status, row.identity.backend, row.identity.subject) for row in rows} == {("ok", "fake", "net.fake")}
    closed, opened, paced, clients, _, cold = loads
    assert opened.rate_per_s == 0.7 * closed.achieved_per_s
    assert (opened.rate_share, paced.rate_share) == (0.7, None)
    assert "70%" in (rows[1].note or "")
    assert (opened.arrivals, paced.rate_per_s, clients.clients) == ("poisson", 200.0, 2)
    assert cold.disk_bytes
    for heading in ("offered/s", "service ms", "response ms", "images/s", "Python start"):
        assert heading in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "\x1b" not in done.stdout
    assert ["net.fake", "fake", "clients 2"] in [line.split(" · ") for line in done.stderr.splitlines()]
    assert sorted(os.listdir(out)) == ["results.csv", "results.html", "results.jsonl", "results.md"]


def test_the_time_left_and_the_last_figure_are_shown(tmp_path: Path) -> None:
    path = artifact(tmp_path, replace(SCRIPT, delays_s=(0.002,)))
    steps: list[tuple[str, str]] = []
    left: list[float | None] = []
    listener = RunListener(lambda subject, step: steps.append((subject, step)), lambda _: None, left.append)
    load_spec = LoadSpec(shapes=("closed", "clients"), clients=(1, 2))
    rows = list(run(BenchmarkRequest((str(path),), threads=1, duration_s=0.02), load_spec, listener))
    assert [row.status for row in rows] == ["ok", "ok", "ok"]
    assert left[0] is None
    assert all(one is not None and one > 0 for one in left[1:])
    assert len(left) == 3
    last = {subject: step for subject, step in steps if step.startswith("start")}
    first, second, third = last.values()
    assert first == "start"
    for told, row, point in ((second, rows[0], "closed"), (third, rows[1], "clients 1")):
        assert point in told
        p50 = Figures(row).p50
        assert p50 is not None
        assert f" {milliseconds(p50.value)} ms)" in told


@pytest.mark.parametrize(
    ("arguments", "code", "value"),
    [
        (["resnet21"], 2, "'resnet21'"),
        (["--shape", "closed", "--rate", "5", "{path}"], 2, "error[rate-needs-open-loop]: --rate"),
        (["--weights", "bundled", "{path}"], 2, "error[option-needs-variant]: --weights"),
        (["--backend", "x", "{path}"], 2, "error[backend-unknown]"),
        (["--backend", "pytorch", "{path}"], 2, "error[format-not-opened]"),
        (["--device", "cuda", "{path}"], 2, "'cuda'"),
        (["--shape", "sideways", "{path}"], 2, "'sideways'"),
        (["missing.onnx"], 6, "error[file-access-failed]: missing.onnx"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(arguments: list[str], code: int, value: str, tmp_path: Path) -> None:
    path = foreign(tmp_path)
    done = load(*(argument.format(path=path) for argument in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    assert value in done.stderr


def test_without_a_closed_loop_the_open_loop_has_no_rate(tmp_path: Path) -> None:
    path, lines = foreign(tmp_path, replace(SCRIPT, fail_at=0)), tmp_path / "lines.jsonl"
    done = load(path, "--shape", "open", "--json", lines)
    assert done.returncode == 1
    closed, opened = store.read(lines)
    assert (closed.status, opened.status) == ("error", "failed")
    for row, shape, value in ((closed, "closed: ", " 0"), (opened, "open: ", "--rate")):
        assert str(row.reason).startswith(shape)
        assert value in str(row.reason)
    assert closed.load is opened.load is None
    assert f"error: {closed.reason}" in done.stdout


@pytest.mark.parametrize(
    ("foreign_cores", "strict", "code"),
    [(0.0, True, 0), (1.5, True, 1), (1.5, False, 0), (None, True, 1), (None, False, 0)],
)
def test_strict_is_for_loads_too(
    foreign_cores: float | None, strict: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = None if foreign_cores is None else replace(QUIET, foreign_cores=foreign_cores, processors=2)
    result = change_facts(EMPTY, load=LoadResult("closed", (0.1,) * 5, (0.1,) * 5, 10.0, conditions=seen))
    monkeypatch.setattr(loadrun, "run", lambda *_: (one for one in [result]))
    done = CliRunner().invoke(command, ["--shape", "closed", *(["--strict"] if strict else [])])
    assert done.exit_code == code, done.output


def test_an_interrupt_shows_what_there_is(tmp_path: Path) -> None:
    path, lines = foreign(tmp_path), tmp_path / "lines.jsonl"
    options = ("--shape", "closed", "--shape", "paced", "--duration", "0.05", "--fps", "0.5", "--json", lines)
    with default_interrupt():
        process = subprocess.Popen(
            [*RBENCH, *map(str, (path, *options))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    with process:
        deadline = time.monotonic() + 60
        while not lines.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [row.load.shape for row in store.read(lines) if row.load] == ["closed"]
    assert "Incomplete" in out


def test_the_points_are_what_was_asked_for() -> None:
    request, half = BenchmarkRequest(duration_s=2.0, batches=(8, 2)), 1.0
    load_spec = LoadSpec(("open", "clients", "batches", "paced"), clients=(3,), frames_per_s=10.0)
    assert points(load_spec, request, None) == (
        LoadPoint("closed", 1, 2.0),  # for the open loop's rate
        LoadPoint("open", 1, 2.0),
        LoadPoint("clients", 1, half, 3),
        LoadPoint("batches", 8, half),
        LoadPoint("batches", 2, half),
        LoadPoint("paced", 1, 6.0),  # 60 frames
    )
    assert points(replace(load_spec, shapes=("open",), rate_per_s=5.0), request, None) == (LoadPoint("open", 1, 2.0),)


def test_the_defaults_sweep_powers_of_two_and_keep_a_fixed_b() -> None:
    found = points(LoadSpec(), BenchmarkRequest(), None)
    assert tuple(point.batch for point in found if point.shape == "batches") == BATCHES
    clients = [point.clients for point in found if point.shape == "clients"]
    assert clients == [1 << exponent for exponent in range(len(clients))]
    assert usable_processors() < 2 * clients[-1] <= 4 * usable_processors() * 2
    assert {point.batch for point in points(LoadSpec(), BenchmarkRequest(), 7)} == {7}


@pytest.mark.parametrize(
    ("options", "code", "value"),
    [
        ({"shapes": ("closed",), "rate_per_s": 5.0}, "rate-needs-open-loop", "--rate"),
        ({"rate_per_s": float("nan")}, "rate-not-positive", "nan"),
        ({"frames_per_s": 0.0}, "rate-not-positive", "0.0"),
    ],
)
def test_impossible_demands_are_refused(options: dict[str, object], code: str, value: str) -> None:
    with refuses(UsageError, code, value):
        LoadSpec(**options)  # type: ignore[arg-type]


def test_a_fixed_batch_is_what_every_call_has(tmp_path: Path) -> None:
    path, lines = artifact(tmp_path, with_batch(SCRIPT, 3)), tmp_path / "lines.jsonl"
    done = load(path, "--shape", "closed", "--duration", 0.02, "--json", lines)
    assert done.returncode == 0, done.stdout
    (row,) = store.read(lines)
    assert (row.status, row.identity.batch) == ("ok", 3)
