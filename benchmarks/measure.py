"""The only clock of the harness: warm up until it is steady, then sample, and keep every sample.

One call is one sample, in seconds of a monotonic clock that is read right before and right after it. Python's garbage
collector rests meanwhile. Nothing is dropped and nothing is averaged: statistics are derived elsewhere.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from runtimes.errors import UsageError

Clock: TypeAlias = Callable[[], float]
T = TypeVar("T")

WINDOWS = 3
"""How many windows in a row must agree before the warm-up ends."""


@dataclass(frozen=True)
class Plan:
    """How long to warm up and to sample. All durations are sums of samples, so that a plan is exact under any clock.

    Attributes:
        duration_s: sampling goes on until the samples add up to this,
        min_samples: and until there are this many,
        max_samples: and never past this many.
        window_s: length of a warm-up window; a window holds one call at least.
        agreement: the warm-up ends when the medians of three windows in a row lie within this fraction,
        warmup_limit_s: or when it has taken this long.

    Raises:
        UsageError: a value that no measurement can follow.
    """

    duration_s: float = 2.0
    min_samples: int = 10
    max_samples: int = 50_000
    window_s: float = 0.05
    agreement: float = 0.10
    warmup_limit_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("duration_s", "window_s", "agreement", "warmup_limit_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} must be a number of at least 0, not {value}")
        if not 1 <= self.min_samples <= self.max_samples:
            raise UsageError(
                f"min_samples must lie between 1 and max_samples, not {self.min_samples} with {self.max_samples}"
            )


@dataclass(frozen=True)
class Measurement:
    """Raw samples in seconds, in the order of the calls.

    ``settled`` is false where the warm-up reached its limit before its windows agreed.
    """

    warmup_s: tuple[float, ...]
    samples_s: tuple[float, ...]
    settled: bool


def timed(call: Callable[[], T], clock: Clock = time.perf_counter) -> tuple[T, float]:
    """What the call gives, and the seconds that it took."""
    start = clock()
    result = call()
    return result, clock() - start


def measure(call: Callable[[], object], plan: Plan, clock: Clock = time.perf_counter) -> Measurement:
    """The samples of calling ``call`` as the plan says. It must return only when its work is finished.

    What ``call`` raises comes through; the garbage collector's state is restored in any case.
    """
    with _garbage_collector_at_rest():
        warmup, settled = _warm_up(call, plan, clock)
        samples = _sample(call, plan.duration_s, plan.min_samples, plan.max_samples, clock)
    return Measurement(tuple(warmup), tuple(samples), settled)


def reported(call: Callable[[], float], plan: Plan) -> Measurement:
    """As ``measure``, of a call that gives the seconds that it took by a clock of its own, as a device has one.

    What passes between the calls, and in them by any other clock, does not count: the plan's durations are sums of what
    the calls give.
    """
    clock = _OwnClock(call)
    return measure(clock.run, plan, clock)


class _OwnClock:
    """Stands still but for what each call says that it took."""

    def __init__(self, call: Callable[[], float]) -> None:
        self._call = call
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def run(self) -> None:
        self._now += self._call()


@contextlib.contextmanager
def _garbage_collector_at_rest() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _warm_up(call: Callable[[], object], plan: Plan, clock: Clock) -> tuple[list[float], bool]:
    samples: list[float] = []
    medians: list[float] = []
    while not (settled := _agree(medians, plan.agreement)) and math.fsum(samples) < plan.warmup_limit_s:
        window = _sample(call, plan.window_s, 1, plan.max_samples, clock)
        samples += window
        medians.append(statistics.median(window))
    return samples, settled


def _agree(medians: Sequence[float], fraction: float) -> bool:
    last = medians[-WINDOWS:]
    return len(last) == WINDOWS and max(last) <= min(last) * (1 + fraction)


def _sample(call: Callable[[], object], duration_s: float, least: int, most: int, clock: Clock) -> list[float]:
    samples: list[float] = []
    total = 0.0
    while len(samples) < most and (total < duration_s or len(samples) < least):
        start = clock()
        call()
        sample = clock() - start
        total += sample
        samples.append(sample)
    return samples
