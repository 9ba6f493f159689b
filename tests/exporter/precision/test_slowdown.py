from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from exporter.precision import slowdown
from exporter.precision.slowdown import describe_measurement, describe_slowdown, median_interval
from runtimes.artifacts.manifest import Slowdown


class Clock:
    """A clock that calls move on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def call(self, *durations_s: float) -> Callable[[], None]:
        """A call that takes these times in turn."""
        times = itertools.cycle(durations_s)

        def run() -> None:
            self.now_s += next(times)

        return run


def test_both_graphs_take_turns_and_a_disturbance_cancels() -> None:
    clock = Clock()
    order: list[str] = []

    def timed(name: str, duration_s: float) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            clock.now_s += duration_s * (3 if len(order) > 400 else 1)  # from then on, the machine is slower

        return run

    ratios = slowdown._time_rounds(timed("typed", 0.0012), timed("plain", 0.001), clock)
    assert len(ratios) == slowdown.ROUNDS
    assert np.median(ratios) == pytest.approx(1.2)
    turns = [name for name, _ in itertools.groupby(order[2 * slowdown.WARM_CALLS :])]
    assert turns[:4] == ["plain", "typed", "plain", "typed"]


def test_a_slow_call_is_timed_once_in_a_round() -> None:
    clock = Clock()
    slowdown._time_rounds(clock.call(2.0), clock.call(1.0), clock)
    assert clock.now_s == pytest.approx(3.0 * (slowdown.ROUNDS + slowdown.WARM_CALLS))


def test_the_interval_covers_the_median_19_times_of_20() -> None:
    random = np.random.default_rng(0)
    intervals = [median_interval(random.exponential(1.0, slowdown.ROUNDS).tolist()) for _ in range(4000)]
    share = np.mean([low <= np.log(2) <= high for low, high in intervals])
    assert share == pytest.approx(0.95, abs=0.02)


def test_a_slowdown_says_its_figures() -> None:
    record = Slowdown(1.125, (1.1, 1.15), "openvino 1", 2, 1, 20)
    assert {"1.12x", "[1.10,", "1.15]"} <= set(describe_slowdown(record).split())
    assert {"openvino", "2", "20"} <= set(describe_measurement(record).split())
