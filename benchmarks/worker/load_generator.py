"""Load shapes: how requests arrive and how long they wait, and the loops behind them, for any clock.

A single stream makes a call only after the last one has ended. A slow call then delays the requests that would have
arrived meanwhile, and their waiting is never measured: Tene calls this coordinated omission (*How NOT to measure
latency*, 2013). If requests arrive at a rate, an open loop therefore plans the start of each request beforehand, and
measures its response from this time on, however late the request really starts.
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
from benchmarks.worker.calls import RotatingCall
from benchmarks.worker.timer import TimedCall, garbage_collector_at_rest
from runtimes import Runtime
from runtimes.errors import UsageError
from runtimes.protocol import Arrays

Call: TypeAlias = Callable[[], object]
"""A call without arguments."""

Arrivals: TypeAlias = Literal["fixed", "poisson"]
"""Whether the gaps between requests are equal, or exponential."""

SPIN_S = 1e-3
"""The last part of a wait, in which the clock is read instead of sleeping. A sleep ends 0.1 ms late, or more on a busy
machine."""

LEAST_CALLS = 5
"""The minimum number of calls of a closed loop, which is the minimum for a median."""

FIRST_CALLS = 3
"""The calls of each client before the loop begins. They set up the thread and are not part of the load."""


@dataclass(frozen=True)
class Time:
    """A clock, a way to sleep, and when a wait changes from sleeping to reading the clock.

    Attributes:
        now: Returns the time in seconds.
        sleep: Sleeps for a number of seconds.
        spin_s: The last part of a wait, in which the clock is read instead of sleeping.
    """

    now: Callable[[], float]
    sleep: Callable[[float], None]
    spin_s: float = SPIN_S

    def wait_until(self, moment_s: float) -> None:
        """Return at that moment, or at once if it has passed."""
        while (left := moment_s - self.now()) > 0:
            if left > self.spin_s:
                self.sleep(left - self.spin_s)

    def with_sleep(self) -> Time:
        """Return a clock that sleeps to the end of a wait. The wait ends late, but the processor is idle until then."""
        return replace(self, spin_s=0.0)


REAL = Time(time.perf_counter, time.sleep)
"""The clock of the system."""


@dataclass(frozen=True)
class RequestTimes:
    """The times of a loop, in the order of the requests.

    Attributes:
        services_s: From the start of each call to its end.
        responses_s: From the intended start of each request to the end of its call.
        wall_s: From the beginning of the loop to the end of its last call.
        unanswered: The number of requests that were still waiting when the loop ended.
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
    """Apply a load to an opened runtime after a warm-up, and return its times.

    The call blocks for the duration of the plan, and up to twice as long for an open loop that falls behind.

    Args:
        runtime: The runtime.
        feeds: The inputs that the calls use in rotation. Each client begins at another one.
        plan: How requests arrive.
        step: Called with each step.
        watcher: The monitor of the machine; ``None`` for a new one.

    Raises:
        CheckFailedError: The outputs of a verified call differ from those of the same call before, or were not complete
            when the call returned. Some calls of each client are verified, and the last one.
        UsageError: The shape is a cold start, which needs a fresh process.
        RexportError: As for ``Runtime.infer``.
    """
    if plan.shape == "cold":
        raise UsageError(
            "a cold start needs a fresh process",
            code="cold-start-in-worker",
            hint="call benchmarks.harness.cold_starts.cold_start",
        )
    watcher = watcher or MachineMonitor()
    expected, calls = [runtime.infer(arrays) for arrays in feeds], []
    for number in range(plan.clients):
        first = number % len(feeds)
        rotated = [[*items[first:], *items[:first]] for items in (feeds, expected)]
        calls.append(RotatingCall(runtime.infer, *rotated))
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
    """Run the loop of the plan. Some of the outputs are copied between the calls."""
    first = calls[0]
    if plan.shape == "clients":
        copies = [call.copy_outputs for call in calls]
        return clients(calls, plan.duration_s, REAL, plan.max_requests, copies)
    if plan.rate_per_s is None:
        return run_closed_loop(first, plan.duration_s, REAL, plan.max_requests, first.copy_outputs)
    poisson = plan.shape == "server"
    arrivals: Arrivals = "poisson" if poisson else "fixed"
    intended = plan_starts(arrivals, plan.rate_per_s, plan.duration_s, plan.seed, plan.max_requests)
    clock = REAL if poisson else REAL.with_sleep()
    return run_open_loop(first, intended, clock, plan.duration_s * (1 + OVERTIME), first.copy_outputs)


def plan_starts(arrivals: Arrivals, rate_per_s: float, duration_s: float, seed: int, most: int) -> tuple[float, ...]:
    """Return the intended starts of requests, in seconds from the beginning. The first request starts at once.

    Args:
        arrivals: ``fixed`` for equal gaps, ``poisson`` for exponential gaps.
        rate_per_s: The rate.
        duration_s: The duration of the arrivals. There is at least one request.
        seed: The seed of the exponential gaps.
        most: The largest number of requests.
    """
    if arrivals == "fixed":
        count = max(1, min(most, round(rate_per_s * duration_s)))
        return tuple(number / rate_per_s for number in range(count))
    random = np.random.default_rng(seed)
    starts = [0.0]
    while len(starts) < most and (following := starts[-1] + random.exponential(1 / rate_per_s)) < duration_s:
        starts.append(following)
    return tuple(starts)


def _nothing() -> None:
    """Stand in for the work after a call."""


def run_closed_loop(call: Call, duration_s: float, clock: Time, most: int, after: Call = _nothing) -> RequestTimes:
    """Make one call after another.

    Args:
        call: The call.
        duration_s: The duration of the loop, which makes at least ``LEAST_CALLS`` calls.
        clock: The clock.
        most: The largest number of calls.
        after: Called after each call. It is not timed.
    """
    return _summarise(_time_closed_loop(call, duration_s, clock, most, after))


def _time_closed_loop(call: Call, duration_s: float, clock: Time, most: int, after: Call) -> list[tuple[float, float]]:
    """Return the start and end of each call."""
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
    """Make the calls of requests that arrive at planned times, one at a time.

    Each request waits for its intended start and for the requests before it. No request is skipped for being late.

    Args:
        call: The call.
        intended_s: The intended starts, in seconds from the beginning of the loop.
        clock: The clock.
        limit_s: The limit of the duration. Requests that have not started by then count as unanswered.
        after: Called after each call. It is not timed.
    """
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
    """Run a closed loop in a thread for each call. All loops begin together.

    An exception of a call is raised when all threads have ended.

    Args:
        calls: The calls, one for each thread.
        duration_s: The duration of the loops.
        clock: The clock.
        most: The largest number of calls of all threads together.
        afters: For each thread, the function that is called after each call. It is not timed.
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
