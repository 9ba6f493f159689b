from __future__ import annotations

import math

import pytest

from benchmarks.load.rate_search import EXTENSIONS, MOST_POINTS, RESOLUTION, Outcome, RateSearch


def find(capacity_per_s: float, first_per_s: float, undecided: Outcome = "undecided") -> tuple[float, float, int]:
    """The highest rate that holds, the lowest that does not, and the number of points, against a server that holds
    rates below its capacity, and is undecided within 1 % of it."""
    search, holds, fails, points = RateSearch(first_per_s, 1.0), 0.0, math.inf, 0
    while (found := search.next_point()) is not None:
        rate, duration_s = found
        assert rate * duration_s >= 1000 - 1e-6
        points += 1
        near = abs(rate / capacity_per_s - 1) < 0.01
        outcome: Outcome = undecided if near else "holds" if rate < capacity_per_s else "fails"
        holds, fails = (max(holds, rate), fails) if outcome == "holds" else (holds, min(fails, rate))
        search.add(outcome)
    return holds, fails, points


@pytest.mark.parametrize("capacity_per_s", [30.0, 99.0, 100.0, 137.0, 5_000.0])
def test_the_search_brackets_the_capacity(capacity_per_s: float) -> None:
    holds, fails, points = find(capacity_per_s, first_per_s=100.0)
    assert holds <= capacity_per_s <= fails * 1.01
    assert fails <= RESOLUTION * holds
    assert points < MOST_POINTS


def test_a_server_that_holds_no_rate_ends_the_search_early() -> None:
    holds, _, points = find(0.001, first_per_s=100.0)
    assert holds == 0.0
    assert points <= 4


def test_an_undecided_rate_is_measured_longer_then_missed() -> None:
    search = RateSearch(1000.0, 2.0)
    for extension in range(EXTENSIONS + 1):
        assert search.next_point() == (1000.0, 2.0 * 2**extension)
        search.add("undecided")
    assert search.next_point() == (500.0, 4.0)


@pytest.mark.parametrize(("outcome", "following"), [("client", (500.0, 4.0)), (None, None)])
def test_a_limited_client_goes_down_and_an_interrupt_ends(
    outcome: Outcome | None, following: tuple[float, float] | None
) -> None:
    search = RateSearch(1000.0, 1.0)
    search.add(outcome)
    assert search.next_point() == following
