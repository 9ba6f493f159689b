"""The only clock of the harness: warm up until it is steady, then sample in turns, and keep every sample.

One call is one sample, in seconds of a monotonic clock that is read right before and right after it. Python's garbage
collector rests meanwhile. Nothing is dropped and nothing is averaged: statistics are derived elsewhere.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias, TypeVar

from benchmarks.records.plan import Plan
from benchmarks.records.samples import Series

Clock: TypeAlias = Callable[[], float]
T = TypeVar("T")

WINDOWS = 3
"""How many windows in a row must agree before the warm-up ends."""

RENEWAL = 0.1
"""Of a turn's duration: how long the calls before it last that are not counted. The others had their turns meanwhile,
and the caches are theirs. There are none where two calls do not fit into a turn."""


def time_call(call: Callable[[], T], clock: Clock = time.perf_counter) -> tuple[T, float]:
    """What the call gives, and the seconds that it took."""
    start = clock()
    result = call()
    return result, clock() - start


class TimedCall:
    """A call that is timed: warmed up once, then sampled turn by turn.

    The call must return only when its work is finished. What it raises comes through. ``usual_s`` is the median of the
    warm-up's last window.
    """

    def __init__(
        self,
        call: Callable[[], object],
        plan: Plan,
        clock: Clock = time.perf_counter,
        after: Callable[[], object] | None = None,
    ) -> None:
        """``after`` is called between the samples, outside of what is timed."""
        self._call = call
        self._plan = plan
        self._clock = clock
        self._after = after
        self._warmup_s: list[float] = []
        self._rounds_s: list[tuple[float, ...]] = []
        self._settled = False
        self.usual_s = 0.0

    def warm_up(self) -> None:
        """Calls until the windows agree, or the limit is reached."""
        plan, medians = self._plan, list[float]()
        while not self._settled and math.fsum(self._warmup_s) < plan.warmup_limit_s:
            window = self._samples(plan.window_s, 1, plan.max_samples)
            self._warmup_s += window
            self.usual_s = statistics.median(window)
            medians = [*medians, self.usual_s][-WINDOWS:]
            self._settled = len(medians) == WINDOWS and max(medians) <= min(medians) * (1 + plan.agreement)

    def renew(self, duration_s: float) -> list[float]:
        """A few more calls to warm up, before a turn of that duration, if others had theirs since the last one. What
        they took."""
        if 2 * self.usual_s > duration_s:
            return []
        renewal = self._samples(RENEWAL * duration_s, 1, self._plan.max_samples)
        self._warmup_s += renewal
        return renewal

    def turn(self, duration_s: float, least: int = 1, most: int | None = None) -> tuple[float, ...]:
        """The samples of one round: until they add up to ``duration_s`` and are ``least``, ``most`` at most."""
        samples = tuple(self._samples(duration_s, least, most or self._plan.max_samples))
        self._rounds_s.append(samples)
        return samples

    def series(self) -> Series:
        """All that was sampled so far, to nanoseconds, which is what the clock tells."""
        warmup, *rounds = (
            tuple(round(sample, 9) for sample in samples) for samples in (self._warmup_s, *self._rounds_s)
        )
        return Series(warmup, self._settled, tuple(rounds))

    def _samples(self, duration_s: float, least: int, most: int) -> list[float]:
        clock, call, after = self._clock, self._call, self._after
        samples: list[float] = []
        total = 0.0
        while len(samples) < most and (total < duration_s or len(samples) < least):
            start = clock()
            call()
            sample = clock() - start
            total += sample
            samples.append(sample)
            if after is not None:
                after()
        return samples


def time_reported(call: Callable[[], float], plan: Plan) -> TimedCall:
    """As ``TimedCall``, of a call that gives the seconds that it took by a clock of its own, as a device has one.

    What passes between the calls, and in them by any other clock, does not count: the plan's durations are sums of what
    the calls give.
    """
    now_s = 0.0

    def run() -> None:
        nonlocal now_s
        now_s += call()

    return TimedCall(run, plan, lambda: now_s)


@contextlib.contextmanager
def garbage_collector_at_rest() -> Iterator[None]:
    """Python's garbage collector has done its work, and does none until the end; its state is restored in any case."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
