from __future__ import annotations

import pytest

from benchmarks.stats.knee import knee


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1, 100.0), (2, 190.0), (4, 300.0), (8, 310.0), (16, 330.0)], 4),  # 300 is above 90 % of 330
        ([(1, 100.0), (2, 190.0), (4, 296.0), (8, 310.0), (16, 330.0)], 8),
        ([(1, 100.0), (2, 99.0)], 1),
        ([(4, 100.0), (1, 50.0), (2, 95.0)], 2),
        ([(1, 100.0), (2, 200.0)], 2),
        ([(1, 100.0)], None),
        ([], None),
    ],
)
def test_the_knee_is_the_least_size_near_the_best(points: list[tuple[int, float]], expected: int | None) -> None:
    assert knee(points) == expected
