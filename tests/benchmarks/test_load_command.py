from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.analysis.figures import Figures
from benchmarks.commands.measure import load as command
from benchmarks.format import milliseconds
from benchmarks.load import run as loadrun
from benchmarks.load.run import BATCHES, LONGEST_WAIT_S, LoadPoint, LoadSpec, points, require_requests, run
from benchmarks.records import store
from benchmarks.records.plan import SHAPES
from benchmarks.records.request import BenchmarkRequest, RunListener
from benchmarks.records.result import Result
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

SILENT = RunListener(lambda *_: None, lambda _: None)


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
    stream, server, fixed, clients, _, cold = loads
    assert server.rate_per_s == 0.7 * stream.achieved_per_s
    assert (server.rate_share, fixed.rate_share) == (0.7, None)
    assert "70%" in (rows[1].note or "")
    assert (fixed.rate_per_s, clients.clients) == (200.0, 2)
    assert cold.disk_bytes
    for heading in ("offered/s", "service ms", "response ms", "images/s", "Python start"):
        assert heading in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "\x1b" not in done.stdout
    assert ["[4/6] fake", "clients 2"] in [line.split(" · ") for line in done.stderr.splitlines()]
    assert sorted(os.listdir(out)) == ["results.csv", "results.html", "results.jsonl", "results.md"]


def test_the_time_left_and_the_last_figure_are_shown(tmp_path: Path) -> None:
    path = artifact(tmp_path, replace(SCRIPT, delays_s=(0.002,)))
    steps: list[tuple[str, str]] = []
    left: list[float | None] = []
    listener = RunListener(lambda subject, step: steps.append((subject, step)), lambda _: None, left.append)
    load_spec = LoadSpec(shapes=("single-stream", "clients"), clients=(1, 2))
    rows = list(run(BenchmarkRequest((str(path),), threads=1, duration_s=0.02), load_spec, listener))
    assert [row.status for row in rows] == ["ok", "ok", "ok"]
    assert all(one is not None and one > 0 for one in left)
    assert len(left) >= 3
    last = {subject: step for subject, step in steps if step.startswith("start")}
    first, second, third = last.values()
    assert first == "start"
    for told, row, point in ((second, rows[0], "single-stream"), (third, rows[1], "clients 1")):
        assert point in told
        p50 = Figures(row).p50
        assert p50 is not None
        assert f" {milliseconds(p50.value)} ms)" in told


