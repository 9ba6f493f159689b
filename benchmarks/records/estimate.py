"""A figure with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.proportions import Interval


@dataclass(frozen=True)
class Estimate:
    """A value, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, interval: Interval) -> Estimate:
        """The value with that interval."""
        return cls(value, *interval)

    @property
    def interval(self) -> Interval:
        """Both ends."""
        return self.low, self.high
