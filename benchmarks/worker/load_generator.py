"""Load shapes: how requests come in, and what they then wait; and the loops behind them, on any clock.

A single stream asks again only when it has been answered. A call that stalls then holds back the requests that would
have come meanwhile, and they are never seen to wait: Tene calls it coordinated omission (*How NOT to measure latency*,
2013). So where requests come at a rate, the loop is open: it sets down beforehand when each request is to start, and
its response is timed from then on, however late it really starts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from benchmarks.machine.monitor import MachineMonitor
from benchmarks.process.job import OVERTIME
from benchmarks.records.plan import ArrivalPlan, Plan
from benchmarks.records.samples import LoadResult
from benchmarks.worker.clocks import RotatingCall
from benchmarks.worker.timer import TimedCall, garbage_collector_at_rest
from runtimes import Runtime
from runtimes.errors import UsageError
from runtimes.protocol import Arrays

Call: TypeAlias = Callable[[], object]
Arrivals: TypeAlias = Literal["fixed", "poisson"]

SPIN_S = 1e-3
"""The last part of a wait, in which the clock is read in place of sleeping: a sleep ends a tenth of a millisecond late,
and more on a busy machine."""

LEAST_CALLS = 5
"""Of a closed loop: as many as a median is given from."""

FIRST_CALLS = 3
"""That each client makes before the loop begins: what a thread's first calls set up is not what the load is about."""


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


def run(
    runtime: Runtime,
    feeds: Sequence[Arrays],
    plan: ArrivalPlan,
    step: Callable[[str], None],
    watcher: MachineMonitor | None = None,
) -> LoadResult:
    """What comes of the load on an opened runtime, warmed up before; blocks for the plan's duration, and for an open
    loop that falls behind up to twice as long.

    Args:
        feeds: inputs that the calls take in turn, each client from another one on.
        step: told what begins.
        watcher: looks at the machine meanwhile; else one is made here.

    Raises:
        CheckFailedError: a call that was looked at, as some are of each client's and the last one, did not give what
            the same call gave before, or not yet.
        UsageError: a cold start, for which a process must be fresh.
        RexportError: as ``Runtime.infer``.
    """
    if plan.shape == "cold":
        raise UsageError(
            "a cold start needs a process of its own",
            code="cold-start-in-worker",
            hint="benchmarks.harness.cold_starts.cold_start",
        )
    watcher = watcher or MachineMonitor()
    expected, calls = [runtime.infer(arrays) for arrays in feeds], []
    for number in range(plan.clients):
        first = number % len(feeds)
        turned = [[*items[first:], *items[:first]] for items in (feeds, expected)]
        calls.append(RotatingCall(runtime.infer, *turned))
    with garbage_collector_at_rest():
        step("warm-up")
        warm = TimedCall(calls[0], Plan())
        warm.warm_up()
        step(plan.shape)
        with watcher.turn():
            requests = _run_loop(plan, calls)
            for call in calls:
                call.end()
    for call in calls:
        call.check()
    warmup = warm.series()
    return LoadResult(
        shape=plan.shape,
        services_s=_round_to_ns(requests.services_s),
        responses_s=_round_to_ns(requests.responses_s),
        achieved_per_s=len(requests.services_s) / requests.wall_s if requests.wall_s > 0 else 0.0,
        rate_per_s=plan.rate_per_s,
        clients=plan.clients,
        unanswered=requests.unanswered,
        warmup_s=warmup.warmup_s,
        settled=warmup.settled,
        conditions=watcher.conditions(),
    )


def _round_to_ns(samples: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(sample, 9) for sample in samples)


def _run_loop(plan: ArrivalPlan, calls: Sequence[RotatingCall]) -> RequestTimes:
    """The loop itself; some of the outputs are copied between the calls."""
    first = calls[0]
    if plan.shape == "clients":
        looks = [call.copy_outputs for call in calls]
        return clients(calls, plan.duration_s, REAL, plan.max_requests, looks)
    if plan.rate_per_s is None:
        return run_closed_loop(first, plan.duration_s, REAL, plan.max_requests, first.copy_outputs)
    poisson = plan.shape == "server"
    arrivals: Arrivals = "poisson" if poisson else "fixed"
    intended = plan_starts(arrivals, plan.rate_per_s, plan.duration_s, plan.seed, plan.max_requests)
    clock = REAL if poisson else REAL.with_sleep()
    return run_open_loop(first, intended, clock, plan.duration_s * (1 + OVERTIME), first.copy_outputs)


def plan_starts(arrivals: Arrivals, rate_per_s: float, duration_s: float, seed: int, most: int) -> tuple[float, ...]:
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


def _nothing() -> None:
    """Is done after a call, where nobody asks for more."""


def run_closed_loop(call: Call, duration_s: float, clock: Time, most: int, after: Call = _nothing) -> RequestTimes:
    """Calls one after another until ``duration_s`` have passed and there are ``LEAST_CALLS``, ``most`` at most.
    ``after`` is called between them, and not timed."""
    return _summarise(_time_closed_loop(call, duration_s, clock, most, after))


def _time_closed_loop(call: Call, duration_s: float, clock: Time, most: int, after: Call) -> list[tuple[float, float]]:
    """Start and end of each call."""
    spans: list[tuple[float, float]] = []
    began = end = clock.now()
    while len(spans) < most and (end - began < duration_s or len(spans) < LEAST_CALLS):
        start = clock.now()
        call()
        end = clock.now()
        spans.append((start, end))
        after()
    return spans


def _summarise(spans: Sequence[tuple[float, float]]) -> RequestTimes:
    services = tuple(end - start for start, end in spans)
    return RequestTimes(services, services, max(end for _, end in spans) - spans[0][0])


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
        return _time_closed_loop(call, duration_s, clock, share, after)

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(client, *each) for each in zip(calls, afters or [_nothing] * len(calls), strict=True)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return _summarise(sorted(span for future in futures for span in future.result()))
