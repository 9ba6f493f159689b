from __future__ import annotations

import numpy as np
import pytest

from benchmarks.paper.experiments.curves import ErrorDifference, difference, spread


def test_several_seeds_are_compared_as_welch_does() -> None:
    """The interval is that of SciPy 1.17's ``ttest_ind(..., equal_var=False)``, at 4.742 degrees of freedom."""
    found = difference([0.02, 0.03, 0.04], [-0.01, 0.0, 0.02, 0.03], images=1000)
    assert found.value == pytest.approx(0.02)
    assert found.over == "seeds"
    assert (found.low, found.high) == pytest.approx((-0.008226, 0.048226), abs=1e-5)


def test_one_seed_each_is_compared_over_the_images() -> None:
    """Newcombe 1998, Table II, case (a), method 10: 56/70 against 48/80."""
    found = difference([56 / 70], [48 / 80], images=75)
    assert found.over == "images"
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0525, abs=0.006)
    assert found.high == pytest.approx(0.3339, abs=0.006)


def test_seeds_that_agree_to_the_digit_tell_nothing_of_seeds() -> None:
    assert difference([0.1, 0.1], [0.1, 0.1], 10) == difference([0.1], [0.1], 10)
    found = difference([0.2, 0.2], [0.1, 0.1], 10)
    assert found.over == "images"
    assert found.outcome == "undecided"


def test_one_seed_is_compared_with_the_first_of_several() -> None:
    found = difference([0.3, 0.5], [0.1], 1000)
    assert found.value == pytest.approx(0.2)
    assert found.low < 0.2 < found.high


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(0.1, 0.3, "confirmed"), (-0.3, -0.1, "contradicted"), (-0.1, 0.1, "undecided")]
)
def test_a_claim_is_judged_by_the_whole_interval(low: float, high: float, outcome: str) -> None:
    assert ErrorDifference((low + high) / 2, low, high, "seeds").outcome == outcome


def test_no_difference_is_undecided_nineteen_times_of_twenty() -> None:
    random = np.random.default_rng(0)
    draws = random.normal(0.1, 0.01, (400, 2, 3)).tolist()
    outcomes = [difference(more, less, images=1000).outcome for more, less in draws]
    assert outcomes.count("undecided") / 400 == pytest.approx(0.95, abs=0.03)
    real = [
        difference(random.normal(0.2, 0.01, 3).tolist(), random.normal(0.1, 0.01, 3).tolist(), 1000).outcome
        for _ in range(50)
    ]
    assert real.count("confirmed") >= 49


def test_spreads_are_for_people() -> None:
    assert spread([0.0891]) == "8.91"
    assert spread([0.08, 0.10]) == "9.00 ± 1.41"
    assert ErrorDifference(0.012, 0.009, 0.015, "seeds").in_points() == "+1.20 [0.90, 1.50] points over seeds"
