"""The model in a user's hands: closing while others infer, forks, doubled binding, and memory that must not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes import Artifact, Runtime
from runtimes.errors import ResourceError, UsageError
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.samples import SCRIPT

REPO = Path(__file__).resolve().parents[2]
ONE = {"input": np.ones((1, 3, 8, 8), np.float32)}


@pytest.fixture
def slow(fake_artifact: FakeFactory) -> Runtime:
    """A runtime whose calls take a fifth of a second."""
    return runtimes.open(fake_artifact(replace(SCRIPT, delays_s=(0.2,))).path)


def test_closing_waits_for_calls_and_refuses_later_ones(slow: Runtime) -> None:
    done: list[object] = []
    started = threading.Event()

    def ask() -> None:
        started.set()
        done.append(slow.infer(ONE)["logits"].shape)

    thread = threading.Thread(target=ask)
    thread.start()
    started.wait()
    time.sleep(0.05)
    slow.close()
    assert done == [(1, 10)]
    thread.join()
    for act in (slow.infer, slow.bind):
        with refuses(UsageError, "runtime-closed", "runtimes.open"):
            act(ONE)


def test_closing_under_eight_threads_refuses_cleanly(onnx_artifact: Artifact) -> None:
    feeds = {"input": np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)}
    runtime = runtimes.open(onnx_artifact.path, threads=1)
    expected = runtime.infer(feeds)["logits"]
    refusals: list[str] = []
    wrong: list[object] = []

    def ask() -> None:
        while True:
            try:
                if not np.array_equal(runtime.infer(feeds)["logits"], expected):
                    wrong.append("another answer")
            except UsageError as error:
                refusals.append(error.code)
                return
            except BaseException as error:
                wrong.append(error)
                raise

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    runtime.close()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert refusals == ["runtime-closed"] * 8


def test_closing_again_does_nothing_and_only_one_thread_frees(slow: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[int] = []
    monkeypatch.setattr(slow._session, "close", lambda: freed.append(1))
    threads = [threading.Thread(target=slow.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slow.close()
    assert freed == [1]


def test_it_closes_at_the_end_of_its_block(onnx_artifact: Artifact) -> None:
    def broken() -> None:
        with runtimes.open(onnx_artifact.path) as runtime:
            opened.append(runtime)
            raise KeyError("the caller's own")

    opened: list[Runtime] = []
    with pytest.raises(KeyError, match="the caller's own"):
        broken()
    with refuses(UsageError, "runtime-closed"):
        opened[0].infer({"input": np.zeros((1, 3, 32, 32), np.float32)})


def test_what_was_bound_ends_with_its_runtime(onnx_artifact: Artifact) -> None:
    feeds = {"input": np.zeros((1, 3, 32, 32), np.float32)}
    with runtimes.open(onnx_artifact.path) as runtime:
        first, second = runtime.bind(feeds), runtime.bind(feeds)
        first()
        second()
        first()
    for call in (first, second):
        with refuses(UsageError, "runtime-closed"):
            call()


def test_a_backends_error_leaves_the_runtime_usable(fake_artifact: FakeFactory) -> None:
    with runtimes.open(fake_artifact(replace(SCRIPT, fail_at=1)).path) as runtime:
        runtime.infer(ONE)
        with refuses(ResourceError, "script-call-fails", "call 1"):
            runtime.infer(ONE)
        assert runtime.infer(ONE)["logits"].shape == (1, 10)


FORK = """
import os, sys, threading, time
import numpy as np
import runtimes
runtime = runtimes.open(sys.argv[1], sys.argv[2], threads=1)
(spec,) = runtime.inputs
feeds = {spec.name: np.zeros((1, *spec.shape[1:]), "float32")}
runtime.infer(feeds)
call = runtime.bind(feeds)
threading.Thread(target=lambda: [runtime.infer(feeds) for _ in range(20)], daemon=True).start()
time.sleep(0.01)
pid = os.fork()
if pid == 0:
    for act in (lambda: runtime.infer(feeds), lambda: runtime.bind(feeds), call):
        try:
            act()
        except runtimes.RexportError as error:
            print(type(error).__name__, error.code, os.getppid(), error.what, flush=True)
    runtime.close()
    with runtimes.open(sys.argv[1], sys.argv[2], threads=1) as own:
        print(own.infer(feeds)["logits"].shape, flush=True)
    os._exit(7)
