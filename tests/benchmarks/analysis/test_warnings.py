from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.analysis import warnings
from benchmarks.machine.gpu import GpuState
from benchmarks.process.job import ProcessOutcomes
from benchmarks.records.result import Row
from benchmarks.records.roof import Roof
from benchmarks.records.samples import ProcessSamples, Series
from benchmarks.stats.intervals import Samples
from tests.benchmarks.gatherings import changed, gathered, sitting
from tests.benchmarks.rows import EMPTY, QUIET


def row(found: ProcessOutcomes, **fields: object) -> Row:
    """A row of these processes, as many as were asked for unless it says otherwise."""
    sittings = tuple(outcome.sitting for outcome in found.outcomes if outcome.sitting is not None)
    return replace(replace(EMPTY, sittings=sittings, processes=len(sittings)), **fields)  # type: ignore[arg-type]


def lines(found: ProcessOutcomes, **fields: object) -> tuple[str, ...]:
    return warnings.list_warnings(row(found, **fields), found)


def timed(rounds: Sequence[Samples], settled: bool = True) -> ProcessSamples:
    """A process of these rounds."""
    latency = Series((), settled, tuple(tuple(map(float, samples)) for samples in rounds))
    return replace(sitting(), latency=latency)


def noisy(
    median: float = 0.002, spread: float = 0.01, count: int = 200, rounds: int = 10, seed: int = 0
) -> ProcessSamples:
    """A process whose samples are independent of each other."""
    random = np.random.default_rng(seed)
    return timed([median * (1 + spread * random.standard_normal(count)) for _ in range(rounds)])


def test_a_sound_row_has_no_doubts() -> None:
    assert lines(gathered(*(noisy(seed=seed) for seed in range(5)))) == ()


def test_what_the_workers_found_odd_is_told_once() -> None:
    found = gathered(sitting(), sitting(seed=1))
    found.outcomes[:] = [replace(one, warnings=("all inputs are the same", "b")) for one in found.outcomes]
    assert lines(found) == ("all inputs are the same", "b")


def test_what_was_asked_for_and_is_not_what_ran() -> None:
    found = gathered()
    assert lines(found, threads=1) == ("2 threads were asked for, and it ran on 1",)
    assert lines(found, device="cpu", requested_device="cuda") == ("device cuda was asked for, and it ran on cpu",)
    assert lines(found, requested_threads=None, requested_device=None) == ()  # a row of an older schema


def test_who_was_measured_alone_is_told() -> None:
    alone = ProcessOutcomes(gathered().outcomes, alone=True)
    assert lines(alone) == ("it was measured by itself, as there was no room beside the others",)


def test_an_early_end_is_told() -> None:
    found = gathered(sitting(), sitting(seed=1))
    assert lines(found, processes=5) == ("it was measured in 2 of 5 processes: the run ended early",)
    assert lines(found, processes=None) == ("it was measured in 2 of 3 processes: the run ended early",)
    assert lines(gathered(sitting(), sitting(seed=1), sitting(seed=2)), processes=None) == ()


@pytest.mark.parametrize(
    ("settled", "expected"),
    [
        ((True,), ()),
        ((False,), (warnings.NOT_SETTLED,)),
        ((True, False, False), (f"{warnings.NOT_SETTLED}, in 2 of 3 processes",)),
    ],
)
def test_a_warm_up_that_did_not_settle_is_told(settled: tuple[bool, ...], expected: tuple[str, ...]) -> None:
    assert lines(gathered(*(sitting(settled=one, seed=seed) for seed, one in enumerate(settled)))) == expected


def drifting(change: float, seed: int) -> ProcessSamples:
    steady = noisy(spread=0.1, seed=seed).latency.rounds_s
    return timed([[one * (1 + change * number / 9) for one in samples] for number, samples in enumerate(steady)])


def test_a_drift_is_told_with_its_size() -> None:
    (line,) = lines(gathered(*(drifting(0.18, seed) for seed in range(3))))
    assert line.startswith("the latency drifted by +1")
    assert line.endswith("% from the first third of the rounds to the last")
    (line,) = lines(gathered(*(drifting(-0.18, seed) for seed in range(3))))
    assert "drifted by -1" in line
    assert lines(gathered(*(drifting(0.005, seed) for seed in range(3)))) == ()  # beneath what matters


def test_processes_that_become_slower_one_after_another_are_told() -> None:
    (line,) = lines(gathered(*(noisy(0.002 * (1 + 0.02 * number), seed=number) for number in range(7))))
    assert line.startswith("the latency drifted by +1")
    assert line.endswith("% from the first third of the processes to the last")
    assert lines(gathered(*(noisy(0.002 * (1 + 0.02 * number), seed=number) for number in range(5)))) == ()  # too few
    assert lines(gathered(*(noisy(0.002 * (1 + 0.02 * (number % 2)), seed=number) for number in range(8)))) == ()


