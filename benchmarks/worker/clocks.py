"""All clocks of one opened artifact, sampled in turns, and the checks that they time the complete work.

A turn first times the runs on bound feeds and then whole calls. The first whole call waits for any work that the runs
left unfinished, which reveals a backend whose runs return too early. The outputs of some whole calls are copied as soon
as the clock has stopped, which reveals outputs that are filled in later.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from benchmarks.machine.gpu import GpuState
from benchmarks.machine.gpu_monitor import GpuMonitor, repeat
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
"""The limit of the difference between the outputs of a timed call and of the same call before the timing.

The limit is a share of the largest value.
"""

LOOKED_AT = 101
"""The outputs of one call in this number are verified, and those of the first and last call of a turn.

The number is prime, so that every input comes up.
"""

MOST_LOOKED_AT = 256
"""The largest number of copies between two checks.

If there are more, every other copy is dropped, and from then on half as many calls are verified.
"""

BACKLOG = 0.2
"""The unfinished work that the runs of a turn may leave, as a share of their time."""

WAITED = 1.5
"""A call this many times as long as usual indicates that the runs before it left unfinished work."""

HASTY = 0.8
"""A run shorter than this share of a whole call may have returned too early."""

RETRIALS, RETRIED_CALLS, RETRIED_RUNS = 5, 30, 300
"""How a suspicion of unfinished work is tested: the number of trials, and the limits of the runs in each.

