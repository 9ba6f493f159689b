"""What a run is going to measure, and how long it takes: estimated before it begins, corrected while it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from benchmarks.format import count, roughly
from benchmarks.harness.scheduler import GPU_LEAD_S, expect_processes, least_processes
from benchmarks.machine.gpu_monitor import ENERGY_LEAST_S, ENERGY_WARMUP_S, UTILISATION_PERIOD_S
from benchmarks.records.plan import MOST_PROCESSES
from benchmarks.records.request import BenchmarkRequest, Configuration
from benchmarks.roofline.graph_cost import cost_of
from runtimes import Artifact
from runtimes.selection import PROCESSOR

CLOCKS = 3
"""Latency, inference only, and image decoding or a GPU's own time: each is sampled for the duration."""

GPU_FIRST_S = UTILISATION_PERIOD_S + ENERGY_WARMUP_S + ENERGY_LEAST_S
"""What the first process of a configuration takes longer on a GPU: it waits for an idle GPU and measures energy."""

EVALUATED_IMAGES = 10_000
"""Images of a data set whose size is not known before it is read."""


@dataclass(frozen=True)
class WorkPace:
    """How fast a machine is taken to be.

    Attributes:
        start_s: Start of a process, with the libraries' imports, and opening the model.
        warmup_s: Warm-up of one process.
        multiply_adds_per_s: Of one thread.
        call_s: Cost of any call besides its arithmetic, and of preparing an image.
    """

    start_s: float
    warmup_s: float
    multiply_adds_per_s: float
    call_s: float

    def slower(self, times: float) -> WorkPace:
        """The pace of a machine on which everything takes so many times as long."""
        rate = self.multiply_adds_per_s / times
        return WorkPace(times * self.start_s, times * self.warmup_s, rate, times * self.call_s)


USUAL = WorkPace(start_s=2.0, warmup_s=0.8, multiply_adds_per_s=1.2e10, call_s=3e-4)
"""A machine that is idle."""

SLOW = USUAL.slower(3.0)
"""A machine with a few slow processors, or a busy one."""

LEAST_LEFT_S = 0.5
"""Less than this is not told: a run that lasts longer than its estimate is not about to end."""

SLOWNESS_OCTAVES, BISECTIONS = 10, 30
"""How far from ``USUAL`` a machine may be, and how closely that is found."""


@dataclass(frozen=True)
class Workload:
    """What one trial does.

    Attributes:
        configurations: Number of configurations that take turns.
        evaluated: Number of those that are evaluated on images as well, in the first process.
        multiply_adds: Of one image; 0 if it is not known.
        batch: Images in one call.
        threads: Processors that one call uses.
        processes: Of each configuration, where the request does not say it.
        load_s: Seconds that a load lasts in its single process; ``None`` for turns.
    """

    configurations: int = 1
    evaluated: int = 0
    multiply_adds: int = 0
    batch: int = 1
    threads: int = 1
    processes: int | None = None
    load_s: float | None = None

    def seconds(self, request: BenchmarkRequest, pace: WorkPace) -> float:
        """Estimated seconds of the trial on a machine of that pace."""
        request = replace(request, processes=self.processes or request.processes)
        if not self.configurations:
            return 0.0
        if self.load_s is not None:
            return pace.start_s + pace.warmup_s + self.load_s
        each_s = self.process_s(request, pace)
        first_s = each_s + self.evaluated * (request.limit or EVALUATED_IMAGES) * self.image_s(pace)
        first_s += 0.0 if request.device == PROCESSOR else self.configurations * GPU_FIRST_S
        return first_s + each_s * (expect_processes(request, [first_s, each_s]) - 1)

    def process_s(self, request: BenchmarkRequest, pace: WorkPace) -> float:
        """Estimated seconds of one process of each configuration, without the evaluation."""
        # A turn has one call at least: in four rounds at each of the clocks.
        timed_s = CLOCKS * max(request.duration_s, 4 * self.batch * self.image_s(pace))
        lead_s = 0.0 if request.device == PROCESSOR else GPU_LEAD_S
        return lead_s + self.configurations * (pace.start_s + pace.warmup_s + timed_s)

    def image_s(self, pace: WorkPace) -> float:
        """Estimated seconds of one image."""
        return pace.call_s + self.multiply_adds / pace.multiply_adds_per_s / self.threads


def workload(
    configurations: Sequence[Configuration],
    evaluated: bool = False,
    processes: int | None = None,
    load_s: float | None = None,
) -> Workload:
    """The workload of a trial of these configurations; those that cannot run do not count."""
    able = [each for each in configurations if isinstance(each.pair.opens, Artifact)]
    if not able:
        return Workload(0)
    first = able[0]
    assert isinstance(first.pair.opens, Artifact)
    cost = cost_of(first.pair.opens, first.batch)
    return Workload(
        configurations=len(able),
        evaluated=len(able) if evaluated else 0,
        multiply_adds=0 if cost is None else cost.multiply_adds // first.batch,
        batch=first.batch,
        threads=first.threads,
        processes=processes,
        load_s=load_s,
    )


