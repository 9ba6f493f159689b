"""The knee of throughput: the load beyond which more concurrent work gains little."""

from __future__ import annotations

from collections.abc import Sequence

KNEE = 0.10
"""The relative distance from the best throughput that counts as reaching it."""


def knee(points: Sequence[tuple[int, float]]) -> int | None:
    """Return the smallest size whose throughput is within ``KNEE`` of the best, or ``None`` for fewer than two sizes.

    Larger sizes mainly increase the waiting time. If the largest size is the knee, still larger ones may be better.

    Args:
        points: Pairs of size and throughput.
    """
    if len(points) < 2:
        return None
    enough = (1 - KNEE) * max(throughput for _, throughput in points)
    return min(size for size, throughput in points if throughput >= enough)
