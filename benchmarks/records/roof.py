"""What a result is compared with under the roofline: the work of one call, and the machine's ceilings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RoofInputs:
    """The work of one call, the whole batch, and the ceilings of the machine that ran it.

    Attributes:
        multiply_adds: of one call.
        traffic_bytes: that one call must move at least: weights, input and output, once each.
        peak_multiply_adds_per_s: measured on this machine, in the arithmetic that ran, with as many threads.
        bandwidth_bytes_per_s: measured on this machine, with as many threads.
    """

    multiply_adds: int
    traffic_bytes: int
    peak_multiply_adds_per_s: float
    bandwidth_bytes_per_s: float

    @property
    def least_s(self) -> float:
        """The least time that the two ceilings allow one call."""
        return max(self._computing_s, self._moving_s)

    @property
    def bound(self) -> Literal["compute", "bandwidth"]:
        """Which of the two ceilings is the lower."""
        return "compute" if self._computing_s >= self._moving_s else "bandwidth"

    @property
    def _computing_s(self) -> float:
        return self.multiply_adds / self.peak_multiply_adds_per_s

    @property
    def _moving_s(self) -> float:
        return self.traffic_bytes / self.bandwidth_bytes_per_s
