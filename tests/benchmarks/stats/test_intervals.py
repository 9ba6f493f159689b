from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.stats import intervals
from tests.benchmarks.stats.test_comparison import correlated, independent

QUANTILES = (0.0, 0.25, 0.5, 0.9, 0.999, 1.0)


@pytest.mark.parametrize("n", [1, 2, 17, 200])
def test_counted_quantiles_are_those_of_the_values_repeated(n: int) -> None:
    random = np.random.default_rng(n)
    ordered = np.sort(random.standard_normal(n))
    counts = random.integers(0, 4, size=(5, n))
    counts[:, 0] += 1  # a resample is never empty
    expected = [np.quantile(np.repeat(ordered, row), QUANTILES) for row in counts]
    np.testing.assert_allclose(intervals._weighted_quantiles(ordered, counts, QUANTILES), np.transpose(expected))


def test_the_spread_of_independent_values_is_the_textbooks() -> None:
    """Of the median of n normal values: sqrt(pi / 2 n)."""
    values = np.random.default_rng(1).standard_normal(2000)
    (medians,) = intervals.resample_blocks([values], [0.5], np.random.default_rng(2))
    assert medians.shape == (intervals.RESAMPLES,)
    assert medians.std() == pytest.approx(np.sqrt(np.pi / 2 / 2000), rel=0.25)


def spread(values: NDArray[np.float64]) -> float:
    (medians,) = intervals.resample_blocks([values], [0.5], np.random.default_rng(3))
    return float(np.log(medians).std())


def test_values_that_lean_on_each_other_spread_more() -> None:
    random = np.random.default_rng(4)
    assert spread(correlated(random, 2000)) > 2 * spread(independent(random, 2000))


def test_blocks_stay_within_their_series() -> None:
    """Two series far apart: their blocks leave half of the values on each side; drawn whole, one may be all."""
    series = [np.full(30, 1.0), np.full(30, 3.0)]
    random = np.random.default_rng(5)
    assert set(intervals.resample_blocks(series, [0.5], random)[0]) == {2.0}
    assert set(intervals.resample_series(series, [0.5], random)[0]) == {1.0, 2.0, 3.0}


def test_no_more_than_so_many_blocks_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    values = independent(np.random.default_rng(6), 3000)
    wide = spread(values)
    monkeypatch.setattr(intervals, "MOST_BLOCKS", 300)
    assert spread(values) == pytest.approx(wide, rel=0.3)


def test_blocks_are_longer_where_samples_lean_on_each_other() -> None:
    random = np.random.default_rng(5)
    assert intervals.block_length(independent(random, 1000)) <= 4
    assert intervals.block_length(correlated(random, 1000)) >= 8
    assert intervals.block_length([1.0, 2.0, 3.0]) == 1


def test_equal_values_share_their_rank() -> None:
    assert intervals.ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [1.5, 0.0, 1.5, 3.0]


def test_one_stall_does_not_decide_the_block_length() -> None:
    samples = independent(np.random.default_rng(6), 1000)
    before = intervals.block_length(samples)
    samples[500] = 1e6
    assert intervals.block_length(samples) <= before + 1
