"""Load shapes: how requests come in, and what they then wait."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from benchmarks import loadshapes
from benchmarks.conditions import Conditions, MachineMonitor
from benchmarks.loadshapes import RequestTimes, Time
from benchmarks.measure import Plan, TimedCall, garbage_collector_at_rest
from benchmarks.samples import Series
from runtimes.errors import UsageError
from runtimes.protocol import Arrays

if TYPE_CHECKING:
    from benchmarks.clocks import RotatingCall
    from runtimes import Runtime

ShapeName: TypeAlias = Literal["closed", "open", "paced", "clients", "batches", "cold"]
Arrivals: TypeAlias = Literal["fixed", "poisson"]

SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)

OVERTIME = 1.0
"""Of the duration: how long after it an open loop goes on with the requests that still wait. Where they come faster
than they are answered they would wait for ever."""


@dataclass(frozen=True)
class ArrivalPlan:
    """How requests are to come in.

    Attributes:
        shape: as ``LoadResult.shape``; ``cold`` is not run in a worker.
        duration_s: how long they come.
        arrivals: of ``open``; of ``paced`` they are fixed.
        rate_per_s: of ``open`` and ``paced``.
        clients: of ``clients``: how many threads call.
        seed: of Poisson's arrivals.
        max_requests: of all that come.

    Raises:
        UsageError: a value that no load can follow.
    """

    shape: ShapeName
    duration_s: float = 1.0
    arrivals: Arrivals = "fixed"
    rate_per_s: float | None = None
    clients: int = 1
    seed: int = 0
    max_requests: int = Plan.max_samples

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise UsageError(f"the duration must be a number of seconds above 0, not {self.duration_s}")
        if self.shape in ("open", "paced"):
            if self.rate_per_s is None or not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
                raise UsageError(f"the rate of shape {self.shape} must be a number above 0, not {self.rate_per_s}")
        elif self.rate_per_s is not None:
            raise UsageError(f"shape {self.shape} has no rate", hint="--shape open")
        for name, value in (("clients", self.clients), ("max_requests", self.max_requests)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class LoadResult:
    """What came of one load shape. The samples lie in the order of the requests, in seconds.

    Attributes:
        shape: ``closed``: the next call as soon as the last one has ended. ``open``: requests come at a rate, whether
            or not the last one has ended; they are answered one at a time, in their order. ``paced``: as from a camera,
            with idle gaps in which the process sleeps. ``clients``: several threads, each a closed loop. ``batches``:
            a closed loop, one of several batch sizes. ``cold``: fresh processes, a request each.
        arrivals: of ``open``: ``fixed`` or ``poisson``.
        rate_per_s: of ``open`` and ``paced``: calls that were to come in a second.
        rate_share: of ``open`` where no rate was named: ``rate_per_s`` over what the closed loop before it reached.
        clients: threads that call.
        achieved_per_s: calls that were finished in a second.
        services_s: from the start of the call to its end.
        responses_s: from the intended start to the end: what the user of the request waits. In a closed loop nothing is
            intended before the last call has ended, so they are its services.
        steps_s: of ``cold``: the named steps from the start of the process on, the median process.
        disk_bytes: of ``cold``: the artifact and all its files.
        peak_bytes: of ``cold``: the largest resident memory of a process.
        unanswered: of ``open`` and ``paced``: requests that still waited when the load was ended, and are not among
            the samples.
        warmup_s: the calls before, one after another; settled: whether their windows came to agree.
        conditions: how the machine was meanwhile; ``None`` where it was not looked at.
    """

    shape: ShapeName
    services_s: tuple[float, ...]
    responses_s: tuple[float, ...]
    achieved_per_s: float
    arrivals: Arrivals | None = None
    rate_per_s: float | None = None
    rate_share: float | None = None
    clients: int = 1
    steps_s: tuple[tuple[str, float], ...] = ()
    disk_bytes: int | None = None
    peak_bytes: int | None = None
    unanswered: int = 0
    warmup_s: tuple[float, ...] = ()
    settled: bool = True
    conditions: Conditions | None = None


def run(
    runtime: Runtime,
    feeds: Sequence[Arrays],
    plan: ArrivalPlan,
    step: Callable[[str], None],
    clock: Time = loadshapes.REAL,
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
    from benchmarks.clocks import RotatingCall

    if plan.shape == "cold":
        raise UsageError("a cold start needs a process of its own", hint="benchmarks.coldstart.cold_start")
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
        return loadshapes.clients(calls, plan.duration_s, clock, plan.max_requests, looks)
    if plan.rate_per_s is None:
        return loadshapes.run_closed_loop(first, plan.duration_s, clock, plan.max_requests, first.copy_outputs)
    arrivals = plan.arrivals if plan.shape == "open" else "fixed"
    intended = loadshapes.plan_starts(arrivals, plan.rate_per_s, plan.duration_s, plan.seed, plan.max_requests)
    if plan.shape == "paced":
        clock = clock.with_sleep()
    return loadshapes.run_open_loop(first, intended, clock, plan.duration_s * (1 + OVERTIME), first.copy_outputs)


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
