"""What about the feeds would make a time unusual: subnormal numbers, and images that are all the same."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from runtimes.errors import Reason
from runtimes.protocol import Array, Arrays

SUBNORMAL_SHARE = 1e-3
"""Of the values, that may be subnormal: of half-precision noise 5 in 100,000 are by nature, and slow nothing down."""


def oddities(feeds: Sequence[Arrays], wanted: int = 1) -> tuple[Reason, ...]:
    """A reason for each; none for noise and for photographs, if there are as many different ones as are wanted."""
    arrays = [array for feed in feeds for array in feed.values()]
    found = []
    below, values = sum(map(subnormals, arrays)), sum(array.size for array in arrays)
    if below > SUBNORMAL_SHARE * values:
        found.append(Reason("inputs-subnormal", f"{below:,} of {values:,} input values are subnormal: these are slow"))
    flat = sum(array.size > 1 and bool((array == array.flat[0]).all()) for array in arrays)
    if flat:
        found.append(Reason("inputs-flat", f"{flat} of {len(arrays)} inputs are one value throughout"))
    if len(feeds) > 1 and all(_same(feed, feeds[0]) for feed in feeds[1:]):
        found.append(Reason("inputs-equal", "all inputs are the same"))
    elif (different := len(set(map(_checksum, feeds)))) < wanted:
        found.append(
            Reason(
                "inputs-too-few",
                f"{different} different inputs took turns, and not {wanted}: a cache may have known them",
            )
        )
    return tuple(found)


def subnormals(array: Array) -> int:
    """How many values are not 0 and nearer to it than the smallest normal number."""
    if array.dtype.kind != "f":
        return 0
    magnitudes = np.abs(array)
    return int(np.count_nonzero((magnitudes > 0) & (magnitudes < np.finfo(array.dtype).tiny)))


def _checksum(feed: Arrays) -> int:
    found = 0
    for name in sorted(feed):
        found = zlib.crc32(feed[name].tobytes(), found)
    return found


def _same(feed: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(feed[name], other[name]) for name in feed)
