"""The calls that are timed: they use several feeds in rotation, and some of their outputs are verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

from runtimes.artifacts.manifest import Manifest
from runtimes.errors import CheckFailedError
from runtimes.protocol import Array, Arrays

T = TypeVar("T")

REPEAT_TOLERANCE = 1e-3
"""The limit of the difference between the outputs of a timed call and of the same call before the timing.

The limit is a share of the largest value.
"""

DEFAULT_TOLERANCE = 1e-4
"""The limit of the relative difference for an artifact that records none."""

LOOKED_AT = 101
"""The outputs of one call in this number are verified, and those of the first and last call of a turn.

The number is prime, so that every input comes up.
"""

MOST_LOOKED_AT = 256
"""The largest number of copies between two checks.

If there are more, every other copy is dropped, and from then on half as many calls are verified.
"""


class RotatingCall:
    """A call that uses the feeds in rotation. Some of its outputs are copied right after the clock has stopped.

    Args:
        infer: The call.
        feeds: The feeds.
        expected: The outputs of each feed from before the timing. The copies are compared with them after the timing.
    """

    def __init__(self, infer: Callable[[Arrays], Arrays], feeds: Sequence[Arrays], expected: Sequence[Arrays]) -> None:
        self._infer = infer
        self._feeds = feeds
        self._expected = expected
        self._made = 0
        self._each = LOOKED_AT
        self._position = -1
        self._outputs: Arrays = {}
        self._copies: list[tuple[int, Arrays, Arrays]] = []

    def __call__(self) -> None:
        """Make the call with the next feed."""
        self._position = (self._position + 1) % len(self._feeds)
        self._outputs = self._infer(self._feeds[self._position])

    def begin(self) -> None:
        """Begin a turn. The outputs of its first call are verified."""
        self._made = 0

    def copy_outputs(self) -> None:
        """Copy the outputs of the last call if they are to be verified."""
        if self._made % self._each == 0:
            self._copy()
        self._made += 1
        if len(self._copies) > MOST_LOOKED_AT:
            del self._copies[1::2]
            self._each *= 2

    def end(self) -> None:
        """End a turn. The outputs of its last call are verified."""
        self._copy()

    def _copy(self) -> None:
        copies = {name: np.array(values) for name, values in self._outputs.items()}
        self._copies.append((self._position, copies, self._outputs))

    def check(self) -> None:
        """Compare the copies with the expected outputs and drop them.

        Raises:
            CheckFailedError: The outputs of a timed call differ from those of the same call before, or were not
                complete when the call returned.
        """
        copies, self._copies, self._each = self._copies, [], LOOKED_AT
        for position, values, afterwards in copies:
            for name, expected in self._expected[position].items():
                if not close(afterwards[name], expected):
                    raise CheckFailedError(
                        f"output {name!r} of a timed call differs from the output of the same call before the timing",
                        code="output-changed",
                    )
                if not close(values[name], expected):
                    raise CheckFailedError(
                        f"a timed call returned before its output {name!r} was complete", code="output-late"
                    )


def tolerance_of(manifest: Manifest | None) -> float:
    """Return the limit of the relative difference for the outputs of an artifact with this manifest, if it has one."""
    if manifest is not None and manifest.parity is not None:
        return manifest.parity.tolerance
    tolerance = None if manifest is None or manifest.engine is None else manifest.engine.tolerance
    return DEFAULT_TOLERANCE if tolerance is None else tolerance


def close(values: Array, expected: Array, tolerance: float = REPEAT_TOLERANCE) -> bool:
    """Return whether ``values`` equal ``expected`` within ``tolerance``, a share of the largest value."""
    tolerance *= float(np.abs(expected).max(initial=0))
    return values.shape == expected.shape and bool(np.allclose(values, expected, rtol=0, atol=tolerance))


class AlternatingCalls(Generic[T]):
    """A call that makes one of several calls in rotation and returns its result.

    Attributes:
        made: The number of calls so far.
    """

    def __init__(self, calls: Sequence[Callable[[], T]]) -> None:
        self._calls = calls
        self.made = 0

    def __call__(self) -> T:
        """Make the next call and return its result."""
        call = self._calls[self.made % len(self._calls)]
        self.made += 1
        return call()
