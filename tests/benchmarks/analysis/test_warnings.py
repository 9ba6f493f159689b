from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.analysis import warnings
from benchmarks.analysis.figures import Figures
from benchmarks.machine.gpu import GpuState
from benchmarks.machine.gpu_conditions import GpuConditions
from benchmarks.process.job import ProcessOutcomes
from benchmarks.records.result import Estimate, GpuUse, Result, RoofInputs
from benchmarks.records.samples import ProcessSamples, Series
from benchmarks.stats.intervals import Samples
from runtimes.errors import Reason
from tests.benchmarks.gatherings import gathered, process
from tests.benchmarks.results import EMPTY, QUIET, change_facts


def measured(found: ProcessOutcomes, **facts: object) -> Result:
    """A result of these processes, as many as were asked for unless it says otherwise."""
    samples = tuple(outcome.sitting for outcome in found.outcomes if outcome.sitting is not None)
    return change_facts(EMPTY, **{"samples": samples, "processes": len(samples), **facts})


def told(found: ProcessOutcomes, **facts: object) -> tuple[Reason, ...]:
    return Figures(measured(found, **facts)).warnings


def codes(found: ProcessOutcomes, **facts: object) -> list[str]:
    return [warning.code for warning in told(found, **facts)]


def timed(rounds: Sequence[Samples], settled: bool = True) -> ProcessSamples:
    """A process of these rounds."""
    latency = Series((), settled, tuple(tuple(map(float, samples)) for samples in rounds))
    return replace(process(), latency=latency)


def noisy(
    median: float = 0.002, spread: float = 0.01, count: int = 200, rounds: int = 10, seed: int = 0
) -> ProcessSamples:
    """A process whose samples are independent of each other."""
    random = np.random.default_rng(seed)
    return timed([median * (1 + spread * random.standard_normal(count)) for _ in range(rounds)])


def test_a_sound_result_has_no_warnings() -> None:
    assert told(gathered(*(noisy(seed=seed) for seed in range(5)))) == ()


def test_warnings_of_the_workers_come_first() -> None:
    odd = Reason("inputs-equal", "all inputs are the same")
    assert told(gathered(), warnings=(odd,), threads=1)[0] == odd


def test_what_was_asked_for_and_is_not_what_ran() -> None:
    found = gathered()
    (threads,) = told(found, threads=1)
    assert (threads.code, "(1, not 2)" in threads.sentence) == ("threads-not-granted", True)
    (device,) = told(found, device="cpu", asked_device="cuda")
    assert (device.code, "cuda" in device.sentence) == ("device-not-granted", True)
    assert told(found, asked_threads=None, asked_device=None) == ()  # of an older schema


def test_a_configuration_measured_alone_is_told() -> None:
    assert codes(gathered(), group=None) == ["measured-alone"]


def test_a_gpu_that_was_not_watched_is_told() -> None:
    on_gpu = {"device": "cuda", "asked_device": "cuda"}
    assert codes(gathered(), **on_gpu) == ["gpu-not-recorded"]
    watched = replace(process(), conditions=replace(QUIET, gpu=GpuConditions(1.0, processes=())))
    assert codes(gathered(watched), **on_gpu) == []


def test_an_early_end_is_told() -> None:
    found = gathered(process(), process(seed=1))
    for processes, asked in ((5, "5"), (None, "3")):
        (warning,) = told(found, processes=processes)
        assert (warning.code, f"2 of {asked}" in warning.sentence) == ("processes-missing", True)
    assert told(gathered(process(), process(seed=1), process(seed=2)), processes=None) == ()


@pytest.mark.parametrize(("settled", "where"), [((True,), None), ((False,), ""), ((True, False, False), "2 of 3")])
def test_a_warm_up_that_did_not_settle_is_told(settled: tuple[bool, ...], where: str | None) -> None:
    found = told(gathered(*(process(settled=one, seed=seed) for seed, one in enumerate(settled))))
    assert [warning.code for warning in found] == ([] if where is None else ["warm-up-not-settled"])
    assert all((where or "") in warning.sentence for warning in found)


def drifting(change: float, seed: int) -> ProcessSamples:
    steady = noisy(spread=0.1, seed=seed).latency.rounds_s
    return timed([[one * (1 + change * number / 9) for one in samples] for number, samples in enumerate(steady)])


def drift_of(*processes: ProcessSamples) -> str:
    """The sentence of the one warning, which is that of a drift; empty where there is none."""
    found = told(gathered(*processes))
    assert [warning.code for warning in found] in ([], ["latency-drifted"])
    return found[0].sentence if found else ""


def test_a_drift_is_told_with_its_size() -> None:
    assert all(word in drift_of(*(drifting(0.18, seed) for seed in range(3))) for word in ("+1", "rounds"))
    assert "-1" in drift_of(*(drifting(-0.18, seed) for seed in range(3)))
    assert drift_of(*(drifting(0.005, seed) for seed in range(3))) == ""  # beneath what matters


def test_processes_that_become_slower_are_told() -> None:
    found = drift_of(*(noisy(0.002 * (1 + 0.02 * number), seed=number) for number in range(7)))
    assert all(word in found for word in ("+1", "processes"))
    assert drift_of(*(noisy(0.002 * (1 + 0.02 * number), seed=number) for number in range(5))) == ""  # too few
    assert drift_of(*(noisy(0.002 * (1 + 0.02 * (number % 2)), seed=number) for number in range(8))) == ""