A trial compares a call after many runs with a call after one run. The many runs take as long as ``RETRIED_CALLS`` calls
and are at most ``RETRIED_RUNS``. Only unfinished work grows with the number of runs. A call may also be slow after any
run because it refills the caches, and now and then without a reason.
"""


class RotatingCall:
    """A call that uses the feeds in rotation. Some of its outputs are copied right after the clock has stopped.

    Args:
        infer: The call.
        feeds: The feeds.
        expected: The outputs of each feed from before the timing. The copies are compared with them after the timing.
    """

    def __init__(self, infer: Callable[[Arrays], Arrays], feeds: Sequence[Arrays], expected: Sequence[Arrays]) -> None:
        self._infer = infer
        self._feeds = feeds
        self._expected = expected
        self._made = 0
        self._each = LOOKED_AT
        self._position = -1
        self._outputs: Arrays = {}
        self._copies: list[tuple[int, Arrays, Arrays]] = []

    def __call__(self) -> None:
        """Make the call with the next feed."""
        self._position = (self._position + 1) % len(self._feeds)
        self._outputs = self._infer(self._feeds[self._position])

    def begin(self) -> None:
        """Begin a turn. The outputs of its first call are verified."""
        self._made = 0

    def copy_outputs(self) -> None:
        """Copy the outputs of the last call if they are to be verified."""
        if self._made % self._each == 0:
            self._copy()
        self._made += 1
        if len(self._copies) > MOST_LOOKED_AT:
            del self._copies[1::2]
            self._each *= 2

    def end(self) -> None:
        """End a turn. The outputs of its last call are verified."""
        self._copy()

    def _copy(self) -> None:
        copies = {name: np.array(values) for name, values in self._outputs.items()}
        self._copies.append((self._position, copies, self._outputs))

    def check(self) -> None:
        """Compare the copies with the expected outputs and drop them.

        Raises:
            CheckFailedError: The outputs of a timed call differ from those of the same call before, or were not
                complete when the call returned.
        """
        copies, self._copies, self._each = self._copies, [], LOOKED_AT
        for position, values, afterwards in copies:
            for name, expected in self._expected[position].items():
                if not close(afterwards[name], expected):
                    raise CheckFailedError(
                        f"output {name!r} of a timed call differs from the output of the same call before the timing",
                        code="output-changed",
                    )
                if not close(values[name], expected):
                    raise CheckFailedError(
                        f"a timed call returned before its output {name!r} was complete", code="output-late"
                    )


def close(values: Array, expected: Array, tolerance: float = REPEAT_TOLERANCE) -> bool:
    """Return whether ``values`` equal ``expected`` within ``tolerance``, a share of the largest value."""
    tolerance *= float(np.abs(expected).max(initial=0))
    return values.shape == expected.shape and bool(np.allclose(values, expected, rtol=0, atol=tolerance))


class AlternatingCalls(Generic[T]):
    """A call that makes one of several calls in rotation and returns its result.

    Attributes:
        made: The number of calls so far.
    """

    def __init__(self, calls: Sequence[Callable[[], T]]) -> None:
        self._calls = calls
        self.made = 0

    def __call__(self) -> T:
        """Make the next call and return its result."""
        call = self._calls[self.made % len(self._calls)]
        self.made += 1
        return call()


@dataclass(frozen=True)
class OpenedArtifact:
    """An opened artifact, and the facts about it from before the timing.

    Attributes:
        runtime: The runtime. Its owner closes it.
        feeds: The feeds that the calls use in rotation.
        expected: The outputs of each feed.
        image: Classifies one encoded image, another one in each call; ``None`` if there are no images.
        load_s: The time to open the artifact, as in ``benchmarks.records.samples.ProcessSamples``.
        first_s: The time of the first call.
        baseline_bytes: The resident memory before the artifact was opened.
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
    """The clocks of an opened artifact.

    Attributes:
        opened: The opened artifact.
        plan: The duration of warm-up and sampling.
        gpu: The monitor of the GPU, made before the artifact was opened.
        machine: The monitor of the machine, made before the artifact was opened.
        began_s: The start of the run, by ``time.monotonic``.
    """

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

    def warm_up(self, lead_s: float = 0.0) -> float:
        """Warm up all clocks and return the usual time of the slowest call, in seconds.

        Args:
            lead_s: The time for which the model is called before, so that the clocks of the device have risen.

        Raises:
            CheckFailedError: The timed calls did not do the complete work.
        """
        opened = self.opened
        if lead_s:
            repeat(self._rotating, lead_s)
        self._latency.warm_up()
        self.gpu_before: GpuState | None = self.gpu.read_state()
        self.device_peak_bytes = self.gpu.peak_bytes()  # before the inputs of all feeds are copied to the device
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
        """Take a turn of every clock and return the median latency in it, in seconds.

        Raises:
            CheckFailedError: The timed calls did not do the complete work.
        """
        with self.gpu.turn(), self.machine.turn():
            self._starts_s.append(time.monotonic() - self.began_s)
            self._compute.renew(turn.duration_s)
            runs = self._compute.turn(turn.duration_s, turn.least, turn.most)
            self.gpu.note_state()
            self._rotating.begin()
            renewal = self._latency.renew(turn.duration_s)
            samples = self._latency.turn(turn.duration_s, turn.least, turn.most)
            self._rotating.end()
            if self._device is not None:
                # No more runs than by the host's clock: if starting a run takes longer than the run itself, the device
                # times alone would take too long to reach the duration.
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
        """Return all samples. ``peak_bytes`` is the largest resident memory of the process.

        Raises:
            CheckFailedError: The runs on bound feeds returned before they were complete.
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
            conditions=replace(self.machine.conditions(), gpu=self.gpu.conditions()),
        )

    def _check_done(self, backlogs: Sequence[tuple[float, float]], usual_s: float, run_s: float) -> None:
        """Raise an error if all backlogs indicate unfinished work and a test confirms it.

        A backlog is the time of the call after some runs, and the total time of these runs.
        """

        def is_unfinished(backlog: tuple[float, float]) -> bool:
            waited_s, ran_s = backlog
            return waited_s > WAITED * usual_s and waited_s - usual_s > BACKLOG * ran_s

        if run_s >= HASTY * usual_s or not all(map(is_unfinished, backlogs)):
            return
        trials = [(*self._after(RETRIED_CALLS * usual_s), *self._after(0.0)) for _ in range(RETRIALS)]
        waited_s, ran_s, one_s, _ = (statistics.median(values) for values in zip(*trials, strict=True))
        if is_unfinished((usual_s + waited_s - one_s, ran_s)):
            raise CheckFailedError(
                f"runs returned before they were complete: the call after them took {waited_s * 1e3:.3g} ms, usual are "
                f"{usual_s * 1e3:.3g} ms",
                code="runs-unfinished",
            )

    def _after(self, duration_s: float) -> tuple[float, float]:
        """Return the time of a whole call after runs of that duration, at least one, and the total time of the runs."""
        runs = TimedCall(self.bound, self.plan).turn(duration_s, 1, RETRIED_RUNS)
        return self._measure_call_s(), sum(runs)

    def _measure_call_s(self) -> float:
        """Return the time of one whole call."""
        (sample,) = TimedCall(self._rotating, self.plan).turn(0.0, 1, 1)
        return sample
