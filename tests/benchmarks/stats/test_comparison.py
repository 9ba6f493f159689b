from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.stats import comparison as statistics
from benchmarks.stats import intervals, trend
from benchmarks.stats.comparison import NO_DIFFERENCE, LatencyComparison
from benchmarks.stats.intervals import Processes
from runtimes.errors import UsageError
from scripts.figures.noise import NOISES, USUAL, Design, simulate

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def independent(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Lognormal: skewed to the right, as latencies are. Its median is 1."""
    return np.exp(0.2 * random.standard_normal(n))


def correlated(random: np.random.Generator, n: int, share: float = 0.8) -> NDArray[np.float64]:
    """The same distribution, each value leaning on the one before."""
    values = np.empty(n)
    state = random.standard_normal()
    for index, shock in enumerate(random.standard_normal(n)):
        state = share * state + np.sqrt(1 - share * share) * shock
        values[index] = state
    return np.exp(0.2 * values)


def steady(*levels: float, rounds: int = 3, calls: int = 4) -> Processes:
    """Processes without noise, a level each."""
    return [[[level] * calls] * rounds for level in levels]


def test_quantiles_to_the_digit() -> None:
    samples = [float(value) for value in range(100, -1, -1)]
    assert [intervals.quantile(samples, q) for q in (0.0, 0.5, 0.9, 0.99, 1.0)] == [0.0, 50.0, 90.0, 99.0, 100.0]
    assert intervals.quantile([1.0, 2.0], 0.5) == 1.5
    assert intervals.quantile([3.0], 0.99) == 3.0


@pytest.mark.parametrize(("q", "least"), [(0.5, 5), (0.9, 20), (0.99, 1000), (0.999, 10_000)])
def test_few_samples_are_not_enough(q: float, least: int) -> None:
    assert not intervals.enough_for([1.0] * (least - 1), q)
    assert intervals.enough_for([1.0] * least, q)


def test_all_samples_together_are_in_their_order() -> None:
    assert intervals.together([[[1.0, 2.0], []], [[3.0], [4.0]]]).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert intervals.together([]).tolist() == []


@pytest.mark.parametrize(("draw", "n"), [(independent, 300), (correlated, 600)])
def test_median_intervals_hold_the_truth_as_often_as_stated(draw: Draw, n: int) -> None:
    held = 0
    for trial in range(200):
        ((low, high),) = intervals.quantile_intervals([[draw(np.random.default_rng([1, trial]), n)]], [0.5])
        held += low <= 1.0 <= high
    assert 178 <= held <= 199  # 95 % of 200 is 190; a few less where samples lean on each other


def test_resampling_single_values_is_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "block_length", lambda _: 1)
    held = 0
    for trial in range(100):
        ((low, high),) = intervals.quantile_intervals([[correlated(np.random.default_rng([2, trial]), 600)]], [0.5])
        held += low <= 1.0 <= high
    assert held < 75


@pytest.mark.parametrize("processes", [3, 5, 10])
def test_intervals_of_few_processes_cover_the_others(processes: int) -> None:
    """In each process calls lean on each other, and its layout moves it as a whole; the truth is the median of all."""
    noise = replace(USUAL, stall=0.0, drift=0.0, step=0.0)
    held = 0
    for seed in range(100):
        samples, _ = simulate(0.0, noise, Design(processes, rounds=5), seed)
        ((low, high),) = intervals.quantile_intervals(samples, [0.5], seed)
        held += low <= 1e-3 <= high
    assert held >= 92


def test_one_process_taken_for_all_would_not_hold_it() -> None:
    """What the interval of several processes is for: that of the same samples as if of one is too narrow."""
    noise = replace(USUAL, stall=0.0, drift=0.0, step=0.0)
    held = 0
    for seed in range(50):
        samples, _ = simulate(0.0, noise, Design(3), seed)
        ((low, high),) = intervals.quantile_intervals([[intervals.together(samples)]], [0.5], seed)
        held += low <= 1e-3 <= high
    assert held < 44


def test_the_interval_of_processes_without_noise_is_students() -> None:
    """Three levels, each so long that the median of all is the middle one unless it is not drawn."""
    ((low, high),) = intervals.quantile_intervals(steady(1.0, 2.0, 4.0), [0.5])
    assert low < 2.0 < high
    assert low * high == pytest.approx(4.0)
    ((narrow, _),) = intervals.quantile_intervals(steady(1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 1.0, 2.0, 4.0), [0.5])
    assert low < narrow < 2.0


def test_intervals_are_the_same_for_the_same_seed() -> None:
    samples = [[independent(np.random.default_rng(3), 200)]]
    first = intervals.quantile_intervals(samples, [0.5, 0.9, 0.99], seed=7)
    assert first == intervals.quantile_intervals(samples, [0.5, 0.9, 0.99], seed=7)
    assert first != intervals.quantile_intervals(samples, [0.5, 0.9, 0.99], seed=8)
    for (low, high), q in zip(first, (0.5, 0.9, 0.99), strict=True):
        assert low <= intervals.quantile(samples[0][0], q) <= high


def test_many_samples_are_resampled_in_parts() -> None:
    samples = independent(np.random.default_rng(4), 9_000)
    ((low, high),) = intervals.quantile_intervals([[samples]], [0.5])
    assert 0.98 < low < 1.0 < high < 1.02


def test_equal_samples_have_an_interval_of_no_width() -> None:
    assert intervals.quantile_intervals([[[0.25] * 40]], [0.5]) == ((0.25, 0.25),)
    assert intervals.quantile_intervals(steady(0.25, 0.25, 0.25), [0.5, 0.9]) == ((0.25, 0.25), (0.25, 0.25))


def test_no_samples_have_no_interval() -> None:
    with pytest.raises(UsageError, match="no samples"):
        intervals.quantile_intervals([[[]], []], [0.5])


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423), (math.inf, 1.9600)]
)
def test_students_t_as_in_the_tables(freedom: float, expected: float) -> None:
    assert intervals.student(freedom) == pytest.approx(expected, abs=1e-4)


def test_paired_ratios_are_free_of_the_machines_drift() -> None:
    """The machine slows down threefold within each sitting, and the other is faster by a quarter all along."""
    reference = [[[level * 1.25] * 5 for level in (1.0, 1.5, 3.0)]] * 3
    other = [[[level] * 5 for level in (1.0, 1.5, 3.0)]] * 3
    found = statistics.compare_paired(reference, other)
    assert (found.verdict, found.units) == ("faster", "processes")
    assert (found.ratio, *found.interval) == pytest.approx((1.25, 1.25, 1.25))
    assert statistics.compare_unpaired(reference, other).verdict == NO_DIFFERENCE
    assert statistics.compare_paired(other, reference).verdict == "slower"


def test_paired_over_sittings_is_students_interval_to_the_digit() -> None:
    logs = [0.10, 0.12, 0.17]
    found = statistics.compare_paired(steady(*map(math.exp, logs), rounds=1), steady(1.0, 1.0, 1.0, rounds=1))
    reach = 4.302653 * float(np.std(logs, ddof=1)) / math.sqrt(3)
    assert found.ratio == pytest.approx(math.exp(0.13))
    assert found.interval == pytest.approx((math.exp(0.13 - reach), math.exp(0.13 + reach)), rel=1e-5)


def test_paired_ratio_and_spread_to_the_digit() -> None:
    logs = [[0.00, 0.01], [0.02, 0.03], [0.04, 0.90]]  # a neighbour met one side alone in the last round
    found = statistics.compare_paired(
        [[[math.exp(log)] for log in each] for each in logs], steady(1.0, 1.0, 1.0, rounds=2)
    )
    assert found.ratio == pytest.approx(math.exp(0.025)), "of 0.01, 0.02, 0.03 and 0.04"
    clipped = np.array([0.01 + 0.01, 0.02 + 0.03, 0.04 + 0.04])
    influences = (clipped - clipped.mean()) / 4
    reach = 4.302653 * math.sqrt(float(np.square(influences).sum()) * 3 / 2)
    assert found.interval == pytest.approx((math.exp(0.025 - reach), math.exp(0.025 + reach)), rel=1e-5)


def test_rounds_of_one_process_are_not_taken_for_independent() -> None:
    """Each process lands somewhere and stays there: a hundred rounds tell no more of it than one."""
    levels = [0.97, 0.99, 1.0, 1.01, 1.03]
    once, often = (statistics.compare_paired(steady(*levels, rounds=n), steady(*[1.0] * 5, rounds=n)) for n in (4, 100))
    assert np.diff(often.interval)[0] > 0.95 * np.diff(once.interval)[0] > 0.03


def test_processes_that_agree_by_luck_are_not_narrower() -> None:
    restless = [[[1.0], [1.5], [1.0], [1.5]]] * 3
    found = statistics.compare_paired(restless, steady(1.2, 1.2, 1.2, rounds=4))
    assert found.interval[0] < 0.9
    assert found.interval[1] > 1.1


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        (1.0, NO_DIFFERENCE),
        (1.009, NO_DIFFERENCE),
        (1 / 1.009, NO_DIFFERENCE),
        (1.011, "faster"),
        (1 / 1.011, "slower"),
    ],
)
def test_less_than_a_percent_is_a_tie_whatever_the_interval(gap: float, verdict: str) -> None:
    assert statistics.compare_paired(steady(*[gap] * 5), steady(*[1.0] * 5)).verdict == verdict
    assert statistics.compare_unpaired(steady(*[gap] * 5), steady(*[1.0] * 5)).verdict == verdict


@pytest.mark.parametrize(("rounds", "units"), [(10, "rounds"), (4, "samples"), (1, "samples")])
def test_one_process_needs_a_larger_difference(rounds: int, units: str) -> None:
    for gap, verdict in ((1.04, NO_DIFFERENCE), (1.06, "faster"), (1 / 1.06, "slower")):
        found = statistics.compare_paired(steady(gap, rounds=rounds), steady(1.0, rounds=rounds))
        assert found.verdict == verdict
        assert found.units == units
        assert found.ratio == pytest.approx(gap)
    low, high = statistics.compare_paired(*simulate(0.1, NOISES["independent"], Design(1, rounds), seed=3)).interval
    assert low < 1.1 < high


def test_what_one_side_alone_has_is_left_out() -> None:
    longer = [*steady(1.1, 1.1), [[9.0]], [[9.0]]]
    longer[0] = [*longer[0], [9.0]]
    other = [*steady(1.0, 1.0), [[]]]
    found = statistics.compare_paired(longer, other)
    assert found.units == "processes"
    assert found.ratio == pytest.approx(1.1)
    with pytest.raises(UsageError, match="no round with samples of both sides"):
        statistics.compare_paired([[[1.0], []]], [[[], [1.0]]])
    with pytest.raises(UsageError, match="no samples"):
        statistics.compare_unpaired([[[1.0]]], [[[]]])


def test_a_duration_of_nothing_counts_as_a_nanosecond() -> None:
    assert statistics.compare_paired(steady(2e-9, 2e-9), steady(0.0, 0.0)).ratio == pytest.approx(2.0)
    assert statistics.compare_unpaired(steady(0.0), steady(0.0)) == LatencyComparison(
        1.0, (1.0, 1.0), NO_DIFFERENCE, "samples"
    )


def test_another_quantile_is_of_all_rounds_of_a_sitting() -> None:
    """A tenth of the calls stall, in one round only: no round's median shows it, and the 0.95-quantile does."""
    stalling = [[[1.0] * 10, [1.0] * 7 + [3.0] * 3, [1.0] * 10]] * 3
    even = steady(1.0, 1.0, 1.0, calls=10)
    assert statistics.compare_paired(stalling, even).ratio == pytest.approx(1.0)
    assert statistics.compare_paired(stalling, even, q=0.95).ratio == pytest.approx(3.0)


def test_unpaired_is_welchs_interval_to_the_digit() -> None:
    mine, its = [0.10, 0.12, 0.17], [0.0, 0.01, 0.02, 0.05]
    found = statistics.compare_unpaired(steady(*map(math.exp, mine)), steady(*map(math.exp, its)))
    errors = [float(np.var(logs, ddof=1)) / len(logs) for logs in (mine, its)]
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / 2 + errors[1] ** 2 / 3)
    reach = intervals.student(freedom) * math.sqrt(sum(errors))
    centre = float(np.mean(mine) - np.mean(its))
    assert (found.verdict, found.units) == ("faster", "processes")
    assert found.ratio == pytest.approx(math.exp(centre))
    assert found.interval == pytest.approx((math.exp(centre - reach), math.exp(centre + reach)))


