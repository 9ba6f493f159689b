"""An engine under many threads: every answer its own, no context for two threads at once. On the doubles, which keep
what was queued until it is waited for, so that two threads in one lane are noticed even when they do not collide."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import cuda.bindings.runtime as real
import numpy as np
import pytest

from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.pool import Pool
from runtimes.backends.tensorrt.session import EngineSession
from runtimes.backends.tensorrt.streams import EngineLane
from runtimes.errors import ResourceError
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.networks import NETWORK
from tests.runtimes.backends.tensorrt.test_session import expected, images

THREADS = 8
REQUESTS = 2_000
BATCHES = (1, 2, 3, 5, 8, 9, 20)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return double.installed(monkeypatch)


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    """Python changes threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(ask: Callable[[int], None], threads: int = THREADS) -> list[BaseException]:
    """Runs ``ask(number)`` in that many threads, from a common start; what was raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(threads)

    def work(number: int) -> None:
        start.wait()
        try:
            ask(number)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return errors


def asking(session: EngineSession, requests: int) -> Callable[[int], None]:
    """Asks with batches of the thread's own, and compares each answer with what belongs to it."""

    def ask(number: int) -> None:
        batches = [images(count, 100 + number) for count in BATCHES]
        answers = [expected(batch) for batch in batches]
        order = np.random.default_rng(number).integers(0, len(BATCHES), requests)
        for turn in order:
            found = session.run({"input": batches[turn]})["logits"]
            np.testing.assert_allclose(found, answers[turn], rtol=1e-5, atol=1e-6)

    return ask


def test_eight_threads_get_their_own_answers(recorder: Recorder) -> None:
    profiles = (Profile(1, 1, 1), Profile(1, 4, 8))
    session = double.session(recorder, replace(NETWORK, profiles=profiles), contexts=3)
    assert together(asking(session, REQUESTS)) == []
    assert recorder.faults == []
    assert recorder.count("cudaStreamCreateWithFlags") <= 3 * len(profiles)
    launches, runs = recorder.count("cudaGraphLaunch"), recorder.count("execute_async_v3")
    assert launches + runs >= THREADS * REQUESTS
    assert launches > 0.99 * THREADS * REQUESTS
    session.close()
    assert recorder.cuda.left() == {}


def test_bound_calls_and_tensors_run_beside_requests(recorder: Recorder) -> None:
    session = double.session(recorder, contexts=2)

    def ask(number: int) -> None:
        if number % 2:
            asking(session, 200)(number)
            return
        for turn in range(50):
            call = session.bind({"input": images(1 + turn % 9, number)})
            call()
            call()

    assert together(ask) == []
    assert recorder.faults == []


def test_no_more_lanes_than_allowed_and_the_others_wait(recorder: Recorder) -> None:
    session = double.session(recorder, contexts=2)
    assert together(asking(session, 100)) == []
    assert recorder.count("cudaStreamCreateWithFlags") <= 2
    assert recorder.faults == []


def test_without_memory_for_another_lane_the_others_serve(recorder: Recorder) -> None:
    recorder.memory_bytes = 30_000  # for two lanes of some 11 kB
    session = double.session(recorder, contexts=8, cuda_graphs=False)
    assert together(asking(session, 100)) == []
    gc.collect()
    assert recorder.cuda.left()["streams"] == 2
    assert recorder.faults == []


def test_a_failing_call_keeps_nobody_waiting(recorder: Recorder) -> None:
    session = double.session(recorder, contexts=1)
    recorder.codes["cudaMemcpyAsync"] = [real.cudaError_t.cudaErrorInvalidValue] * 5
    errors = together(asking(session, 20))
    assert [type(error) for error in errors] == [ResourceError] * 5
    assert recorder.faults == []


@pytest.mark.parametrize("make", ["shared", "early"])
def test_a_broken_pool_is_caught(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, make: str) -> None:
    """Of two kinds: one lane for everybody, and a lane that is given on while its last call still waits for it."""

    class Broken(Pool):
        @contextlib.contextmanager
        def lane(self) -> Iterator[EngineLane]:
            if make == "shared":
                with self._changed:
                    if not self._idle:
                        self._idle.append(self._make())
                yield self._idle[0]
                return
            lane = self._take_idle()
            with self._changed:
                self._idle.append(lane)
                self._changed.notify()
            yield lane

    session = double.session(recorder, contexts=2)
    session._pools = tuple(Broken(pool._make, pool._limit) for pool in session._pools)
    slow = recorder.cuda.cudaMemcpyAsync

    def dawdling(dst: int, src: int, count: int, kind: object, stream: int) -> object:
        time.sleep(0.001)
        return slow(dst, src, count, kind, stream)

    monkeypatch.setattr(recorder.cuda, "cudaMemcpyAsync", dawdling)
    errors = together(asking(session, 50))
    # What is seen first (a shared context or stream, or another's answers) is the scheduler's choice.
    assert errors or any("thread" in fault for fault in recorder.faults)
