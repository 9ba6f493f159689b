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
from click.testing import CliRunner

from benchmarks import cli
from benchmarks.commands.load import SHAPE_NAMES
from benchmarks.commands.load import load as command
from benchmarks.format import milliseconds
from benchmarks.load import run as loadrun
from benchmarks.load.figures import with_load
from benchmarks.load.run import BATCHES, LoadPoint, LoadSpec, points, run
from benchmarks.records import store
from benchmarks.records.load import SHAPES, LoadResult
from benchmarks.records.request import BenchmarkRequest, RunListener
from runtimes.errors import UsageError
from runtimes.processors import usable_processors
from tests.benchmarks.rows import EMPTY
from tests.benchmarks.scripts import SCRIPT, artifact, foreign, with_batch
from tests.exporter.command_line import here
from tests.processes import default_interrupt
from tests.refusals import error_codes, refuses

RBENCH = (
    sys.executable,
    "-c",
    "from exporter.commands import terminal; from benchmarks.commands.load import load; terminal.run(load)",
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
    assert [row.batch for row in rows] == [1, 1, 1, 1, 4, 1]
    assert {(row.status, row.runtime, row.subject) for row in rows} == {("ok", "fake", "net.fake")}
    closed, opened, paced, clients, _, cold = loads
    assert opened.rate_per_s == 0.7 * closed.achieved_per_s
    assert (opened.rate_share, paced.rate_share) == (0.7, None)
    assert "70%" in str(rows[1].note)
    assert (opened.arrivals, paced.rate_per_s, clients.clients) == ("poisson", 200.0, 2)
    assert cold.disk_bytes
    for heading in ("net.fake · ", "offered/s", "service ms", "response ms", "images/s", "Python start"):
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
    for row, step, shape in ((rows[0], second, "closed"), (rows[1], third, "clients 1")):
        assert f"{milliseconds(row.p50_s)} ms" in step
        assert shape in step


def test_a_point_takes_the_overhead_of_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = iter((0.0, 3.0, 4.0)), list[float | None]()
    monkeypatch.setattr(loadrun, "time", SimpleNamespace(monotonic=lambda: next(now)))
    ahead = loadrun._Ahead([1.0, 1.0, 0.5], told.append)
    for _ in range(3):
        ahead.begin()
    assert told == [None, 1.5 + 2 * 2.0, 0.5 + 1.0]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "value"),
    [
        (["resnet21"], 2, "variant-unknown", "'resnet21'"),
        (["--shape", "closed", "--rate", "5", "{path}"], 2, "rate-needs-open-loop", "--rate"),
        (["--weights", "bundled", "{path}"], 2, "weights-need-variant", "--weights"),
        (["--backend", "x", "{path}"], 2, "backend-unknown", "'x'"),
        (["--backend", "pytorch", "{path}"], 2, "format-not-opened", "pytorch"),
        (["--device", "cuda", "{path}"], 2, "device-unsupported", "'cuda'"),
        (["--shape", "sideways", "{path}"], 2, "usage", "'sideways'"),
        (["missing.onnx"], 6, "file-access-failed", "missing.onnx"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_line(
    arguments: list[str], exit_code: int, code: str, value: str, tmp_path: Path
) -> None:
    path = foreign(tmp_path)
    done = here(cli.main, "load", *(argument.format(path=path) for argument in arguments))
    assert (done.code, done.stdout, error_codes(done.stderr)) == (exit_code, "", [code])
    assert value in done.stderr


def test_a_failed_load_is_a_row_and_leaves_no_open_rate(tmp_path: Path) -> None:
    path, lines = foreign(tmp_path, replace(SCRIPT, fail_at=0)), tmp_path / "lines.jsonl"
    done = load(path, "--shape", "open", "--json", lines)
    assert done.returncode == 1
    closed, opened = store.read(lines)
    assert (closed.status, opened.status) == ("error", "failed")
    assert "closed: " in str(closed.reason)
    assert "--rate" in str(opened.reason)
    assert closed.load is opened.load is None
    assert str(closed.reason) in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("disturbances", "strict", "code"),
    [((), True, 0), (("steal",), True, 1), (("steal",), False, 0), (None, True, 1), (None, False, 0)],
)
def test_strict_is_for_loads_too(
    disturbances: tuple[str, ...] | None, strict: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = with_load(EMPTY, LoadResult("closed", (0.1,) * 5, (0.1,) * 5, 10.0))
    monkeypatch.setattr(loadrun, "run", lambda *_: (one for one in [replace(row, disturbances=disturbances)]))
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
    assert "incomplete: " in out


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


def test_the_sweeps_are_powers_of_two_unless_batch_is_fixed() -> None:
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
    assert (row.status, row.batch) == ("ok", 3)


def test_the_options_name_every_shape() -> None:
    assert SHAPE_NAMES == SHAPES
