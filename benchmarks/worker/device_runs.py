"""Runs on bound inputs by the clock of a device, with the time that the host needed to queue each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.records.plan import Plan
from benchmarks.records.samples import Series
from benchmarks.worker.calls import AlternatingCalls
from benchmarks.worker.timer import time_reported
from runtimes.protocol import RunTimes


class DeviceRuns:
    """Runs that are sampled turn by turn. All durations are sums of device times; other time does not count.

    Args:
        calls: Each makes one run with its own input and returns its times.
        plan: The duration of warm-up and sampling.
    """

    def __init__(self, calls: Sequence[Callable[[], RunTimes]], plan: Plan) -> None:
        self._calls = AlternatingCalls(calls)
        self._enqueue_s: list[float] = []
        self._runs = time_reported(self._run, plan)

    def _run(self) -> float:
        times = self._calls()
        self._enqueue_s.append(times.enqueue_s)
        return times.device_s

    def warm_up(self) -> None:
        """Make runs until their times agree, as ``TimedCall.warm_up``."""
        self._runs.warm_up()

    def turn(self, duration_s: float, least: int, most: int) -> None:
        """Take the samples of one round.

        Args:
            duration_s: The sum of the device times at which the round ends.
            least: The minimum number of samples.
            most: The maximum number of samples.
        """
        self._runs.turn(duration_s, least, most)

    def device_series(self) -> Series:
        """Return the device times of all runs so far."""
        return self._runs.series()

    def enqueue_series(self) -> Series:
        """Return the times of the host for the same runs, in the same order."""
        device, values = self.device_series(), iter(self._enqueue_s)
        warmup, *rounds = (
            tuple(round(next(values), 9) for _ in samples) for samples in (device.warmup_s, *device.rounds_s)
        )
        return Series(warmup, device.settled, tuple(rounds))
