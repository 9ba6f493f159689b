from __future__ import annotations

import math

import pytest

from benchmarks.analysis.figures import Figures
from benchmarks.tuning import pareto
from benchmarks.tuning.pareto import Objective, ParetoPoint
from tests.benchmarks.results import EMPTY, change, estimate, processes


def timed(
    ms: float, spread_ms: float = 0.0, accuracy_drop: float = 0.0, threads: int = 2, batch: int = 1
) -> ParetoPoint:
    """A configuration with a median of so many milliseconds, give or take the spread."""
    interval = ((ms - spread_ms) / 1e3, (ms + spread_ms) / 1e3)
    figures = change(EMPTY, p50=estimate(ms / 1e3, interval), threads=threads, batch=batch)
    one = pareto.candidate(figures, "latency", estimate(accuracy_drop))
    assert one is not None
    return one


@pytest.mark.parametrize(
    ("objective", "cost", "interval"), [("latency", 8.0, (4.0, 16.0)), ("throughput", 1.0, (0.5, 2.0))]
)
def test_what_counts_is_a_call_or_an_image(objective: Objective, cost: float, interval: tuple[float, float]) -> None:
    figures, drop = change(EMPTY, batch=8, p50=estimate(8.0, (4.0, 16.0))), estimate(0.25, (0.125, 0.5))
    assert pareto.candidate(figures, objective, drop) == ParetoPoint(figures, estimate(cost, interval), drop)


def test_a_row_without_a_median_is_no_candidate() -> None:
    assert pareto.candidate(Figures(EMPTY), "latency", estimate(0.0)) is None


def test_the_fastest_is_the_best() -> None:
    slow, fast, slower = timed(3), timed(1), timed(4)
    chosen = pareto.choose([slow, fast, slower])
    assert (chosen.best, chosen.tied, chosen.beyond) == (fast, (), ())


def test_the_bound_holds_at_its_very_value() -> None:
    careless, just, exact = timed(1, accuracy_drop=0.0051), timed(2, accuracy_drop=0.005), timed(3, accuracy_drop=-0.01)
    chosen = pareto.choose([careless, just, exact], 0.005)
    assert (chosen.best, chosen.beyond) == (just, (careless,))
    assert pareto.choose([careless, just, exact], math.inf).best == careless


def test_nothing_within_the_bound_is_no_best() -> None:
    one = timed(1, accuracy_drop=0.02)
    chosen = pareto.choose([one], 0.01)
    assert (chosen.best, chosen.tied, chosen.front, chosen.beyond) == (None, (), (one,), (one,))
    assert pareto.choose([]).best is None


def test_of_ties_the_fewest_threads_win() -> None:
    fast = timed(1.0, 0.2, threads=4)
    frugal = timed(1.1, 0.2, threads=1)
    apart = timed(1.7, 0.2, threads=1)
    chosen = pareto.choose([fast, apart, frugal])
    assert chosen.best == frugal
    assert chosen.tied == (fast,)


def test_of_ties_the_smallest_loss_wins_then_the_fastest() -> None:
    fast, near, nearer = timed(1.0, 0.3, 0.004), timed(1.1, 0.3, 0.002), timed(1.2, 0.3, 0.002)
    chosen = pareto.choose([fast, nearer, near])
    assert chosen.best == near
    assert chosen.tied == (fast, nearer)


def test_a_tie_is_with_the_fastest_and_goes_no_further() -> None:
    """The third overlaps the second and not the first."""
    first, second, third = timed(1.0, 0.1, threads=3), timed(1.15, 0.1, threads=2), timed(1.3, 0.1, threads=1)
    chosen = pareto.choose([first, second, third])
    assert chosen.best == second
    assert chosen.tied == (first,)


def test_intervals_that_touch_are_a_tie() -> None:
    fast, other = timed(1.0, 0.25, threads=2), timed(1.5, 0.25, threads=1)
    assert pareto.choose([fast, other]).best == other


def test_what_is_beyond_the_bound_is_in_no_tie() -> None:
    careless, sound = timed(1.0, 0.5, accuracy_drop=0.5, threads=1), timed(1.2, 0.5)
    chosen = pareto.choose([careless, sound], 0.1)
    assert (chosen.best, chosen.tied) == (sound, ())


def test_the_front_is_what_nothing_betters() -> None:
    exact, quick, between, worse = (
        timed(3, accuracy_drop=0.0),
        timed(1, accuracy_drop=0.2),
        timed(2, accuracy_drop=0.1),
        timed(2.5, accuracy_drop=0.15),
    )
    assert pareto.front([exact, quick, between, worse]) == (exact, quick, between)


def test_equals_are_on_the_front_together() -> None:
    one, twin = timed(1, accuracy_drop=0.1, threads=1), timed(1, accuracy_drop=0.1, threads=2)
    assert pareto.front([one, twin]) == (one, twin)
    assert pareto.front([one, timed(1, accuracy_drop=0.2), timed(2, accuracy_drop=0.1)]) == (one,)


def sampled(ms: float, threads: int, batch: int = 1, seed: int = 0, objective: Objective = "latency") -> ParetoPoint:
    """Of three processes, beside others of its batch or not."""
    samples = processes(ms / 1e3, 1.08 * ms / 1e3, 1.3 * ms / 1e3, ms / 1e3, seed=seed)
    p50 = estimate(ms / 1e3, (0.0, 1.0))
    one = pareto.candidate(
        change(EMPTY, p50=p50, threads=threads, batch=batch, samples=samples), objective, estimate(0.0)
    )
    assert one is not None
    return one


def test_finalists_tie_by_their_rounds() -> None:
    """All intervals overlap; round by round the one of the fewest threads is twice as slow."""
    fast, twin, slow = sampled(1.0, 4, seed=1), sampled(1.001, 2, seed=4), sampled(2.0, 1, seed=7)
    found = pareto.choose([fast, twin, slow])
    assert found.best is slow  # the fewest threads, by overlapping intervals alone
    settled = pareto.choose_among_finalists(found, [slow, twin, fast])
    assert (settled.best, settled.tied) == (twin, (fast,))
    assert (settled.front, settled.beyond) == (found.front, found.beyond)


def test_of_batches_the_time_of_an_image_decides() -> None:
    alone, eight = sampled(1.0, 4, 1, 1, "throughput"), sampled(4.0, 4, 8, 4, "throughput")
    assert pareto.choose_among_finalists(pareto.choose([alone, eight]), [alone, eight]).best is eight
    assert pareto.choose_among_finalists(pareto.choose([alone, eight]), [alone, eight]).tied == ()
    same = sampled(8.01, 2, 8, 4, "throughput")
    settled = pareto.choose_among_finalists(pareto.choose([alone, same]), [alone, same])
    assert (settled.best, settled.tied) == (same, (alone,))


def test_close_is_more_than_overlapping() -> None:
    fast, close, wide, far, careless = (
        timed(1.0),
        timed(1.05),
        timed(1.5, 0.6),
        timed(1.2),
        timed(0.5, accuracy_drop=0.02),
    )
    assert pareto.close_to_best([far, wide, close, fast, careless], 1.1, 0.01) == [fast, close, wide]
    assert pareto.close_to_best([careless], 1.1, 0.01) == []
