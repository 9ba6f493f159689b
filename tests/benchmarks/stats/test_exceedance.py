from __future__ import annotations

import numpy as np
import pytest

from benchmarks.stats.exceedance import estimate_share_above
from benchmarks.stats.intervals import Floats


def queue(load: float, requests: int, seed: int) -> Floats:
    """The response times of a server that needs 1 s a request, one at a time, with Poisson arrivals (Lindley 1952)."""
    gaps = np.random.default_rng(seed).exponential(1 / load, requests)
    responses, waiting = np.empty(requests), 0.0
    for number, gap in enumerate(gaps):
        waiting = max(0.0, waiting - gap)
        responses[number] = waiting + 1.0
        waiting += 1.0
    return responses


def test_the_share_counts_failures_as_late() -> None:
    samples = [0.1] * 90 + [0.3] * 5
    share, (low, high) = estimate_share_above(samples, 0.2, failed=5)
    assert share == pytest.approx(0.1)
    assert low < 0.1 < high
    assert estimate_share_above([0.1] * 1000, 0.2)[1] == pytest.approx((0.0, 0.0038), abs=1e-4)
    assert estimate_share_above([0.3] * 1000, 0.2)[0] == 1.0


def test_intervals_of_a_queue_contain_the_true_share() -> None:
    """Wilson's interval of independent requests contains it in 32 of 100 runs: waiting comes in bursts."""
    limit, runs = 6.0, 60
    true = float((queue(0.7, 400_000, seed=2) > limit).mean())
    assert 0.005 < true < 0.05
    contained = 0
    for seed in range(runs):
        _, (low, high) = estimate_share_above(queue(0.7, 4_000, seed), limit)
        contained += low <= true <= high
    assert contained >= 0.8 * runs
