"""The search for the highest rate of requests whose p99 stays below a limit, as MLPerf's Server scenario asks for."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal["holds", "fails", "undecided", "client"]
"""The outcome of one rate, as ``benchmarks.analysis.served.RateVerdict`` explains it."""

LEAST_REQUESTS = 2000
"""The minimum number of requests at each rate. A p99 needs half as many, and an interval for bursts more."""

EXTENSIONS = 2
"""How often an undecided rate is measured again, each time for twice as long."""

RESOLUTION = 1.05
"""The search ends if the lowest rate that fails is at most this many times the highest that holds."""

MOST_POINTS = 24
"""The largest number of measurements."""

LEAST_SHARE = 1 / 8
"""The search ends without a result below this share of its first rate."""


class RateSearch:
    """Chooses the rates of a search: doubles while the limit holds, halves while it does not, then bisects.

    A rate that stays undecided, or at which the client is the limit, counts as one that does not hold.

    Args:
        first_per_s: The first rate.
        duration_s: The minimum duration of each measurement.
    """

    def __init__(self, first_per_s: float, duration_s: float) -> None:
        self._first_per_s = self._rate_per_s = first_per_s
        self._duration_s = duration_s
        self._holds_per_s = 0.0
        self._fails_per_s = math.inf
        self._extensions = 0
        self._points = 0
        self._ended = False

    @property
    def points_left(self) -> int:
        """The largest number of measurements still to come."""
        return MOST_POINTS - self._points

    def next_point(self) -> tuple[float, float] | None:
        """Return the rate and the duration of the next measurement, or ``None`` at the end."""
        if self._ended or not self.points_left:
            return None
        least_s = max(self._duration_s, LEAST_REQUESTS / self._rate_per_s)
        return self._rate_per_s, least_s * 2**self._extensions

    def add(self, outcome: Outcome | None) -> None:
        """Take the outcome of the last point; ``None`` if there is none, which ends the search."""
        self._points += 1
        if outcome == "undecided" and self._extensions < EXTENSIONS:
            self._extensions += 1
            return
        self._extensions = 0
        if outcome == "holds":
            self._holds_per_s = self._rate_per_s
        else:
            self._fails_per_s = self._rate_per_s
        holds, fails = self._holds_per_s, self._fails_per_s
        self._rate_per_s = 2 * holds if fails == math.inf else math.sqrt(holds * fails) if holds else fails / 2
        found = fails <= RESOLUTION * holds
        hopeless = self._rate_per_s < LEAST_SHARE * self._first_per_s
        self._ended = outcome is None or found or hopeless
