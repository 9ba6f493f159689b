"""All the clocks of one opened artifact, sampled in turns, and the checks that what they time is the work itself.

A turn times the runs on bound feeds first and whole calls after them. So the first whole call has to wait for whatever
the runs before it have left undone: a backend that returns from a run before it is done is found by that. And of the
whole calls some outputs are copied the moment that the clock has stopped: one that is filled in later is found by that.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from benchmarks.machine.gpu import GpuMonitor, GpuState
from benchmarks.machine.monitor import MachineMonitor, wait_until_idle
from benchmarks.process.job import TurnPlan
from benchmarks.records.plan import Plan
from benchmarks.records.samples import ProcessSamples
from benchmarks.worker.timer import TimedCall, time_reported
from runtimes import Runtime
from runtimes.errors import CheckFailedError
from runtimes.protocol import Array, Arrays

T = TypeVar("T")

REPEAT_TOLERANCE = 1e-3
"""Of the largest value: how far an output of a timed call may be from the same call before the timing."""

LOOKED_AT = 101
"""Of so many whole calls the outputs of one are copied, and of each turn's first and last. A prime, for all feeds'
sake."""

MOST_LOOKED_AT = 256
"""Of the calls between two checks. Where there would be more, every other one of them is forgotten, and half as many of
those that follow are looked at."""

BACKLOG = 0.2
"""What the runs of a turn may leave undone, of the time that they took."""

WAITED = 1.5
"""How many times as long as usual the call after them takes at least, where they have left something undone."""

HASTY = 0.8
"""Of a whole call: what a run takes at most, where it ends before it is done."""

RETRIALS, RETRIED_CALLS, RETRIED_RUNS = 5, 30, 300
"""Where runs seem to have left something undone, how often that is tried again: with runs for as long as so many calls
take, so many runs at most, against one run. Only what is left undone grows with them: a call may take long after any
run, whose data it has to bring back into the caches, and at times for no reason at all."""


class RotatingCall:
    """A call that takes the feeds in turn. Some of its outputs are copied right after the clock has stopped."""

    def __init__(self, infer: Callable[[Arrays], Arrays], feeds: Sequence[Arrays], expected: Sequence[Arrays]) -> None:
        """``expected`` is what the feeds gave before; it is compared with when the timing is over."""
        self._infer = infer
        self._feeds = feeds
        self._expected = expected
        self._made = 0
        self._each = LOOKED_AT
        self._position = -1
        self._outputs: Arrays = {}
        self._copies: list[tuple[int, Arrays, Arrays]] = []

    def __call__(self) -> None:
        self._position = (self._position + 1) % len(self._feeds)
        self._outputs = self._infer(self._feeds[self._position])

    def begin(self) -> None:
        """A turn begins: its first call is one of those that are looked at."""
        self._made = 0

    def copy_outputs(self) -> None:
        """Copies the outputs of the last call, if it is one of those."""
        if self._made % self._each == 0:
            self._copy()
        self._made += 1
        if len(self._copies) > MOST_LOOKED_AT:
            del self._copies[1::2]
            self._each *= 2

    def end(self) -> None:
        """A turn ends: its last call is one of those too."""
        self._copy()

    def _copy(self) -> None:
        copies = {name: np.array(values) for name, values in self._outputs.items()}
        self._copies.append((self._position, copies, self._outputs))

    def check(self) -> None:
        """Compares the copies with what they should be, and forgets them.

        Raises:
            CheckFailedError: a timed call did not give what the same call gave before, or not yet.
        """
        copies, self._copies, self._each = self._copies, [], LOOKED_AT
        for position, values, afterwards in copies:
            for name, wanted in self._expected[position].items():
                if not close(afterwards[name], wanted):
                    raise CheckFailedError(
                        f"output {name!r} of a timed call is not what the same call gave before", code="output-changed"
                    )
                if not close(values[name], wanted):
                    raise CheckFailedError(
                        f"a timed call returned before its output {name!r} was there", code="output-late"
                    )


def close(values: Array, wanted: Array) -> bool:
    """Whether the outputs are the same within ``REPEAT_TOLERANCE``."""
    slack = REPEAT_TOLERANCE * float(np.abs(wanted).max(initial=0))
    return values.shape == wanted.shape and bool(np.allclose(values, wanted, rtol=0, atol=slack))


class AlternatingCalls(Generic[T]):
    """A call that makes each of the calls in turn, and gives what it gave. ``made`` is how many it has made."""

    def __init__(self, calls: Sequence[Callable[[], T]]) -> None:
        self._calls = calls
        self.made = 0

    def __call__(self) -> T:
        call = self._calls[self.made % len(self._calls)]
        self.made += 1
        return call()


@dataclass(frozen=True)
class OpenedArtifact:
    """An opened artifact, and what is known of it before the timing.

    Attributes:
        runtime: that stays its owner's.
        feeds: that the calls take in turn; ``expected``: what each of them gave.
        image: answers one encoded image, another one each time; ``None`` if there are none.
        load_s, first_s, baseline_bytes: as in ``benchmarks.records.samples.ProcessSamples``.
    """

    runtime: Runtime
    feeds: Sequence[Arrays]
    expected: Sequence[Arrays]
    image: Callable[[], object] | None
    load_s: float
    first_s: float
    baseline_bytes: int | None


@dataclass
class Clocks:
    """The clocks of an opened artifact. ``gpu`` and ``machine`` were made before it was opened; ``began_s``: when the
    run began, by ``time.monotonic``."""

    opened: OpenedArtifact
    plan: Plan
    gpu: GpuMonitor
    machine: MachineMonitor
    began_s: float

    def __post_init__(self) -> None:
        self._starts_s: list[float] = []
        self._backlogs: list[tuple[float, float]] = []
        self._unhindered_s: list[float] = []
        self._rotating = RotatingCall(self.opened.runtime.infer, self.opened.feeds, self.opened.expected)
        self._latency = TimedCall(self._rotating, self.plan, after=self._rotating.copy_outputs)
        self._image = None if self.opened.image is None else TimedCall(self.opened.image, self.plan)

    def warm_up(self) -> float:
        """Warms all clocks up. How long the slowest one's usual call takes.

        Raises:
            CheckFailedError: what was timed was not the work.
        """
        opened = self.opened
        self._latency.warm_up()
        self.gpu_before: GpuState | None = self.gpu.read_state()
        self.device_peak_bytes = self.gpu.peak_bytes()  # what is bound from here on lies there once for each feed
        self.bound = AlternatingCalls([opened.runtime.bind(arrays) for arrays in opened.feeds])
        self._compute = TimedCall(self.bound, self.plan)
        self._compute.warm_up()
        backlog = self._measure_call_s(), sum(self._compute.series().warmup_s)
        self._check_done([backlog], self._latency.usual_s, self._compute.usual_s)
        timed = [call for arrays in opened.feeds if (call := opened.runtime.bind_timed(arrays)) is not None]
        self._device = time_reported(AlternatingCalls(timed), self.plan) if timed else None
        for other in filter(None, (self._device, self._image)):
            other.warm_up()
        self._rotating.check()
        wait_until_idle()
        return max(self._latency.usual_s, self._compute.usual_s)

    def turn(self, turn: TurnPlan) -> float:
        """A turn of every clock. The median latency in it.

        Raises:
            CheckFailedError: what was timed was not the work.
        """
        with self.machine.turn():
            self._starts_s.append(time.monotonic() - self.began_s)
            self._compute.renew(turn.duration_s)
            runs = self._compute.turn(turn.duration_s, turn.least, turn.most)
            self._rotating.begin()
            renewal = self._latency.renew(turn.duration_s)
            samples = self._latency.turn(turn.duration_s, turn.least, turn.most)
            self._rotating.end()
            if self._device is not None:
                # By the device's own clock as many at most: where starting a run takes longer than the run, the
                # device's durations alone would take for ever to add up.
                self._device.turn(turn.duration_s, turn.least, len(runs))
            if self._image is not None:
                self._image.renew(turn.duration_s)
                self._image.turn(turn.duration_s, turn.least, turn.most)
        waited_s, *others_s = *renewal, *samples
        self._backlogs.append((waited_s, sum(runs)))
        self._unhindered_s += others_s
        self._rotating.check()
        return statistics.median(samples)

    def collect_samples(self, peak_bytes: int | None) -> ProcessSamples:
        """All that was sampled.

        Raises:
            CheckFailedError: the runs on bound feeds returned before they were done.
        """
        usual_s = statistics.median(self._unhindered_s or [self._latency.usual_s])
        self._check_done(self._backlogs, usual_s, statistics.median(self._compute.series().samples_s))
        opened = self.opened
        return ProcessSamples(
            load_s=opened.load_s,
            first_s=opened.first_s,
            peak_bytes=peak_bytes,
            baseline_bytes=opened.baseline_bytes,
            starts_s=tuple(round(start, 6) for start in self._starts_s),
            latency=self._latency.series(),
            compute=self._compute.series(),
            device=None if self._device is None else self._device.series(),
            image=None if self._image is None else self._image.series(),
            conditions=self.machine.conditions(),
        )

    def _check_done(self, backlogs: Sequence[tuple[float, float]], usual_s: float, run_s: float) -> None:
        """Of each backlog: how long the call after some runs took, and these runs together."""

        def is_unfinished(backlog: tuple[float, float]) -> bool:
            waited_s, ran_s = backlog
            return waited_s > WAITED * usual_s and waited_s - usual_s > BACKLOG * ran_s

        if run_s >= HASTY * usual_s or not all(map(is_unfinished, backlogs)):
            return
        tried = [(*self._after(RETRIED_CALLS * usual_s), *self._after(0.0)) for _ in range(RETRIALS)]
        waited_s, ran_s, one_s, _ = (statistics.median(values) for values in zip(*tried, strict=True))
        if is_unfinished((usual_s + waited_s - one_s, ran_s)):
            raise CheckFailedError(
                f"runs returned before they were done: the call after them took {waited_s * 1e3:.3g} ms, and "
                f"{usual_s * 1e3:.3g} ms is usual",
                code="runs-unfinished",
            )

    def _after(self, duration_s: float) -> tuple[float, float]:
        """What a whole call takes after runs for that long, one at least; and what these took together."""
        runs = TimedCall(self.bound, self.plan).turn(duration_s, 1, RETRIED_RUNS)
        return self._measure_call_s(), sum(runs)

    def _measure_call_s(self) -> float:
        """What one whole call takes now."""
        (sample,) = TimedCall(self._rotating, self.plan).turn(0.0, 1, 1)
        return sample