def leaning(seed: int, weight: float) -> ProcessSamples:
    random = np.random.default_rng(seed)
    values = random.standard_normal(2000)
    for i in range(1, len(values)):
        values[i] += weight * values[i - 1]
    return timed(np.split(0.002 * (1 + 0.002 * values), 10))


def test_correlation_in_most_processes_is_told() -> None:
    (warning,) = told(gathered(leaning(0, 0.9), leaning(1, 0.9), leaning(2, 0.0)))
    assert (warning.code, "0.5" in warning.sentence) == ("samples-correlated", True)
    assert told(gathered(leaning(0, 0.9), leaning(1, 0.0), leaning(2, 0.0))) == ()


def test_processes_that_differ_are_told() -> None:
    (warning,) = told(gathered(noisy(0.002), noisy(0.0026, seed=1)))
    assert (warning.code, "2 to 2.6 ms" in warning.sentence) == ("processes-differ", True)
    assert told(gathered(noisy(0.002), noisy(0.0024, seed=1))) == ()


def test_a_clock_that_is_too_coarse_is_told() -> None:
    coarse = replace(noisy(), conditions=replace(QUIET, clock_resolution_s=1e-5))
    assert codes(gathered(coarse)) == ["clock-too-coarse"]


def test_a_gpu_at_its_power_limit_is_told() -> None:
    state = GpuState("NVIDIA H200", "GPU-0", 1500, 3201, 700.0, 60, ("power cap",), 1000.0, 600)
    assert codes(gathered(), gpu=GpuUse(after=state)) == ["gpu-power-limit"]


def estimate(value: float | None) -> Estimate | None:
    return None if value is None else Estimate(value, value, value)


def unfinished(
    result: Result, whole_s: float | None, compute_s: float | None, device_s: float | None = None
) -> Reason | None:
    return warnings.find_unfinished_work(result, *map(estimate, (whole_s, compute_s, device_s)))


def test_a_device_a_little_slower_by_its_clock_is_told() -> None:
    result, compute = measured(gathered()), estimate(0.001)
    (warning,) = warnings.list_warnings(result, compute, estimate(0.0011))
    assert warning.code == "run-returned-early"
    assert all(figure in warning.sentence for figure in ("1.1 ms", "1 ms"))
    assert list(warnings.list_warnings(result, compute, estimate(0.00104))) == []


@pytest.mark.parametrize(
    ("device_s", "figure"), [(0.0004, None), (0.00124, None), (0.00126, "1.26 ms"), (0.1, "100 ms")]
)
def test_a_device_that_works_on_after_its_run_is_found(device_s: float, figure: str | None) -> None:
    reason = unfinished(measured(gathered()), 0.002, 0.001, device_s)
    assert (reason and reason.code) == (None if figure is None else "runs-returned-early")
    assert reason is None or f"{figure}" in reason.sentence


WORK = RoofInputs(40_000_000, 2_000_000, 400e12, 3e12)
"""Of a small network on a large GPU: its multiplications alone would take a tenth of a microsecond."""


@pytest.mark.parametrize(
    ("whole_s", "compute_s", "roof", "found"),
    [
        (0.002, 0.4e-6, None, True),  # a call of Python's that does nothing
        (0.002, 0.4e-6, WORK, True),
        (30e-6, 1.4e-6, None, True),
        (20e-6, 1.1e-6, None, False),  # quick, and whole calls are too
        (0.01, 9e-6, WORK, False),  # a GPU that replays a graph, behind a copy that takes a thousand times as long
        (0.01, 9e-6, None, False),
        (0.02, 0.0011, replace(WORK, peak_multiply_adds_per_s=1e9), False),  # not a twentieth
        (0.02, 0.0009, replace(WORK, peak_multiply_adds_per_s=1e9), True),  # 40 ms of multiplications
        (0.02, 0.0009, replace(WORK, peak_multiply_adds_per_s=5e9), False),  # 8 ms, of which most may be saved
        (0.02, 0.0009, replace(WORK, bandwidth_bytes_per_s=1e6), False),  # all in a cache
    ],
)
def test_runs_that_do_nothing_are_found(whole_s: float, compute_s: float, roof: RoofInputs | None, found: bool) -> None:
    reason = unfinished(measured(gathered(), roof=roof), whole_s, compute_s)
    assert (reason and reason.code) == ("runs-without-work" if found else None)
    assert reason is None or f"{1e6 * compute_s:.3g} µs" in reason.sentence


def test_without_figures_nothing_is_unfinished() -> None:
    assert unfinished(measured(gathered()), 0.002, None) is None
    assert unfinished(measured(gathered()), None, 0.0) is None
    unwatched = measured(gathered(process(conditions=None)))
    assert unfinished(unwatched, 0.002, 0.4e-6) is None, "nobody looked at the clock"


def test_what_is_faster_than_the_machine_is_told() -> None:
    roof = RoofInputs(1_000_000, 2_000_000, 1e9, 1e9)
    assert told(gathered(), roof=replace(roof, traffic_bytes=1_000_000)) == ()
    (warning,) = told(gathered(), roof=roof)
    assert warning.code == "faster-than-bandwidth"
    assert all(figure in warning.sentence for figure in ("1 ms", "2 ms", "2 MB"))


def test_several_warnings_stand_in_a_fixed_order() -> None:
    found = gathered(process(settled=False))
    assert codes(found, warnings=(Reason("odd", "odd"),), threads=1, processes=3) == [
        *("odd", "threads-not-granted", "processes-missing", "warm-up-not-settled")
    ]
