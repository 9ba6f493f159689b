from __future__ import annotations

from benchmarks.records.plan import Plan
from benchmarks.records.samples import Series
from benchmarks.worker.device_runs import DeviceRuns
from runtimes.protocol import RunTimes

PLAN = Plan(window_s=1 / 32, warmup_limit_s=1.0)


def test_each_run_keeps_both_of_its_times() -> None:
    """A run takes 1/128 s on the device; what the host needs is the number of the run in milliseconds."""
    made: list[int] = []

    def run() -> RunTimes:
        made.append(len(made))
        return RunTimes(1 / 128, made[-1] / 1000)

    runs = DeviceRuns([run, run], PLAN)
    runs.warm_up()
    runs.turn(1 / 32, 1, 100)
    runs.turn(1.0, 1, 3)
    warmup = tuple(number / 1000 for number in range(12))
    assert runs.device_series() == Series((1 / 128,) * 12, True, ((1 / 128,) * 4, (1 / 128,) * 3))
    assert runs.enqueue_series() == Series(warmup, True, ((0.012, 0.013, 0.014, 0.015), (0.016, 0.017, 0.018)))