def test_a_run_of_one_process_is_lent_the_other_runs_spread() -> None:
    several = steady(1.00, 1.05, 0.95)
    lent = statistics.compare_unpaired(several, steady(1.0))
    both = statistics.compare_unpaired(several, several)
    assert lent.units == "processes"
    assert lent.interval[0] < both.interval[0] < 1.0 < both.interval[1] < lent.interval[1]
    alone = statistics.compare_unpaired(steady(1.0), steady(1.0))
    assert (alone.units, alone.interval) == ("samples", (1.0, 1.0))


def test_two_runs_of_the_same_tie_and_ten_percent_are_found() -> None:
    tally = {NO_DIFFERENCE: 0, "found": 0}
    noise = replace(USUAL, drift=0.0, step=0.0)
    for seed in range(30):
        reference, (same, _), (_, faster) = (
            simulate(0.0, noise, seed=seed)[0],
            simulate(0.0, noise, seed=1000 + seed),
            simulate(0.0, noise, seed=2000 + seed),
        )
        faster = [[np.asarray(samples) / 1.1 for samples in rounds] for rounds in faster]
        tally[NO_DIFFERENCE] += statistics.compare_unpaired(reference, same, seed).verdict == NO_DIFFERENCE
        tally["found"] += statistics.compare_unpaired(reference, faster, seed).verdict == "faster"
    assert tally[NO_DIFFERENCE] >= 29
    assert tally["found"] >= 29


