"""The only clock of the harness: it warms up until the times are steady, samples in turns, and keeps every sample.

One call is one sample, in seconds of a monotonic clock that is read right before and right after the call. Python's
garbage collector is off meanwhile. No sample is dropped or averaged; statistics are derived elsewhere.
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
"""Returns the time in seconds."""
T = TypeVar("T")

WINDOWS = 3
"""The number of consecutive windows whose medians must agree before the warm-up ends."""

RENEWAL = 0.1
"""The duration of the calls before a turn that are not counted, as a share of the turn's duration.

They refill the caches, which the other processes used in their turns. If two calls do not fit into a turn, there are
none.
"""


def time_call(call: Callable[[], T], clock: Clock = time.perf_counter) -> tuple[T, float]:
    """Return the result of ``call`` and the seconds that it took by ``clock``."""
    start = clock()
    result = call()
    return result, clock() - start


class TimedCall:
    """A call that is timed: warmed up once, then sampled turn by turn.

    Args:
        call: The call, which must return only when its work is complete. Its exceptions are not caught.
        plan: The duration of warm-up and sampling.
        clock: The clock.
        after: Called between the samples. It is not timed.

    Attributes:
        usual_s: The median of the last window of the warm-up, in seconds.
    """

    def __init__(
        self,
        call: Callable[[], object],
        plan: Plan,
        clock: Clock = time.perf_counter,
        after: Callable[[], object] | None = None,
    ) -> None:
        self._call = call
        self._plan = plan
        self._clock = clock
        self._after = after
        self._warmup_s: list[float] = []
        self._rounds_s: list[tuple[float, ...]] = []
        self._settled = False
        self.usual_s = 0.0

    def warm_up(self) -> None:
        """Make calls until the windows agree or the limit is reached."""
        plan, medians = self._plan, list[float]()
        while not self._settled and math.fsum(self._warmup_s) < plan.warmup_limit_s:
            window = self._samples(plan.window_s, 1, plan.max_samples)
            self._warmup_s += window
            self.usual_s = statistics.median(window)
            medians = [*medians, self.usual_s][-WINDOWS:]
            self._settled = len(medians) == WINDOWS and max(medians) <= min(medians) * (1 + plan.agreement)

    def renew(self, duration_s: float) -> list[float]:
        """Make a few calls to warm up before a turn of ``duration_s``, and return their times."""
        if 2 * self.usual_s > duration_s:
            return []
        renewal = self._samples(RENEWAL * duration_s, 1, self._plan.max_samples)
        self._warmup_s += renewal
        return renewal

    def turn(self, duration_s: float, least: int = 1, most: int | None = None) -> tuple[float, ...]:
        """Take the samples of one round and return them.

        Args:
            duration_s: The sum of the samples at which the round ends.
            least: The minimum number of samples.
            most: The maximum number of samples; ``None`` for the one of the plan.
        """
        samples = tuple(self._samples(duration_s, least, most or self._plan.max_samples))
        self._rounds_s.append(samples)
        return samples

    def series(self) -> Series:
        """Return all samples so far, rounded to nanoseconds, the resolution of the clock."""
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
    """Return a ``TimedCall`` for a call that returns the seconds that it took by a clock of its own, as of a device.

    All durations of ``plan`` are then sums of the values that ``call`` returns. Other time does not count.

    Args:
        call: The call.
        plan: The duration of warm-up and sampling.
    """
    now_s = 0.0

    def run() -> None:
        nonlocal now_s
        now_s += call()

    return TimedCall(run, plan, lambda: now_s)


@contextlib.contextmanager
def garbage_collector_at_rest() -> Iterator[None]:
    """Run Python's garbage collector, and keep it off until the end of the ``with`` block."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
