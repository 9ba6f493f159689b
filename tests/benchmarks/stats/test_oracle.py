"""The statistics against SciPy's, which were written by others."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.accuracy.differences import mcnemar
from benchmarks.stats import comparison, intervals, trend
from exporter.proportions import wilson

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")

SEEDS = range(5)


def sampled(seed: int, n: int = 200) -> NDArray[np.float64]:
    return np.random.default_rng(seed).lognormal(sigma=0.3, size=n)


@pytest.mark.parametrize("seed", SEEDS)
def test_quantiles(seed: int) -> None:
    samples = sampled(seed, 101 + seed)
    for q in (0.0, 0.25, 0.5, 0.9, 0.99, 1.0):
        expected = stats.mstats.mquantiles(samples, [q], alphap=1, betap=1)[0]  # R's type 7
        assert intervals.quantile(samples, q) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 3, 4.7, 9, 29, 1000, math.inf])
def test_students_t(freedom: float) -> None:
    expected = stats.norm.ppf(0.975) if math.isinf(freedom) else stats.t.ppf(0.975, freedom)
    assert intervals.student(freedom) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (5, 9), (9349, 10_000), (0, 400), (399, 400)])
def test_wilsons_interval(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("better", "worse"), [(0, 1), (0, 5), (3, 3), (1, 9), (40, 60), (470, 530)])
def test_mcnemars_exact_test(better: int, worse: int) -> None:
    expected = stats.binomtest(better, better + worse, 0.5).pvalue
    assert mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_kendalls_test_of_a_trend(seed: int) -> None:
    """SciPy's statistic, with the correction for continuity that it leaves out."""
    levels = sampled(seed, 12) * np.linspace(1, 1 + 0.2 * seed, 12)
    found = trend.drift([[[level] for level in levels]])
    assert found is not None
    n = len(levels)
    ascents = stats.kendalltau(np.arange(n), levels).statistic * n * (n - 1) / 2
    score = max(0.0, abs(ascents) - 1) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    assert found.p == pytest.approx(2 * stats.norm.sf(score), rel=1e-9)


def test_kendalls_test_of_many_rounds_needs_no_table_of_pairs() -> None:
    """With ties. Concordant and discordant pairs are counted by SciPy."""
    levels = np.round(sampled(0, 20_000), 2)
    tracemalloc.start()
    found = trend.drift([[[level] for level in levels]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found is not None
    n, ties = len(levels), np.unique(levels, return_counts=True)[1]
    pairs = n * (n - 1) / 2
    untied = math.sqrt(pairs * (pairs - (ties * (ties - 1)).sum() / 2))
    ascents = stats.kendalltau(np.arange(n), levels).statistic * untied
    score = max(0.0, abs(ascents) - 1) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    assert found.p == pytest.approx(2 * stats.norm.sf(score), rel=1e-9)
    assert peak < 1e7


@pytest.mark.parametrize("seed", SEEDS)
def test_ranks_and_autocorrelation(seed: int) -> None:
    values = np.round(sampled(seed, 60), 1)  # with ties
    np.testing.assert_array_equal(intervals.ranks(values), stats.rankdata(values) - 1)
    ranks = stats.rankdata(values)
    centred = ranks - ranks.mean()
    expected = centred[:-1] @ centred[1:] / (centred @ centred)
    assert trend.autocorrelation(values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_unpaired_processes_are_welchs_test(seed: int) -> None:
    """Each process has one level, so that nothing but the spread between processes counts."""
    random = np.random.default_rng(seed)
    sides = [random.lognormal(sigma=0.1, size=count) for count in (4, 7)]
    reference, other = ([[[float(level)] * 40] for level in side] for side in sides)
    found = comparison.compare_unpaired(reference, other)
    expected = stats.ttest_ind(*map(np.log, sides), equal_var=False).confidence_interval(0.95)
    assert np.log(found.interval) == pytest.approx((expected.low, expected.high), rel=1e-5)


def test_the_bootstrap_of_a_median_spreads_as_scipys() -> None:
    values = np.random.default_rng(0).normal(10, 1, 300)
    (medians,) = intervals.resample_blocks([values], [0.5], np.random.default_rng(1))
    expected = stats.bootstrap((values,), np.median, n_resamples=1000, rng=np.random.default_rng(2), vectorized=False)
    assert medians.std() == pytest.approx(expected.standard_error, rel=0.2)


def test_bootstrap_intervals_hold_the_true_median() -> None:
    """SciPy's binomial test does not reject 95 % at one in a thousand."""
    runs, truth = 120, math.exp(0.0)
    held = 0
    for seed in range(runs):
        samples = np.random.default_rng(seed).lognormal(sigma=0.3, size=200)
        ((low, high),) = intervals.quantile_intervals([[samples]], [0.5], seed)
        held += low <= truth <= high
    assert stats.binomtest(held, runs, 0.95).pvalue > 0.001
