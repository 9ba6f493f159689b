from __future__ import annotations

import numpy as np
import pytest

from exporter.proportions import difference_interval, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_figures(successes: int, trials: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, Table I, method 3."""
    np.testing.assert_allclose(wilson(successes, trials), (low, high), atol=6e-5)


def pairs(both: int, lost: int, won: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    reference = np.repeat([True, True, False, False], [both, lost, won, neither])
    other = np.repeat([True, False, True, False], [both, lost, won, neither])
    return reference, other


def test_a_drop_by_hand() -> None:
    drop, (low, high) = difference_interval(*pairs(90, 6, 1, 3))
    assert drop == pytest.approx(0.05)
    centre, half = (6.5 - 1.5) / 102, 1.959964 * np.sqrt(8 - 25 / 102) / 102
    np.testing.assert_allclose((low, high), (centre - half, centre + half), atol=1e-6)
    assert low < 0.05 < high


def test_a_gain_is_a_negative_drop() -> None:
    drop, (low, high) = difference_interval(*pairs(50, 0, 10, 40))
    assert drop == -0.1
    assert low < high < 0


def test_the_same_answers_leave_a_narrow_interval_around_nothing() -> None:
    drop, (low, high) = difference_interval(*pairs(9000, 0, 0, 1000))
    assert drop == 0
    assert low == -high
    assert high < 2.5e-4


def test_agreement_on_the_images_makes_the_interval_narrow() -> None:
    """The same two shares, 80 and 79 %, from the same images and from images that have nothing in common."""
    _, paired = difference_interval(*pairs(790, 10, 0, 200))
    _, scattered = difference_interval(*pairs(632, 168, 158, 42))
    assert paired[1] - paired[0] < (scattered[1] - scattered[0]) / 4


def test_one_image_is_enough_for_an_interval() -> None:
    drop, (low, high) = difference_interval(np.array([True]), np.array([False]))
    assert drop == 1
    assert -1 <= low < high <= 1


def test_intervals_cover() -> None:
    """Of seeded samples with a true drop of 2 points, about 95 in 100 intervals hold it."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        kinds = random.choice(4, size=500, p=[0.88, 0.03, 0.01, 0.08])
        _, (low, high) = difference_interval(np.isin(kinds, (0, 1)), np.isin(kinds, (0, 2)))
        held += low <= 0.02 <= high
    assert 370 <= held <= 396