def leaning(seed: int, weight: float) -> ProcessSamples:
    random = np.random.default_rng(seed)
    values = random.standard_normal(2000)
    for i in range(1, len(values)):
        values[i] += weight * values[i - 1]
    return timed(np.split(0.002 * (1 + 0.002 * values), 10))


def test_samples_that_lean_on_each_other_are_told_where_they_do_in_most_processes() -> None:
    (line,) = lines(gathered(leaning(0, 0.9), leaning(1, 0.9), leaning(2, 0.0)))
    assert line.startswith("a latency leans on the one before (autocorrelation 0.5")
    assert lines(gathered(leaning(0, 0.9), leaning(1, 0.0), leaning(2, 0.0))) == ()


def test_processes_that_differ_are_told() -> None:
    (line,) = lines(gathered(noisy(0.002), noisy(0.0026, seed=1)))
    assert line.startswith("its processes differ: their medians lie between 2 and 2.6 ms")
    assert lines(gathered(noisy(0.002), noisy(0.0024, seed=1))) == ()


def test_a_clock_that_is_too_coarse_is_told() -> None:
    coarse = replace(noisy(), conditions=replace(QUIET, clock_resolution_s=1e-5))
    (line,) = lines(gathered(coarse))
    assert line.endswith("under 1,000 times the clock's own 10.000 µs")


def test_a_gpu_at_its_power_limit_is_told() -> None:
    state = GpuState("NVIDIA H200", "GPU-0", 1500, 3201, 700.0, 60, ("power cap",), 1000.0, 600)
    found = changed(gathered(), gpu_after=state)
    assert lines(found, gpu_after=state) == ("the GPU ran into its power limit, which lowers its clock",)


STATE = GpuState("NVIDIA H200", "GPU-0", 1980, 3201, 512.25, 41, (), 1000.0, 600)


def test_a_device_that_was_a_little_slower_by_its_own_clock_is_told() -> None:
    (line,) = lines(gathered(), device_p50_s=0.0011, compute_p50_s=0.001)
    assert line == (
        "a run may have returned before it was done: one takes 1.1 ms by the device's clock and 1 ms by the host's"
    )
    assert lines(gathered(), device_p50_s=0.00104, compute_p50_s=0.001) == ()


@pytest.mark.parametrize(
    ("device_s", "reason"),
    [
        (0.0004, None),
        (0.00124, None),
        (
            0.00126,
            "runs returned before they were done: one takes 1.26 ms by the device's clock and 1 ms by the host's",
        ),
        (0.1, "runs returned before they were done: one takes 100 ms by the device's clock and 1 ms by the host's"),
    ],
)
def test_a_device_that_works_on_after_its_run_has_returned_is_found(device_s: float, reason: str | None) -> None:
    assert (
        warnings.find_unfinished_work(row(gathered(), p50_s=0.002, compute_p50_s=0.001, device_p50_s=device_s))
        == reason
    )


WORK = Roof(40_000_000, 2_000_000, 400e12, 3e12, least_s=1e-7, share=0.1, bound="compute")
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
        (0.02, 0.0009, replace(WORK, least_s=1.0, share=1000.0, bound="bandwidth"), False),  # all in a cache
    ],
)
def test_runs_that_do_nothing_are_found(whole_s: float, compute_s: float, roof: Roof | None, found: bool) -> None:
    reason = warnings.find_unfinished_work(row(gathered(), p50_s=whole_s, compute_p50_s=compute_s, roof=roof))
    if not found:
        assert reason is None
    else:
        assert reason is not None
        assert reason.startswith(f"runs on bound inputs do not do the work: one takes {1e6 * compute_s:.3g} µs, where ")


def test_where_there_are_no_figures_nothing_is_undone() -> None:
    assert warnings.find_unfinished_work(row(gathered())) is None
    assert warnings.find_unfinished_work(row(gathered(), compute_p50_s=0.0)) is None
    unwatched = row(gathered(sitting(conditions=None)), p50_s=0.002, compute_p50_s=0.4e-6)
    assert warnings.find_unfinished_work(unwatched) is None, "nobody looked at the clock"


ROOF = Roof(1_000_000, 2_000_000, 1e9, 1e9, least_s=0.002, share=0.5, bound="bandwidth")


def test_what_is_faster_than_the_machine_is_told() -> None:
    assert lines(gathered(), roof=ROOF) == ()
    (line,) = lines(gathered(), roof=replace(ROOF, share=2.0))
    assert line.startswith("1 ms a call is less than the 2 ms that 2 MB take")


def test_several_doubts_stand_in_a_fixed_order() -> None:
    found = changed(gathered(sitting(settled=False)), warnings=("odd",))
    assert lines(found, threads=1, roof=replace(ROOF, share=2.0), processes=3)[:4] == (
        "odd",
        "2 threads were asked for, and it ran on 1",
        "it was measured in 1 of 3 processes: the run ended early",
        warnings.NOT_SETTLED,
    )
