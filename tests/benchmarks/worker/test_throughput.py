"""Calls from several threads: their rate, their answers, and what happens when one of them fails."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.records.plan import Plan
from benchmarks.records.samples import ConcurrentSeries
from benchmarks.worker.throughput import ConcurrentCalls
from runtimes.errors import CheckFailedError, ResourceError
from runtimes.protocol import Arrays
from tests.refusals import refuses

FEEDS: list[Arrays] = [{"x": np.full(1, value)} for value in (1.0, 2.0, 3.0)]
EXPECTED: list[Arrays] = [{"y": 2 * feed["x"]} for feed in FEEDS]


def twice(arrays: Arrays) -> Arrays:
    return {"y": 2 * arrays["x"]}


class Ticking:
    """A clock of its own for each thread, on which a call takes 1/8 s."""

    def __init__(self) -> None:
        self._own = threading.local()

    def __call__(self) -> float:
        return float(getattr(self._own, "s", 0.0))

    def wait(self, seconds: float) -> None:
        self._own.s = self() + seconds

    def infer(self, arrays: Arrays) -> Arrays:
        self.wait(1 / 8)
        return twice(arrays)


def calls(streams: int, infer: Callable[[Arrays], Arrays] = twice, clock: Ticking | None = None) -> ConcurrentCalls:
    if clock is None:
        return ConcurrentCalls(infer, FEEDS, EXPECTED, streams)
    return ConcurrentCalls(clock.infer, FEEDS, EXPECTED, streams, clock=clock)


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_the_rates_of_the_threads_add_up(streams: int) -> None:
    made = calls(streams, clock=Ticking())
    for duration_s in (1.0, 2.0):
        made.turn(duration_s)
    assert made.series() == ConcurrentSeries(streams, (8.0 * streams,) * 2)


def test_even_a_short_window_has_two_calls_of_each_thread() -> None:
    counted: list[int] = []

    def infer(arrays: Arrays) -> Arrays:
        counted.append(threading.get_ident())
        return twice(arrays)

    calls(3, infer).turn(0.0)
    assert all(counted.count(thread) >= 2 for thread in set(counted))
    assert len(set(counted)) == 3


def test_all_threads_call_at_the_same_time() -> None:
    inside = threading.Barrier(4, timeout=60)

    def infer(arrays: Arrays) -> Arrays:
        if not inside.broken:
            inside.wait()
            inside.abort()
        return twice(arrays)

    def meet(arrays: Arrays) -> Arrays:
        try:
            return infer(arrays)
        except threading.BrokenBarrierError:
            return twice(arrays)

    calls(4, meet).turn(0.0)
    assert inside.broken  # the four met, or the first wait would have timed out with an error


def test_what_a_thread_prepares_in_its_first_calls_is_not_timed() -> None:
    """As cuDNN's search for algorithms, which each thread makes for itself."""
    clock, prepared = Ticking(), threading.local()

    def infer(arrays: Arrays) -> Arrays:
        if not hasattr(prepared, "done"):
            prepared.done = True
            clock.wait(1000.0)
        return clock.infer(arrays)

    made = ConcurrentCalls(infer, FEEDS, EXPECTED, 3, clock=clock)
    for _ in range(4):
        made.turn(1.0)
    assert made.series().rates_per_s == (8.0 * 3,) * 4


def test_answers_of_another_algorithm_are_within_the_tolerance() -> None:
    def infer(arrays: Arrays) -> Arrays:
        return {"y": 2 * arrays["x"] * 1.005}

    ConcurrentCalls(infer, FEEDS, EXPECTED, 2, tolerance=1e-2).turn(0.0)
    with refuses(CheckFailedError, "concurrent-output-changed"):
        calls(2, infer).turn(0.0)


def test_the_warm_up_ends_when_the_rates_agree() -> None:
    clock = Ticking()
    made = calls(2, clock=clock)
    made.warm_up(Plan(window_s=1.0))
    assert made.series().rates_per_s == ()


def test_answers_that_are_mixed_up_between_threads_are_found() -> None:
    shared = np.zeros(1)

    def infer(arrays: Arrays) -> Arrays:
        shared[...] = 2 * arrays["x"] + 1
        return {"y": shared}

    with refuses(CheckFailedError, "concurrent-output-changed", "'y'", "beside 1 others"):
        calls(2, infer).turn(0.0)


def test_a_thread_that_fails_ends_all_with_its_error() -> None:
    lock, left = threading.Lock(), [5]

    def infer(arrays: Arrays) -> Arrays:
        with lock:
            left[0] -= 1
            if left[0] == 0:
                raise ResourceError("out of memory", code="gpu-out-of-memory")
        return twice(arrays)

    with refuses(ResourceError, "gpu-out-of-memory"):
        calls(2, infer).turn(0.05)


def test_a_thread_that_fails_early_ends_those_that_wait() -> None:
    lock, left = threading.Lock(), [1]

    def infer(arrays: Arrays) -> Arrays:
        with lock:
            left[0] -= 1
            if left[0] < 0:
                raise ResourceError("out of memory", code="gpu-out-of-memory")
        return twice(arrays)

    with refuses(ResourceError, "gpu-out-of-memory"):
        calls(3, infer).turn(0.0)
