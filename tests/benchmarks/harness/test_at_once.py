"""Several GPUs: each alone, and then all at once. The backend of scripts stands for one that runs on GPUs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from benchmarks.analysis.at_once import totals
from benchmarks.analysis.figures import Figures
from benchmarks.harness import harness
from benchmarks.harness import run as runs
from benchmarks.harness.scheduler import ScheduledJob, gather
from benchmarks.records import store
from benchmarks.records.identity import configuration, find_timed_reference
from benchmarks.records.request import BenchmarkRequest
from benchmarks.report.document import run_document
from exporter.document.terminal import as_text
from runtimes.backends import fake, registry
from runtimes.errors import UsageError
from tests.benchmarks.harness.test_harness import LISTENER, QUICK, TIMED
from tests.benchmarks.harness.test_scheduler import METHOD, Ears, program
from tests.benchmarks.scripts import JOB, artifact
from tests.refusals import refuses

WORKER = """
import sys
from dataclasses import replace
from runtimes.backends import fake, registry
fake.BACKEND = replace(fake.BACKEND, devices=("cpu", "cuda"))
rows = registry.all_backends
found = tuple(fake.BACKEND if row.name == "fake" else row for row in rows())
registry.all_backends = lambda: found
from runtimes.tensors import presence
presence.find_missing = lambda _: None
from runtimes import selection
selection.find_missing = lambda _: None
from benchmarks.worker.__main__ import main
FAILS_ON
sys.exit(main(sys.argv[1:]))
"""
"""A real worker, on a machine with as many GPUs as are asked for."""

FAILS_ON = """
import json
job = json.load(open(sys.argv[1]))
if job["device"] == "cuda:1" and job["number"]:
    sys.exit(3)
"""


@contextmanager
def gpus(code: str = "") -> Iterator[None]:
    """Two GPUs. ``code`` runs in each worker before it begins."""
    row = replace(fake.BACKEND, devices=("cpu", "cuda"))
    rows = tuple(row if other.name == row.name else other for other in registry.all_backends())
    program = (sys.executable, "-c", WORKER.replace("FAILS_ON", code))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "all_backends", lambda: rows)
        patch.setattr(harness, "ScheduledJob", partial(ScheduledJob, program=program))
        yield


def measure(folder: Path, processes: int = 1) -> tuple[Figures, ...]:
    request = replace(
        QUICK, subjects=(str(artifact(folder, TIMED)),), backends=("fake",), device="cuda,cuda:1", processes=processes
    )
    return Figures.of_all(list(runs.run(request, LISTENER)))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Figures, ...]:
    with gpus():
        return measure(tmp_path_factory.mktemp("gpus"))


def test_each_gpu_alone_and_then_both_at_once(found: tuple[Figures, ...]) -> None:
    both = ("cuda", "cuda:1")
    rows = [(each.result.status, each.result.ran.device, each.result.asked.at_once) for each in found]
    assert rows == [("ok", "cuda", ()), ("ok", "cuda:1", ()), ("ok", "cuda", both), ("ok", "cuda:1", both)]
    assert len({each.result.asked.group for each in found}) == 3
    (total,) = totals(found)
    rates = [each.images_per_s or 0.0 for each in found]
    assert (total.devices, total.images_per_s, total.alone_per_s) == (both, sum(rates[2:]), sum(rates[:2]))
    assert total.efficiency == pytest.approx(sum(rates[2:]) / sum(rates[:2]))
    assert totals(found[:3]) == ()  # of one of two nothing is the sum
    with gpus():
        text = as_text(run_document(found))
    assert "cuda:1 at once" in text
    assert text.count("once, 1 thread") == 1


def test_a_row_is_compared_on_its_own_gpu(found: tuple[Figures, ...], tmp_path: Path) -> None:
    results = [each.result for each in found]
    for result in results:
        assert find_timed_reference(result, results) is result
    assert len({configuration(result) for result in results}) == 4
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"".join(store.format_line(result, {}) for result in results))
    assert [result.asked for result in store.read(path)] == [result.asked for result in results]


def test_a_gpu_that_fails_leaves_no_sum(tmp_path: Path) -> None:
    """Else the other one would be taken for both."""
    with gpus(FAILS_ON):
        found = measure(tmp_path, processes=2)
    assert [each.result.status for each in found] == ["ok", "error", "error", "error"]
    reasons = [each.result.reason.code for each in found if each.result.reason is not None]
    assert reasons[1:].count("devices-not-at-once") == 1
    assert totals(found) == ()


MEETING = r"""
import json, pathlib, sys, time
job, told = json.load(open(sys.argv[1])), lambda: sys.stdin.readline().split() or sys.exit()
folder, mine = pathlib.Path(job["artifact"]).parent, job["device"]
told()
print("\x01opened 1000000", flush=True)
told()
print("\x01ready 0.001", flush=True)
turn = 0
while told()[0] == "turn":
    turn += 1
    (folder / f"{turn}-{mine}").touch()
    deadline = time.monotonic() + LIMIT_S
    while len(list(folder.glob(f"{turn}-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    met = len(list(folder.glob(f"{turn}-*"))) == 2
    print(f"\x01turned {0.001 if met else 9.0}", flush=True)
    print("met" if met else "missed", flush=True)
open(sys.argv[2], "w").write(json.dumps({"status": "ok"}))
"""
"""Waits in each turn until the other process is in the same one."""


@pytest.mark.parametrize(("at_once", "limit_s", "said"), [(True, 60.0, "met"), (False, 0.05, "missed")])
def test_turns_at_once_begin_together(tmp_path: Path, at_once: bool, limit_s: float, said: str) -> None:
    """And without it they take turns, so that the first process waits in vain."""
    jobs = [
        ScheduledJob(
            name,
            replace(JOB, artifact=str(tmp_path / "x"), device=name),
            program(MEETING.replace("LIMIT_S", str(limit_s))),
        )
        for name in ("cuda", "cuda:1")
    ]
    ears = Ears()
    *_, found = gather(jobs, replace(METHOD, processes=1), tmp_path, ears, at_once)
    assert [outcomes.sound for outcomes in found] == [True, True]
    assert any(line.endswith(said) for line in ears.lines)
    assert at_once == (not any(line.endswith("missed") for line in ears.lines))


def test_which_devices_a_request_may_name() -> None:
    request = BenchmarkRequest(device="CUDA:0,cuda:1")
    assert (request.device, request.devices, request.device_kind) == ("cuda:0,cuda:1", ("cuda", "cuda:1"), "cuda")
    assert BenchmarkRequest(device="cuda:0").device == "cuda"
    with refuses(UsageError, "device-kinds-differ"):
        BenchmarkRequest(device="cpu,cuda")