limit = time.monotonic() + 20
while time.monotonic() < limit:
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
        break
    time.sleep(0.01)
else:
    os.kill(pid, 9)
    status = -1
runtime.infer(feeds)
print(os.waitstatus_to_exitcode(status) if status >= 0 else "hung")
"""


@pytest.mark.parametrize("backend", ["fake", "onnxruntime"])
def test_a_fork_is_refused_and_opens_its_own(backend: str, fake_artifact: FakeFactory, onnx_artifact: Artifact) -> None:
    made = onnx_artifact if backend == "onnxruntime" else fake_artifact(replace(SCRIPT, delays_s=(0.05,)))
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(made.path), backend], cwd=REPO, capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stdout + done.stderr
    for line in lines[:3]:
        kind, code, parent, sentence = line.split(" ", 3)
        assert (kind, code) == ("UsageError", "runtime-in-fork")
        assert parent in sentence.split()
    assert lines[3:] == ["(1, 10)", "7"]


LEAKS = """
import json, os, sys
import numpy as np
import runtimes
path, what, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
feeds = {"input": np.zeros((1, 3, 32, 32), "float32")}
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
kept = []
runtime = runtimes.open(path, "onnxruntime", threads=1)
def cycle():
    with runtimes.open(path, "onnxruntime", threads=1) as opened:
        opened.infer(feeds)
def infer():
    runtime.infer(feeds)
def leak():
    runtime.infer(feeds)
    kept.append(bytes(4096))
def keep():
    kept.append(runtimes.open(path, "onnxruntime", threads=1))
act = {"cycle": cycle, "infer": infer, "leak": leak, "keep": keep}[what]
sizes, open_files = [], []
for turn in range(turns):
    act()
    if turn % (turns // 20) == 0:
        sizes.append(resident())
        open_files.append(len(os.listdir("/proc/self/fd")))
print(json.dumps({"sizes": sizes, "files": open_files, "threads": len(os.listdir("/proc/self/task"))}))
"""


def _slope(path: Path, what: str, turns: int) -> float:
    """Bytes that the process grows by a turn, over the second half; files and threads must not grow at all."""
    done = subprocess.run(
        [sys.executable, "-c", LEAKS, str(path), what, str(turns)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},
    )
    found = json.loads(done.stdout)
    half = len(found["sizes"]) // 2
    assert len(set(found["files"][half:])) == 1
    assert found["threads"] < 20
    slope, _ = np.polyfit(np.arange(half, len(found["sizes"])) * (turns // 20), found["sizes"][half:], 1)
    return float(slope)


LIMIT_BYTES_A_CALL = 256
LIMIT_BYTES_A_CYCLE = 65_536
"""The heap breathes by 2 MB between openings; an opened ResNet-20 holds more than 1 MB."""


def test_five_thousand_calls_do_not_leak(onnx_artifact: Artifact) -> None:
    assert _slope(onnx_artifact.path, "infer", 5_000) < LIMIT_BYTES_A_CALL


def test_two_hundred_openings_do_not_leak(onnx_artifact: Artifact) -> None:
    assert _slope(onnx_artifact.path, "cycle", 200) < LIMIT_BYTES_A_CYCLE


def test_a_leak_would_be_seen(onnx_artifact: Artifact) -> None:
    assert _slope(onnx_artifact.path, "leak", 1_000) > 10 * LIMIT_BYTES_A_CALL
    assert _slope(onnx_artifact.path, "keep", 60) > 10 * LIMIT_BYTES_A_CYCLE