def test_two_single_processes_compare_by_their_medians() -> None:
    found = statistics.compare_unpaired([[[2.0, 4.0, 100.0]]], [[[1.0, 2.0, 3.0]]])
    assert found.ratio == pytest.approx(2.0)


def test_a_ratio_of_the_same_distribution_holds_one() -> None:
    held = 0
    for trial in range(100):
        random = np.random.default_rng([7, trial])
        low, high = statistics.compare_unpaired([[correlated(random, 400)]], [[correlated(random, 400)]]).interval
        held += low <= 1.0 <= high
    assert held >= 88


def test_a_true_gap_of_ten_percent_is_found_within_one_process() -> None:
    found = 0
    for trial in range(50):
        random = np.random.default_rng([8, trial])
        low, _ = statistics.compare_unpaired([[1.1 * independent(random, 600)]], [[independent(random, 600)]]).interval
        found += low > 1.0
    assert found >= 48


def test_a_trend_is_found_with_its_size() -> None:
    climbing = [[[1.0 + 0.02 * step] * 3 for step in range(9)]] * 2
    found = trend.drift(climbing)
    assert found is not None
    assert found.change == pytest.approx(1.14 / 1.02 - 1)
    assert found.p == pytest.approx(math.erfc((72 - 1) / math.sqrt(2 * 9 * 8 * 23 / 18) / math.sqrt(2)))
    assert found.found
    falling = trend.drift([list(reversed(rounds)) for rounds in climbing])
    assert falling is not None
    assert falling.change == pytest.approx(1.02 / 1.14 - 1)
    assert falling.found


