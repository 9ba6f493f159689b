"""Processes forked while a model is open: they end, refuse the parent's model, and open their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtimes import Artifact

REPO = Path(__file__).resolve().parents[2]

PROGRAM = """
import gc, json, multiprocessing, os, sys, time
import numpy as np
import runtimes
path, backend, guarded = sys.argv[1], sys.argv[2], sys.argv[3] == "guarded"
if not guarded:
    from runtimes import lifetimes
    lifetimes.track = lambda _: None
runtime = runtimes.open(path, backend, threads=2)
(spec,) = runtime.inputs
feeds = {spec.name: np.zeros((2, *spec.shape[1:]), "float32")}
call = runtime.bind(feeds)
call()
expected = runtime.infer(feeds)["logits"].tolist()
runtime.infer_async(feeds).result()

def leave():
    sys.exit(7)

def close():
    runtime.close()
    runtime.close()
    sys.exit(7)

def collect():
    global runtime, call
    del runtime, call
    gc.collect()
    sys.exit(7)

def leave_with():
    with runtime:
        sys.exit(7)

def use():
    acts = [lambda: runtime.infer(feeds), lambda: runtime.infer_async(feeds), lambda: runtime.bind(feeds), call,
            runtime.empty_inputs]
    for act in acts:
        try:
            act()
        except runtimes.RexportError as error:
            if error.code != "runtime-in-fork":
                sys.exit(error.code)
        else:
            sys.exit("used")
    sys.exit(7)

def open_own():
    with runtimes.open(path, backend, threads=2) as own:
        sys.exit(7 if own.infer(feeds)["logits"].tolist() == expected else "another answer")

def fork_again():
    sys.exit(7 if fork(leave) == 7 else "the grandchild did not end")

def fork(act):
    pid = os.fork()
    if pid == 0:
        act()
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hung"

def in_pool(_):
    with runtimes.open(path, backend, threads=1) as own:
        return own.infer(feeds)["logits"].tolist() == expected

LIMIT_S = 20 if guarded else 3
WAYS = [leave, close, collect, leave_with, use, open_own, fork_again] if guarded else [leave]
results = {way.__name__: fork(way) for way in WAYS}
if guarded:
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        results["pool"] = pool.map_async(in_pool, range(2)).get(LIMIT_S)
    process = context.Process(target=leave)
    process.start()
    process.join(LIMIT_S)
    results["process"] = process.exitcode
results["parent"] = runtime.infer(feeds)["logits"].tolist() == expected
runtime.close()
print(json.dumps(results))
"""


def run_program(path: Path, backend: str, *, guarded: bool = True) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), backend, "guarded" if guarded else "bare"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ENDS = dict.fromkeys(["leave", "close", "collect", "leave_with", "use", "open_own", "fork_again", "process"], 7)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_forked_process_ends(onnx_artifact: Artifact, backend: str) -> None:
    assert run_program(onnx_artifact.path, backend) == ENDS | {"pool": [True, True], "parent": True}


@pytest.mark.slow
def test_a_forked_process_of_pytorch_ends(pt2_artifact: Artifact) -> None:
    found = run_program(pt2_artifact.path, "pytorch")
    assert {way: found[way] for way in ("leave", "close", "collect", "use", "parent")} == {
        "leave": 7, "close": 7, "collect": 7, "use": 7, "parent": True
    }  # fmt: skip


@pytest.mark.slow
def test_without_the_guard_it_would_hang(onnx_artifact: Artifact) -> None:
    assert run_program(onnx_artifact.path, "openvino", guarded=False)["leave"] == "hung"
