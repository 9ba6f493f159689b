"""How long a run still takes, from what is known of its trials and from how long those before took."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence


class Eta:
    """Tells the seconds that are left whenever something is known of them; ``None`` where nothing is.

    A trial takes the seconds that it is known to last, and besides what those before took on average. Of the first
    trial its own progress tells.
    """

    def __init__(self, tell: Callable[[float | None], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._besides_s: list[float] = []
        self._began_s = 0.0
        self._known_s = 0.0
        self._later_s: Sequence[float] = ()

    def begin(self, known_s: float, later_s: Sequence[float]) -> None:
        """A trial begins that lasts ``known_s`` at least, and each of those after it ``later_s``."""
        self._began_s, self._known_s, self._later_s = self._clock(), known_s, later_s
        self.progress(None, None)

    def progress(self, left_s: float | None, whole_s: float | None) -> None:
        """The trial at work takes ``left_s`` more of ``whole_s``, as far as it knows itself."""
        if self._besides_s:
            besides_s = statistics.fmean(self._besides_s)
        elif whole_s is not None:
            besides_s = whole_s - self._known_s
        else:
            self._tell(None)
            return
        if left_s is None:
            left_s = max(0.0, self._known_s + besides_s - (self._clock() - self._began_s))
        self._tell(left_s + math.fsum(self._later_s) + besides_s * len(self._later_s))

    def end(self, measured: bool) -> None:
        """The trial has ended; one that was not ``measured`` says nothing of the others."""
        if measured:
            self._besides_s.append(max(0.0, self._clock() - self._began_s - self._known_s))
