from __future__ import annotations

import numpy as np
import pytest

from scripts.figures.load_url import count_bursts, find_true_rate, simulate_queue


def test_bursts_at_either_end_may_be_cut_and_do_not_count() -> None:
    assert count_bursts(np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1], dtype=bool)) == [2, 3]
    assert count_bursts(np.array([0, 1, 0], dtype=bool)) == [1]
    assert count_bursts(np.zeros(4, dtype=bool)) == []


def test_the_simulated_queue_waits_as_theory_says() -> None:
    """The mean response of one server with a fixed service time (Pollaczek and Khinchine)."""
    load = 0.5
    assert simulate_queue(load, 1.0).mean() == pytest.approx(1 + load / (2 * (1 - load)), rel=0.02)
    rate = find_true_rate(0.01, 0.05)
    assert 50 < rate < 90
    assert (simulate_queue(rate, 0.01) > 0.05).mean() <= 0.01
