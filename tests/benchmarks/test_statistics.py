from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import statistics

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


def test_quantiles_to_the_digit() -> None:
    samples = [float(value) for value in range(100, -1, -1)]
    assert [statistics.quantile(samples, q) for q in (0.0, 0.5, 0.9, 0.99, 1.0)] == [0.0, 50.0, 90.0, 99.0, 100.0]
    assert statistics.quantile([1.0, 2.0], 0.5) == 1.5
    assert statistics.quantile([3.0], 0.99) == 3.0


@pytest.mark.parametrize(("q", "least"), [(0.5, 5), (0.9, 20), (0.99, 100)])
def test_few_samples_are_not_enough(q: float, least: int) -> None:
    assert not statistics.enough_for([1.0] * (least - 1), q)
    assert statistics.enough_for([1.0] * least, q)


@pytest.mark.parametrize(("draw", "n"), [(independent, 300), (correlated, 600)])
def test_intervals_of_the_median_hold_the_truth_about_as_often_as_they_say(draw: Draw, n: int) -> None:
    held = 0
    for trial in range(200):
        ((low, high),) = statistics.quantile_intervals(draw(np.random.default_rng([1, trial]), n), [0.5])
        held += low <= 1.0 <= high
    assert 178 <= held <= 199  # 95 % of 200 is 190; a few less where samples lean on each other


def test_single_values_resampled_would_give_intervals_that_are_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "block_length", lambda _: 1)
    held = 0
    for trial in range(100):
        ((low, high),) = statistics.quantile_intervals(correlated(np.random.default_rng([2, trial]), 600), [0.5])
        held += low <= 1.0 <= high
    assert held < 75


def test_intervals_are_the_same_for_the_same_seed() -> None:
    samples = independent(np.random.default_rng(3), 200)
    first = statistics.quantile_intervals(samples, [0.5, 0.9, 0.99], seed=7)
    assert first == statistics.quantile_intervals(samples, [0.5, 0.9, 0.99], seed=7)
    assert first != statistics.quantile_intervals(samples, [0.5, 0.9, 0.99], seed=8)
    for (low, high), q in zip(first, (0.5, 0.9, 0.99), strict=True):
        assert low <= statistics.quantile(samples, q) <= high


def test_many_samples_are_resampled_in_parts() -> None:
    samples = independent(np.random.default_rng(4), 9_000)
    ((low, high),) = statistics.quantile_intervals(samples, [0.5])
    assert 0.98 < low < 1.0 < high < 1.02


def test_equal_samples_have_an_interval_of_no_width() -> None:
    assert statistics.quantile_intervals([0.25] * 40, [0.5]) == ((0.25, 0.25),)


def test_blocks_are_longer_where_samples_lean_on_each_other() -> None:
    random = np.random.default_rng(5)
    assert statistics.block_length(independent(random, 1000)) <= 4
    assert statistics.block_length(correlated(random, 1000)) >= 8
    assert statistics.block_length([1.0, 2.0, 3.0]) == 1


def test_one_stall_does_not_decide_the_block_length() -> None:
    samples = independent(np.random.default_rng(6), 1000)
    before = statistics.block_length(samples)
    samples[500] = 1e6
    assert statistics.block_length(samples) <= before + 1


def test_a_ratio_of_the_same_distribution_holds_one() -> None:
    held = 0
    for trial in range(100):
        random = np.random.default_rng([7, trial])
        low, high = statistics.ratio_interval(correlated(random, 400), correlated(random, 400))
        held += low <= 1.0 <= high
    assert held >= 88


def test_a_true_gap_of_ten_percent_is_found() -> None:
    found = 0
    for trial in range(50):
        random = np.random.default_rng([8, trial])
        low, _ = statistics.ratio_interval(1.1 * independent(random, 600), independent(random, 600))
        found += low > 1.0
    assert found >= 48


def test_ratio_of_medians() -> None:
    assert statistics.ratio_of_medians([2.0, 4.0, 100.0], [1.0, 2.0, 3.0]) == 2.0
