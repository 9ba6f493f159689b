"""Seeded noise."""

from __future__ import annotations

import numpy as np

from exporter.data.noise import noise
from runtimes.errors import UsageError
from tests.refusals import refuses


def test_noise_is_seeded_and_the_same_everywhere() -> None:
    first = noise((2, 3, 4, 5), 7)
    assert first.shape == (2, 3, 4, 5)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, noise((2, 3, 4, 5), 7))
    assert not np.array_equal(first, noise((2, 3, 4, 5), 8))
    expected = np.array([0.12573022, -0.13210486, 0.64042264], np.float32)
    np.testing.assert_array_equal(noise((3,), 0), expected)
    large = noise((100_000,), 1)
    assert abs(large.mean()) < 0.02
    assert abs(large.std() - 1) < 0.02


def test_noise_needs_a_seed_of_at_least_zero() -> None:
    with refuses(UsageError, "seed-negative", "0", "-1"):
        noise((1,), -1)
