"""An opened model from its first to its last moment: copies, closing in every way, and the end of the interpreter."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
from runtimes import Artifact, Classifier, Runtime
from runtimes.errors import UsageError
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.samples import SCRIPT

REPO = Path(__file__).resolve().parents[2]
ONE = {"input": np.ones((1, 3, 8, 8), np.float32)}


def _spawn(opened: object) -> None:
    multiprocessing.get_context("spawn").Process(target=print, args=(opened,)).start()


COPIES: dict[str, Callable[[Any], object]] = {
    "pickle": pickle.dumps,
    "an old pickle": lambda opened: pickle.dumps(opened, protocol=0),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "in a list": lambda opened: pickle.dumps([opened, 1]),
    "spawn": _spawn,
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("opens", [runtimes.open, Classifier.open])
def test_no_copy_of_an_opened_model(fake_artifact: FakeFactory, opens: Any, way: str) -> None:
    path = fake_artifact().path
    name = "runtimes.open(" if opens is runtimes.open else "runtimes.Classifier.open("
    with opens(path) as opened, refuses(UsageError, "model-not-picklable", path, name):
        COPIES[way](opened)


def test_what_crosses_processes_can_be_pickled(fake_artifact: FakeFactory) -> None:
    artifact = fake_artifact()
    with Classifier.open(artifact.path) as classifier:
        prediction = classifier.predict(np.zeros((8, 8, 3), np.uint8))
        description = classifier.runtime.description
    for value in (artifact.manifest, artifact, prediction, description, classifier.preprocessing):
        assert pickle.loads(pickle.dumps(value)) == value
    with refuses(UsageError, "runtime-closed") as caught:
        classifier.predict(np.zeros((8, 8, 3), np.uint8))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.code) == (UsageError, str(caught.value), "runtime-closed")


USES: dict[str, Callable[[Runtime], object]] = {
    "infer": lambda runtime: runtime.infer(ONE),
    "infer of no images": lambda runtime: runtime.infer({"input": ONE["input"][:0]}),
    "infer on the device": lambda runtime: runtime.infer(ONE, device_outputs=True),
    "infer_async": lambda runtime: runtime.infer_async(ONE),
    "bind": lambda runtime: runtime.bind(ONE),
    "bind_timed": lambda runtime: runtime.bind_timed(ONE),
    "empty_inputs": lambda runtime: runtime.empty_inputs(),
}


@pytest.mark.parametrize("use", USES)
def test_no_use_after_closing(fake_artifact: FakeFactory, use: str) -> None:
    runtime = runtimes.open(fake_artifact().path)
    bound = runtime.bind(ONE)
    runtime.close()
    runtime.close()
    with refuses(UsageError, "runtime-closed"):
        USES[use](runtime)
    with refuses(UsageError, "runtime-closed"):
        bound()
    assert runtime.description.backend == "fake"
    assert "scripted.fake" in repr(runtime)


def test_many_threads_close_once(onnx_artifact: Artifact) -> None:
    runtime = runtimes.open(onnx_artifact.path, threads=1)
    threads = [threading.Thread(target=runtime.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_a_cancelled_await_leaves_the_runtime_usable(fake_artifact: FakeFactory) -> None:
    with runtimes.open(fake_artifact(replace(SCRIPT, delays_s=(0.05,))).path) as runtime:

        async def cancel() -> None:
            running, waiting = (asyncio.wrap_future(runtime.infer_async(ONE)) for _ in range(2))
            waiting.cancel()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(running, 0.001)
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(cancel())
        assert runtime.infer(ONE)["logits"].shape == (1, 10)


def test_garbage_in_a_thread_frees_a_model(onnx_artifact: Artifact) -> None:
    made: list[Any] = [runtimes.open(onnx_artifact.path, backend, threads=1) for backend in ("onnxruntime", "openvino")]
    errors: list[BaseException] = []

    def collect() -> None:
        try:
            made.clear()
            gc.collect()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    thread.join(20)
    assert (thread.is_alive(), errors) == (False, [])


END = """
import os, signal, sys, threading
import numpy as np
import runtimes
path, backend, way = sys.argv[1:]
runtime = runtimes.open(path, backend, threads=1)
feeds = {"input": np.zeros((1, 3, 32, 32), "float32")}
runtime.infer(feeds)
cycle = [runtime]
cycle.append(cycle)
def infer():
    started.set()
    while True:
        runtime.infer(feeds)
started = threading.Event()
if way == "daemon":
    threading.Thread(target=infer, daemon=True).start()
    started.wait()
elif way == "waiting":
    for _ in range(20):
        runtime.infer_async(feeds)
elif way == "interrupt":
    signal.raise_signal(signal.SIGINT)
elif way == "exception":
    raise SystemExit(9)
sys.exit(7)
"""


@pytest.mark.parametrize(
    ("backend", "way", "status"),
    [
        ("onnxruntime", "daemon", 7),
        ("openvino", "daemon", 7),
        ("onnxruntime", "waiting", 7),
        pytest.param("openvino", "waiting", 7, marks=pytest.mark.slow),
        pytest.param("openvino", "open", 7, marks=pytest.mark.slow),
        pytest.param("onnxruntime", "open", 7, marks=pytest.mark.slow),
        pytest.param("openvino", "interrupt", -2, marks=pytest.mark.slow),
        pytest.param("onnxruntime", "exception", 9, marks=pytest.mark.slow),
    ],
)
def test_the_interpreter_ends_with_an_open_model(onnx_artifact: Artifact, backend: str, way: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", END, str(onnx_artifact.path), backend, way], cwd=REPO, capture_output=True, timeout=120
    )
    assert done.returncode == status, done.stderr.decode()