def test_processes_that_differ_are_no_trend() -> None:
    found = trend.drift(steady(1.0, 2.0, 4.0, rounds=6))
    assert found == trend.Drift(0.0, 1.0)
    assert not found.found


def test_a_clear_trend_of_less_than_a_percent_is_none() -> None:
    found = trend.drift([[[1.0 + 0.0005 * step] for step in range(12)]])
    assert found is not None
    assert found.p < 1e-4
    assert not found.found


def test_three_rounds_say_nothing_of_a_trend() -> None:
    assert trend.drift([[[1.0], [2.0], [3.0]]]) is None
    assert trend.drift([[[1.0], [2.0], [3.0], [], [4.0]], [[1.0]]]) is not None
    assert trend.drift([]) is None


def test_a_trend_from_process_to_process_takes_six_of_them() -> None:
    def processes(*medians: float) -> list[list[list[float]]]:
        return [[[median] * 5, [median] * 5] for median in medians]

    found = trend.drift_between(processes(1.0, 1.01, 1.02, 1.03, 1.04, 1.05))
    assert found is not None
    assert found.found
    assert found.change == pytest.approx(1.045 / 1.005 - 1, rel=1e-3)
    mixed = trend.drift_between(processes(1.0, 1.05, 1.01, 1.04, 1.02, 1.03))
    assert mixed is not None
    assert not mixed.found
    assert trend.drift_between(processes(1.0, 1.1, 1.2, 1.3, 1.4)) is None
    assert trend.drift_between([*processes(1.0, 1.1, 1.2, 1.3, 1.4), [[], []]]) is None


def test_a_drifting_machine_is_noticed_and_a_steady_one_seldom() -> None:
    noticed = {"usual": 0, "drifting": 0}
    for seed in range(40):
        for name, noise in (("usual", replace(USUAL, drift=0.0, step=0.0)), ("drifting", NOISES["drifting"])):
            found = trend.drift(simulate(0.0, noise, seed=seed)[0])
            noticed[name] += found is not None and found.found
    assert noticed["usual"] <= 2
    assert noticed["drifting"] >= 38


def test_autocorrelation_is_what_the_samples_were_made_with() -> None:
    random = np.random.default_rng(9)
    assert trend.autocorrelation(independent(random, 4000)) == pytest.approx(0.0, abs=0.05)
    assert trend.autocorrelation(correlated(random, 4000)) == pytest.approx(0.8, abs=0.05)
    assert trend.autocorrelation([1.0, 2.0] * 50) < -0.9
    assert trend.autocorrelation([1.0] * 50) == 0.0
    assert trend.autocorrelation([1.0, 2.0]) == 0.0


def test_strong_correlation_must_be_beyond_chance() -> None:
    random = np.random.default_rng(10)
    assert trend.is_strongly_correlated(correlated(random, 400))
    assert not trend.is_strongly_correlated(independent(random, 400))
    assert not trend.is_strongly_correlated(correlated(random, 400, share=0.3))
    assert not trend.is_strongly_correlated([1.0, 2.0, 3.0, 4.0])
