from __future__ import annotations

import pytest

from benchmarks.harness.harness import Eta


class Estimates:
    """An estimator on a clock that the test moves, and what it told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.told: list[float | None] = []
        self.eta = Eta(self.told.append, lambda: self.now_s)

    def trial(
        self, seconds: float, known_s: float = 0.0, later_s: tuple[float, ...] = (), measured: bool = True
    ) -> None:
        self.eta.begin(known_s, later_s)
        self.now_s += seconds
        self.eta.end(measured)


def test_of_the_first_trial_nothing_is_known_until_it_tells() -> None:
    estimates = Estimates()
    estimates.eta.begin(0.0, (0.0, 0.0))
    estimates.eta.progress(None, None)
    estimates.eta.progress(3.0, 10.0)
    assert estimates.told == [None, None, 3.0 + 2 * 10.0]


def test_a_trial_takes_as_much_more_as_those_before() -> None:
    estimates = Estimates()
    estimates.trial(3.0, 1.0, (1.0, 0.5))
    estimates.trial(1.0, 1.0, (0.5,))
    estimates.trial(9.0, 0.5)
    assert estimates.told == [None, 1.5 + 2 * 2.0, 0.5 + 1.0]


def test_a_trial_that_was_not_measured_does_not_count() -> None:
    estimates = Estimates()
    estimates.trial(2.0, later_s=(0.0,) * 3)
    estimates.trial(0.0, later_s=(0.0,) * 2, measured=False)
    estimates.trial(4.0, later_s=(0.0,))
    estimates.trial(3.0)
    assert estimates.told == [None, 6.0, 4.0, 3.0]


def test_a_trial_at_work_counts_down_by_the_clock() -> None:
    estimates = Estimates()
    estimates.trial(2.0, later_s=(0.0, 0.0))
    estimates.eta.begin(0.0, (0.0,))
    estimates.now_s += 0.5
    estimates.eta.progress(None, None)
    estimates.now_s += 9.0
    estimates.eta.progress(None, None)
    estimates.eta.progress(0.25, 4.0)
    assert estimates.told[1:] == pytest.approx([4.0, 3.5, 2.0, 2.25])
