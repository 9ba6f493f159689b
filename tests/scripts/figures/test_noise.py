from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.records.plan import Plan
from benchmarks.stats import comparison as statistics
from benchmarks.stats import intervals, trend
from benchmarks.stats.comparison import NO_DIFFERENCE
from benchmarks.worker.timer import TimedCall
from scripts.figures.noise import NOISES, Clockwork, Design, Noise, simulate, verdicts

NONE = Noise(jitter=0.0, correlation=0.0, layout=0.0, turn=0.0, stall=0.0)


def durations(noise: Noise, calls: int = 4000, seed: int = 1) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    clockwork = Clockwork((1.0,), noise, horizon_s=float(calls), seed=seed)
    return np.array([clockwork.call(0) for _ in range(calls)])


def test_of_a_hundred_runs_of_the_same_at_least_98_tie() -> None:
    assert verdicts(0.0)[NO_DIFFERENCE] >= 98


def test_95_of_100_runs_find_a_gap_of_five_percent() -> None:
    assert verdicts(0.05)["faster"] >= 95
    assert verdicts(-0.05, runs=20)["slower"] >= 19


def test_a_neighbour_who_comes_and_goes_hides_no_gap() -> None:
    """Its seconds are cut off, where the mean over the processes would be made of them."""
    assert verdicts(0.05, NOISES["gusty"])["faster"] >= 95
    found = lost = 0
    for seed in range(20):
        sides = simulate(0.05, NOISES["gusty"], seed=seed)
        levels = [[np.log([np.median(samples) for samples in rounds]).mean() for rounds in side] for side in sides]
        figures = np.subtract(levels[0], levels[1])
        reach = intervals.student(len(figures) - 1) * figures.std(ddof=1) / np.sqrt(len(figures))
        lost += figures.mean() - reach <= np.log(1 + statistics.RESOLUTION)
        found += statistics.compare_paired(*sides).verdict == "faster"
    assert found >= 19
    assert lost >= 5


@pytest.mark.parametrize("name", NOISES)
def test_no_kind_of_noise_makes_the_same_differ(name: str) -> None:
    assert verdicts(0.0, NOISES[name], runs=25)[NO_DIFFERENCE] >= 24


def test_the_samples_of_one_process_would_make_the_same_differ() -> None:
    """What the processes as units are for. However many calls two processes make, they tell of these two alone."""
    differ = ties = 0
    for seed in range(25):
        reference, other = simulate(0.0, NOISES["still"], Design(processes=1, per_round=20), seed)
        found = statistics.compare_paired(reference, other, seed)
        differ += not found.interval[0] <= 1.0 <= found.interval[1]
        ties += found.verdict == NO_DIFFERENCE
    assert differ >= 12
    assert ties == 25


def test_without_noise_calls_take_what_they_should_to_the_digit() -> None:
    clockwork = Clockwork((0.5, 0.25), NONE, horizon_s=100.0)
    assert [clockwork.call(configuration) for configuration in (0, 1, 1)] == [0.5, 0.25, 0.25]
    assert clockwork.clock() == clockwork.now_s == 1.0
    reference, other = simulate(0.05, NONE, Design(2, 3, 4))
    np.testing.assert_allclose(intervals.together(reference), [1.05e-3] * 24, rtol=1e-15)
    assert [[len(samples) for samples in rounds] for rounds in other] == [[4] * 3] * 2


def test_the_harness_can_time_it() -> None:
    clockwork = Clockwork((0.5,), NONE, horizon_s=100.0)
    timed = TimedCall(lambda: clockwork.call(0), Plan(window_s=0.5), clock=clockwork.clock)
    timed.warm_up()
    assert timed.turn(2.0) == (0.5,) * 4


def test_the_same_seed_is_the_same_run() -> None:
    assert simulate(0.05, seed=4) == simulate(0.05, seed=4)
    assert simulate(0.05, seed=4) != simulate(0.05, seed=5)


def test_calls_are_as_jittery_and_as_correlated_as_they_are_told() -> None:
    logs = np.log(durations(replace(NONE, jitter=0.1, correlation=0.8)))
    assert logs.std() == pytest.approx(0.1, rel=0.15)
    assert trend.autocorrelation(logs) == pytest.approx(0.8, abs=0.05)


def test_stalls_are_as_rare_and_as_long_as_they_are_told() -> None:
    stalls = durations(replace(NONE, stall=0.02, stall_times=20.0))
    assert np.mean(stalls > 1.0) == pytest.approx(0.02, rel=0.3)
    assert stalls[stalls > 1.0].min() >= 21.0
    assert stalls.max() > 100.0


def test_drift_and_step_follow_the_clock() -> None:
    drifting = durations(replace(NONE, drift=0.2), calls=1000)
    assert drifting[0] == 1.0
    assert drifting[-1] == pytest.approx(1.2, abs=0.03)
    assert (np.diff(drifting) > 0).all()
    stepping = durations(replace(NONE, step=0.5), calls=1000)
    assert set(np.round(stepping, 9)) == {1.0, 1.5}
    assert (stepping[:500] == 1.0).all()


def test_a_process_has_its_layout_and_its_mode_and_keeps_them() -> None:
    clockwork = Clockwork((1.0,), replace(NONE, layout=0.01), horizon_s=1e6)
    levels = []
    for _ in range(400):
        clockwork.start(0)
        levels.append(clockwork.call(0))
        assert clockwork.call(0) == levels[-1]
    assert np.std(levels) == pytest.approx(0.01, rel=0.15)
    bimodal = Clockwork((1.0,), replace(NONE, mode=0.5, mode_share=0.25), horizon_s=1e6)
    modes = []
    for _ in range(400):
        bimodal.start(0)
        modes.append(round(bimodal.call(0), 9))
    assert set(modes) == {1.0, 1.5}
    assert modes.count(1.5) == pytest.approx(100, abs=30)


def test_turns_differ_in_a_gust_and_not_between() -> None:
    clockwork = Clockwork((1.0, 1.0), replace(NONE, gust=0.1, gust_share=0.25), horizon_s=4000.0, seed=1)
    levels = np.array([clockwork.call(number % 2) for number in range(3900)])
    assert np.mean(levels == 1.0) == pytest.approx(0.75, abs=0.15)
    assert np.log(levels[levels != 1.0]).std() == pytest.approx(0.1, rel=0.1)


def test_a_turn_lasts_until_another_has_its_turn() -> None:
    clockwork = Clockwork((1.0, 1.0), replace(NONE, turn=0.1), horizon_s=1e6)
    first, again = clockwork.call(0), clockwork.call(0)
    clockwork.call(1)
    assert first == again
    assert first != clockwork.call(0)
