"""The device's clock on a scripted device: what the host needs to start a run is not in the time of the run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from runtimes.tensors.device_clock import RunTimes, time_run


@dataclass
class Timeline:
    """A host that needs ``launch_s`` to queue a run, and a device that needs ``run_s`` for it, on one clock."""

    launch_s: float
    run_s: float
    host_s: float = 0.0
    device_s: float = 0.0

    def start(self) -> None:
        self.host_s += self.launch_s
        self.device_s = max(self.device_s, self.host_s) + self.run_s

    def mark(self) -> float:
        """When the device reaches an event that the host queues now."""
        self.device_s = max(self.device_s, self.host_s)
        return self.device_s


def times(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> RunTimes:
    monkeypatch.setattr(time, "perf_counter", lambda: timeline.host_s)
    marks: list[float] = []
    return time_run(
        timeline.start,
        lambda: marks.append(timeline.mark()),
        lambda: marks.append(timeline.mark()),
        lambda: marks[1] - marks[0],
    )


@pytest.mark.parametrize("launch_s", [0.0, 0.25, 1.0])
def test_the_launch_is_not_in_the_time_of_the_run(launch_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert times(Timeline(launch_s, 1.0), monkeypatch) == RunTimes(1.0, launch_s)


def test_a_host_that_is_too_slow_shows_in_both_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times(Timeline(4.0, 1.0), monkeypatch) == RunTimes(device_s=4.0, enqueue_s=4.0)


def test_events_around_an_idle_device_would_tell_the_launch() -> None:
    """The way that is not taken: without a run ahead, the device waits after the first event."""
    timeline = Timeline(0.25, 1.0)
    before_s = timeline.mark()
    timeline.start()
    assert timeline.mark() - before_s == 1.25
