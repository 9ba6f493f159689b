"""The loops behind the load shapes, on any clock, and what a sweep of them tells.

A closed loop asks again only when it has been answered. A call that stalls then holds back the requests that would have
come meanwhile, and they are never seen to wait: Tene calls it coordinated omission (*How NOT to measure latency*,
2013). So an open loop sets down beforehand when each request is to start, and its response is timed from then on,
however late it really starts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

Call: TypeAlias = Callable[[], object]

SPIN_S = 1e-3
"""The last part of a wait, in which the clock is read in place of sleeping: a sleep ends a tenth of a millisecond late,
and more on a busy machine."""

LEAST_CALLS = 5
"""Of a closed loop: as many as a median is given from."""

FIRST_CALLS = 3
"""That each client makes before the loop begins: what a thread's first calls set up is not what the load is about."""


def _nothing() -> None:
    """Is done after a call, where nobody asks for more."""


@dataclass(frozen=True)
class Time:
    """A clock in seconds, a way to sleep, and how long before a moment sleeping ends and reading the clock begins."""

    now: Callable[[], float]
    sleep: Callable[[float], None]
    spin_s: float = SPIN_S

    def wait_until(self, moment_s: float) -> None:
        """Returns at that moment, or at once if it has passed."""
        while (left := moment_s - self.now()) > 0:
            if left > self.spin_s:
                self.sleep(left - self.spin_s)

    def with_sleep(self) -> Time:
        """The same, and it sleeps to the end: it is late, and leaves the processor alone until then."""
        return replace(self, spin_s=0.0)


REAL = Time(time.perf_counter, time.sleep)


@dataclass(frozen=True)
class RequestTimes:
    """What a loop did, in the order of the requests.

    Attributes:
        services_s: from the start of each call to its end.
        responses_s: from its intended start to its end.
        wall_s: from the beginning of the loop to the end of its last call.
        unanswered: requests that still waited when the loop was ended.
    """

    services_s: tuple[float, ...]
    responses_s: tuple[float, ...]
    wall_s: float
    unanswered: int = 0


def plan_starts(
    arrivals: Literal["fixed", "poisson"], rate_per_s: float, duration_s: float, seed: int, most: int
) -> tuple[float, ...]:
    """When requests are to start that come at a rate for so long: seconds from the beginning, one at least and ``most``
    at most. The first one starts at once; ``poisson``'s gaps are exponential and seeded."""
    if arrivals == "fixed":
        count = max(1, min(most, round(rate_per_s * duration_s)))
        return tuple(number / rate_per_s for number in range(count))
    random = np.random.default_rng(seed)
    starts = [0.0]
    while len(starts) < most and (following := starts[-1] + random.exponential(1 / rate_per_s)) < duration_s:
        starts.append(following)
    return tuple(starts)


def run_closed_loop(call: Call, duration_s: float, clock: Time, most: int, after: Call = _nothing) -> RequestTimes:
    """Calls one after another until ``duration_s`` have passed and there are ``LEAST_CALLS``, ``most`` at most.
    ``after`` is called between them, and not timed."""
    services: list[float] = []
    began = end = clock.now()
    while len(services) < most and (end - began < duration_s or len(services) < LEAST_CALLS):
        start = clock.now()
        call()
        end = clock.now()
        services.append(end - start)
        after()
    return RequestTimes(tuple(services), tuple(services), end - began)


def run_open_loop(
    call: Call, intended_s: Sequence[float], clock: Time, limit_s: float, after: Call = _nothing
) -> RequestTimes:
    """One server: each request waits for its intended start and for those before it. None is skipped for being late;
    those that have not begun after ``limit_s`` are counted as unanswered. ``after`` as for ``run_closed_loop``."""
    services: list[float] = []
    responses: list[float] = []
    began = end = clock.now()
    for intended in intended_s:
        if services and end - began >= limit_s:
            break
        clock.wait_until(began + intended)
        start = clock.now()
        call()
        end = clock.now()
        services.append(end - start)
        responses.append(end - (began + intended))
        after()
    return RequestTimes(tuple(services), tuple(responses), end - began, len(intended_s) - len(services))


def clients(
    calls: Sequence[Call], duration_s: float, clock: Time, most: int, afters: Sequence[Call] | None = None
) -> RequestTimes:
    """A thread for each call, in which it is a closed loop; all begin together, and ``most`` holds for all of them.
    ``afters``: for each, as for ``run_closed_loop``.

    What a call raises comes through when all have ended.
    """
    together, share = threading.Barrier(len(calls)), max(1, most // len(calls))

    def client(call: Call, after: Call) -> list[tuple[float, float]]:
        try:
            for _ in range(FIRST_CALLS):
                call()
        except BaseException:
            together.abort()
            raise
        together.wait()
        spans: list[tuple[float, float]] = []
        began = end = clock.now()
        while len(spans) < share and (end - began < duration_s or len(spans) < LEAST_CALLS):
            start = clock.now()
            call()
            end = clock.now()
            spans.append((start, end))
            after()
        return spans

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(client, *each) for each in zip(calls, afters or [_nothing] * len(calls), strict=True)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    spans = sorted(span for future in futures for span in future.result())
    services = tuple(end - start for start, end in spans)
    return RequestTimes(services, services, max(end for _, end in spans) - spans[0][0])
