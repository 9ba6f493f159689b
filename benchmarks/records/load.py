"""What a load test asks for, and what it recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.machine.monitor import Conditions
from benchmarks.records.plan import Plan
from benchmarks.records.shapes import Arrivals, ShapeName
from runtimes.errors import (
    UsageError,
)


@dataclass(frozen=True)
class ColdStart:
    """What one process told of itself: how long its steps took, and its largest resident memory."""

    python_s: float
    import_s: float
    open_s: float
    first_s: float
    steady_s: float
    peak_bytes: int | None

    @property
    def first_output_s(self) -> float:
        """From the start of the process to its first answer."""
        return self.python_s + self.import_s + self.open_s + self.first_s


STEADY = "steady call"
"""The call after the first answer: to compare the first call with, and no step on the way to it."""

STEPS = ("Python start", "import", "open", "first call", STEADY)
"""Of a cold start, in their order."""


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
            raise UsageError(
                f"the duration must be a number of seconds above 0, not {self.duration_s}", code="duration-not-positive"
            )
        if self.shape in ("open", "paced"):
            if self.rate_per_s is None or not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
                raise UsageError(
                    f"the rate of shape {self.shape} must be a number above 0, not {self.rate_per_s}",
                    code="shape-rate-not-positive",
                )
        elif self.rate_per_s is not None:
            raise UsageError(f"shape {self.shape} has no rate", code="shape-without-rate", hint="--shape open")
        for name, value in (("clients", self.clients), ("max_requests", self.max_requests)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}", code="count-not-positive")


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
