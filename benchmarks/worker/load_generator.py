"""Load shapes: how requests come in, and what they then wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchmarks.machine.monitor import Conditions, MachineMonitor
from benchmarks.process.job import OVERTIME
from benchmarks.records.plan import Plan
from benchmarks.records.samples import Series
from benchmarks.worker import load_loops
from benchmarks.worker.load_loops import RequestTimes, Time
from benchmarks.worker.timer import TimedCall, garbage_collector_at_rest
from runtimes.errors import UsageError
from runtimes.protocol import Arrays

if TYPE_CHECKING:
    from benchmarks.worker.clocks import RotatingCall
    from runtimes import Runtime
from benchmarks.records.plan import ArrivalPlan
from benchmarks.records.samples import LoadResult


def run(
    runtime: Runtime,
    feeds: Sequence[Arrays],
    plan: ArrivalPlan,
    step: Callable[[str], None],
    clock: Time = load_loops.REAL,
    watcher: MachineMonitor | None = None,
) -> LoadResult:
    """What comes of the load on an opened runtime, warmed up before; blocks for the plan's duration, and for an open
    loop that falls behind up to twice as long.

    Args:
        feeds: inputs that the calls take in turn, each client from another one on.
        step: told what begins.
        clock: time, and how to wait for it.
        watcher: looks at the machine meanwhile; else one is made here.

    Raises:
        CheckFailedError: a call that was looked at, as some are of each client's and the last one, did not give what
            the same call gave before, or not yet.
        UsageError: a cold start, for which a process must be fresh.
        RexportError: as ``Runtime.infer``.
    """
    from benchmarks.worker.clocks import RotatingCall

    if plan.shape == "cold":
        raise UsageError(
            "a cold start needs a process of its own",
            code="cold-start-in-worker",
            hint="benchmarks.harness.cold_starts.cold_start",
        )
    watcher = watcher or MachineMonitor()
    expected = [runtime.infer(arrays) for arrays in feeds]
    calls = [
        RotatingCall(runtime.infer, _rotate(number, feeds), _rotate(number, expected)) for number in range(plan.clients)
    ]
    with garbage_collector_at_rest():
        step("warm-up")
        warm = TimedCall(calls[0], Plan(), clock.now)
        warm.warm_up()
        step(plan.shape)
        with watcher.turn():
            requests = _requests(plan, calls, clock)
            for call in calls:
                call.end()
    for call in calls:
        call.check()
    return _load(plan, requests, warm.series(), watcher.conditions())


def _rotate(number: int, items: Sequence[Arrays]) -> Sequence[Arrays]:
    """The items, which are a circle, from that one on."""
    first = number % len(items)
    return [*items[first:], *items[:first]]


def _requests(plan: ArrivalPlan, calls: Sequence[RotatingCall], clock: Time) -> RequestTimes:
    """The loop itself; some of the outputs are copied between the calls."""
    first, looks = calls[0], [call.copy_outputs for call in calls]
    if plan.shape == "clients":
        return load_loops.clients(calls, plan.duration_s, clock, plan.max_requests, looks)
    if plan.rate_per_s is None:
        return load_loops.run_closed_loop(first, plan.duration_s, clock, plan.max_requests, first.copy_outputs)
    arrivals = plan.arrivals if plan.shape == "open" else "fixed"
    intended = load_loops.plan_starts(arrivals, plan.rate_per_s, plan.duration_s, plan.seed, plan.max_requests)
    if plan.shape == "paced":
        clock = clock.with_sleep()
    return load_loops.run_open_loop(first, intended, clock, plan.duration_s * (1 + OVERTIME), first.copy_outputs)


def _load(plan: ArrivalPlan, requests: RequestTimes, warm: Series, conditions: Conditions) -> LoadResult:
    return LoadResult(
        shape=plan.shape,
        services_s=_round_to_ns(requests.services_s),
        responses_s=_round_to_ns(requests.responses_s),
        achieved_per_s=len(requests.services_s) / requests.wall_s if requests.wall_s > 0 else 0.0,
        arrivals=plan.arrivals if plan.shape == "open" else None,
        rate_per_s=plan.rate_per_s,
        clients=plan.clients,
        unanswered=requests.unanswered,
        warmup_s=warm.warmup_s,
        settled=warm.settled,
        conditions=conditions,
    )


def _round_to_ns(samples: Sequence[float]) -> tuple[float, ...]:
    """To nanoseconds, which is what the clock tells."""
    return tuple(round(sample, 9) for sample in samples)
