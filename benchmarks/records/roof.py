"""The share of the roofline that a result reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Roof:
    """The least time that the machine's ceilings allow one call, and what of them was reached.

    Attributes:
        multiply_adds: of one call, the whole batch.
        traffic_bytes: that one call must move at least: weights, input and output, once each.
        peak_multiply_adds_per_s: measured here, in the arithmetic that the row ran in, with as many threads.
        bandwidth_bytes_per_s: measured here, with as many threads.
        least_s: what the two ceilings allow.
        share: ``least_s`` over the row's ``compute_p50_s``.
        bound: which of the two ceilings is the lower.
    """

    multiply_adds: int
    traffic_bytes: int
    peak_multiply_adds_per_s: float
    bandwidth_bytes_per_s: float
    least_s: float
    share: float
    bound: Literal["compute", "bandwidth"]