@dataclass(frozen=True)
class RunPlan:
    """What a run is going to measure.

    Attributes:
        request: How it is measured.
        workloads: One for each trial, in order.
        factors: What the configurations are made of, as ``(3, "backend")``.
        unit: What one configuration is called.
        at_most: Whether some of them may turn out to be needless.
        slowness: How many times as long as usual everything takes, as far as the machine's load tells beforehand.
    """

    request: BenchmarkRequest
    workloads: tuple[Workload, ...]
    factors: tuple[tuple[int, str], ...] = ()
    unit: str = "configuration"
    at_most: bool = False
    slowness: float = 1.0

    @property
    def configurations(self) -> int:
        """Number of configurations, at most."""
        return sum(each.configurations for each in self.workloads)

    def seconds(self, pace: WorkPace = USUAL) -> float:
        """Estimated seconds of all trials."""
        slower = pace.slower(self.slowness)
        return math.fsum(each.seconds(self.request, slower) for each in self.workloads)

    def estimates(self) -> list[TimeEstimate]:
        """The estimate of each trial, without the seconds that a load is known to last."""

        def total(each: Workload, slowness: float) -> float:
            return each.seconds(self.request, USUAL.slower(slowness * self.slowness)) - (each.load_s or 0.0)

        def process(each: Workload, slowness: float) -> float:
            return each.process_s(self.request, USUAL.slower(slowness * self.slowness))

        return [TimeEstimate(partial(total, each), partial(process, each)) for each in self.workloads]

    def position(self, later: int) -> tuple[int, int, int]:
        """Which configurations are at work in the trial that is followed by ``later`` trials: the first, the last, and
        how many there are in all."""
        after = sum(each.configurations for each in self.workloads[len(self.workloads) - later :])
        last = self.configurations - after
        return last - self.workloads[-1 - later].configurations + 1, last, self.configurations

    def sentence(self) -> str:
        """The plan in one line, with its time."""
        total = count(self.configurations, self.unit)
        factors = [count(number, noun) for number, noun in self.factors]
        if factors and math.prod(number for number, _ in self.factors) == self.configurations:
            total = f"{' x '.join(factors)} = {total}"
        elif factors:
            total = f"{total} of {', '.join(factors)}"
        most = f"up to {total}" if self.at_most else total
        usual_s, slow_s = self.seconds(), self.seconds(SLOW)
        return f"Plan: {most}, {self._processes()} each; about {roughly(usual_s)} (at most {roughly(slow_s)})"

    def _processes(self) -> str:
        least = least_processes(self.request)
        if all(each.load_s is not None for each in self.workloads):
            least = 1
        elif self.request.processes is None:
            return f"{least} to {MOST_PROCESSES} processes"
        return f"{least} process{'' if least == 1 else 'es'}"


Seconds: TypeAlias = Callable[[float], float]
"""Seconds on a machine that is so many times as slow as usual."""


@dataclass(frozen=True)
class TimeEstimate:
    """How long a trial takes, besides the seconds that it is known to last.

    Attributes:
        total: In all.
        process: One process of each configuration, without the evaluation.
    """

    total: Seconds
    process: Seconds


class Eta:
    """How long a run still takes: tells the seconds whenever there is news, or ``None`` while nothing is known.

    A trial takes the seconds that it is known to last, and besides what the plan estimates for a machine as slow as
    this one has been so far. Of the first trial its own processes tell.
    """

    def __init__(self, tell: Callable[[float | None], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._plan: Sequence[TimeEstimate] = ()
        self._measured: list[tuple[float, Seconds]] = []
        self._began_s = 0.0
        self._known_s = 0.0
        self._later_s: Sequence[float] = ()
        self._estimates: Sequence[TimeEstimate] = ()

    def plan(self, estimates: Sequence[TimeEstimate]) -> None:
        """These are the estimates of the trials that come, in their order."""
        self._plan = estimates

    def begin(self, known_s: float, later_s: Sequence[float]) -> None:
        """A trial begins that lasts ``known_s`` at least, and each of those after it ``later_s``. They are the last
        ones of the plan: trials before them may have been left out."""
        self._began_s, self._known_s, self._later_s = self._clock(), known_s, later_s
        self._estimates = self._plan[-len(later_s) - 1 :]
        self.progress(None, None)

    def progress(self, left_s: float | None, process_s: float | None) -> None:
        """The trial at work takes ``left_s`` more, and ``process_s`` for a process of each, as far as it knows."""
        if not self._estimates:
            self._tell(None)
            return
        estimate, *later = self._estimates
        slowness = 1.0
        if self._measured:
            slowness = find_slowness(self._measured)
        elif process_s is not None:
            slowness = find_slowness([(process_s, estimate.process)])
        if left_s is None:
            left_s = max(0.0, self._known_s + estimate.total(slowness) - (self._clock() - self._began_s))
        left_s += math.fsum(self._later_s) + math.fsum(each.total(slowness) for each in later)
        self._tell(left_s if left_s >= LEAST_LEFT_S else None)

    def end(self, measured: bool) -> None:
        """The trial has ended; one that was not ``measured`` says nothing of the others."""
        if measured and self._estimates:
            besides_s = max(0.0, self._clock() - self._began_s - self._known_s)
            self._measured.append((besides_s, self._estimates[0].total))


def find_slowness(measured: Sequence[tuple[float, Seconds]]) -> float:
    """How slow the machine is, from what trials took and their estimates."""
    taken_s = math.fsum(seconds for seconds, _ in measured)
    low, high = -float(SLOWNESS_OCTAVES), float(SLOWNESS_OCTAVES)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if math.fsum(estimated(math.exp2(middle)) for _, estimated in measured) < taken_s:
            low = middle
        else:
            high = middle
    return math.exp2(high)