@pytest.mark.parametrize(
    ("arguments", "code", "value"),
    [
        (["resnet21"], 2, "'resnet21'"),
        (["--backend", "x", "{path}"], 2, "error[backend-unknown]"),
        (["--backend", "pytorch", "{path}"], 2, "error[format-not-opened]"),
        (["--device", "cuda", "{path}"], 5, "error[device-missing]: --device cuda"),
        (["--shape", "sideways", "{path}"], 2, "'sideways'"),
        (["missing.onnx"], 6, "error[model-missing]: missing.onnx"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(arguments: list[str], code: int, value: str, tmp_path: Path) -> None:
    path = foreign(tmp_path)
    done = load(*(argument.format(path=path) for argument in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    assert value in done.stderr


def test_without_a_single_stream_the_server_has_no_rate(tmp_path: Path) -> None:
    path, lines = foreign(tmp_path, replace(SCRIPT, fail_at=0)), tmp_path / "lines.jsonl"
    done = load(path, "--shape", "open", "--json", lines)
    assert done.returncode == 1
    stream, server = store.read(lines)
    assert (stream.status, server.status) == ("error", "failed")
    for row, shape, value in ((stream, "single-stream: ", " 0"), (server, "server: ", "--rate")):
        assert str(row.reason).startswith(shape)
        assert value in str(row.reason)
    assert stream.load is server.load is None
    assert f"error: {stream.reason}" in done.stdout


@pytest.mark.parametrize(
    ("foreign_cores", "strict", "code"),
    [(0.0, True, 0), (1.5, True, 1), (1.5, False, 0), (None, True, 1), (None, False, 0)],
)
def test_strict_is_for_loads_too(
    foreign_cores: float | None, strict: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = None if foreign_cores is None else replace(QUIET, foreign_cores=foreign_cores, processors=2)
    result = change_facts(EMPTY, load=LoadResult("single-stream", (0.1,) * 5, (0.1,) * 5, 10.0, conditions=seen))
    monkeypatch.setattr(loadrun, "run", lambda *_: (one for one in [result]))
    done = CliRunner().invoke(command, ["--shape", "single-stream", *(["--strict"] if strict else [])])
    assert done.exit_code == code, done.output


@pytest.mark.parametrize(
    ("words", "notices"),
    [
        (["--shape", "closed", "--rate", "5"], ["without --shape server: --rate"]),
        (["--shape", "SERVER", "--rate", "5"], []),
        (["--shape", "paced", "--fps", "5", "--clients", "2"], ["without --shape clients: --clients"]),
        (["--shape", "cold", "--batch", "2"], ["without --shape batches: --batch"]),
        (["--weights", "bundled"], ["on a model file: --weights"]),
        (["--rate", "5", "--fps", "5", "--batch", "2", "--clients", "2"], []),
    ],
)
def test_options_without_effect_are_notices(
    words: list[str], notices: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    specs: list[LoadSpec] = []

    def measured(_: BenchmarkRequest, load_spec: LoadSpec, *__: object) -> Iterator[Result]:
        specs.append(load_spec)
        yield change_facts(EMPTY, load=LoadResult("single-stream", (0.1,) * 5, (0.1,) * 5, 10.0))

    monkeypatch.setattr(loadrun, "run", measured)
    done = CliRunner().invoke(command, [str(foreign(tmp_path)), *words])
    said = [f"warning[options-without-effect]: no effect {notice}" for notice in notices]
    assert (done.exit_code, done.stderr.splitlines()) == (0, said)
    assert set(specs[0].shapes) <= set(SHAPES)


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
    reached, unreached = store.read(lines)
    assert reached.load is not None
    assert reached.load.shape == "single-stream"
    assert (unreached.status, unreached.reason and unreached.reason.code) == ("skipped", "not-reached")
    assert str(unreached.reason).startswith("fixed-rate: ")
    assert "Incomplete" in out


def test_the_points_are_what_was_asked_for() -> None:
    request, half = BenchmarkRequest(duration_s=2.0, batches=(8, 2)), 1.0
    load_spec = LoadSpec(("server", "clients", "batches", "fixed-rate"), clients=(3,), frames_per_s=10.0)
    assert points(load_spec, request, None) == (
        LoadPoint("single-stream", 1, 2.0),  # for the server's rate
        LoadPoint("server", 1, 2.0),
        LoadPoint("clients", 1, half, 3),
        LoadPoint("batches", 8, half),
        LoadPoint("batches", 2, half),
        LoadPoint("fixed-rate", 1, 6.0),  # 60 frames
    )
    alone = replace(load_spec, shapes=("server",), rate_per_s=5.0)
    assert points(alone, request, None) == (LoadPoint("server", 1, 2.0),)


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
        ({"rate_per_s": float("nan")}, "rate-not-positive", "nan"),
        ({"frames_per_s": 0.0}, "rate-not-positive", "0.0"),
    ],
)
def test_impossible_demands_are_refused(options: dict[str, object], code: str, value: str) -> None:
    with refuses(UsageError, code, value):
        LoadSpec(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "duration_s", "value"),
    [
        ({"shapes": ("server",), "rate_per_s": 1e-9}, 2.0, "--rate"),
        ({"shapes": ("server",), "rate_per_s": 2.4}, 2.0, "--duration 2.09"),
        ({"shapes": ("fixed-rate",), "frames_per_s": 0.2}, 0.05, "--duration 25"),
        ({"shapes": ("fixed-rate",), "frames_per_s": 5e-324}, 3600.0, "--fps"),
        ({"rate_per_s": 1e-9}, 2.0, "--rate"),
    ],
)
def test_a_rate_that_gives_no_requests_is_refused(options: dict[str, Any], duration_s: float, value: str) -> None:
    with refuses(UsageError, "rate-too-low", value):
        next(run(BenchmarkRequest(duration_s=duration_s), LoadSpec(**options), SILENT))


def test_a_rate_that_gives_a_handful_is_measured() -> None:
    slow = LoadSpec(("fixed-rate", "server"), rate_per_s=2.5, frames_per_s=0.5)
    require_requests(slow, BenchmarkRequest(duration_s=2.0))
    assert points(slow, BenchmarkRequest(duration_s=2.0), None)[0].duration_s == LONGEST_WAIT_S


def test_a_fixed_batch_is_what_every_call_has(tmp_path: Path) -> None:
    path, lines = artifact(tmp_path, with_batch(SCRIPT, 3)), tmp_path / "lines.jsonl"
    done = load(path, "--shape", "single-stream", "--duration", 0.02, "--json", lines)
    assert done.returncode == 0, done.stdout
    (row,) = store.read(lines)
    assert (row.status, row.identity.batch) == ("ok", 3)
