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

from benchmarks.machine.gpu import GpuState
from benchmarks.machine.gpu_monitor import GpuMonitor, repeat
from benchmarks.machine.monitor import MachineMonitor, wait_until_idle
from benchmarks.process.job import TurnPlan
from benchmarks.records.plan import Plan
from benchmarks.records.samples import ProcessSamples
from benchmarks.worker.calls import REPEAT_TOLERANCE, AlternatingCalls, RotatingCall, tolerance_of
from benchmarks.worker.device_runs import DeviceRuns
from benchmarks.worker.throughput import ConcurrentCalls
from benchmarks.worker.timer import TimedCall
from benchmarks.worker.transfers import measure_transfers
from runtimes import Runtime
from runtimes.devices import CPU, parse_device
from runtimes.errors import CheckFailedError
from runtimes.protocol import Arrays

BACKLOG = 0.2
"""The unfinished work that the runs of a turn may leave, as a share of their time."""

WAITED = 1.5
"""A call this many times as long as usual indicates that the runs before it left unfinished work."""

HASTY = 0.8
"""A run shorter than this share of a whole call may have returned too early."""

RETRIALS, RETRIED_CALLS, RETRIED_RUNS = 10, 30, 300
"""How a suspicion of unfinished work is tested: the number of trials, and the limits of the runs in each.

A trial compares a call after many runs with a call after one run. The many runs take as long as ``RETRIED_CALLS`` calls
and are at most ``RETRIED_RUNS``. Only unfinished work grows with the number of runs. A call may also be slow after any
run because it refills the caches. Other processes can delay most calls, but not all: unfinished work must show in each
trial but one, which may have had time to complete it.
"""


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
        streams: The numbers of calls at the same time for which the throughput is measured.
    """

    opened: OpenedArtifact
    plan: Plan
    gpu: GpuMonitor
    machine: MachineMonitor
    began_s: float
    streams: Sequence[int] = ()

    def __post_init__(self) -> None:
        self._starts_s: list[float] = []
        self._backlogs: list[tuple[float, float]] = []
        self._unhindered_s: list[float] = []
        self._rotating = RotatingCall(self.opened.runtime.infer, self.opened.feeds, self.opened.expected)
        self._latency = TimedCall(self._rotating, self.plan, after=self._rotating.copy_outputs)
        self._image = None if self.opened.image is None else TimedCall(self.opened.image, self.plan)
        opened = self.opened
        tolerance = max(REPEAT_TOLERANCE, tolerance_of(opened.runtime.artifact.manifest))
        self._throughput = [
            ConcurrentCalls(opened.runtime.infer, opened.feeds, opened.expected, streams, tolerance)
            for streams in self.streams
        ]

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
        self._device = DeviceRuns(timed, self.plan) if timed else None
        device = parse_device(opened.runtime.description.device)
        self._transfers = None
        if device.kind != CPU:
            self._transfers = measure_transfers(opened.feeds[0], opened.expected[0], device.index)
        if self._device is not None:
            self._device.warm_up()
        if self._image is not None:
            self._image.warm_up()
        for calls in self._throughput:
            calls.warm_up(self.plan)
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
            for calls in self._throughput:
                calls.turn(turn.duration_s)
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
            device=None if self._device is None else self._device.device_series(),
            image=None if self._image is None else self._image.series(),
            conditions=replace(self.machine.conditions(), gpu=self.gpu.conditions()),
            enqueue=None if self._device is None else self._device.enqueue_series(),
            transfers=self._transfers,
            throughput=tuple(calls.series() for calls in self._throughput),
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
        waits_s, ran_s, ones_s, _ = (sorted(values) for values in zip(*trials, strict=True))
        waited_s = waits_s[1]
        if is_unfinished((usual_s + waited_s - ones_s[0], statistics.median(ran_s))):
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
