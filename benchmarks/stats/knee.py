"""Where more work in flight stops to pay."""

from __future__ import annotations

from collections.abc import Sequence

KNEE = 0.10
"""How far below the best throughput is as good as the best: more work in flight then buys little but waiting."""


def knee(points: Sequence[tuple[int, float]]) -> int | None:
    """Of (size, throughput) the smallest size that comes within ``KNEE`` of the best throughput: more adds to the
    waiting and little else. ``None`` if there are not two sizes.

    Where the largest size is the knee, larger ones may be better still.
    """
    if len(points) < 2:
        return None
    enough = (1 - KNEE) * max(throughput for _, throughput in points)
    return min(size for size, throughput in points if throughput >= enough)
