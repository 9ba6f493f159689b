"""How long and how often each configuration is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runtimes.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """How long to warm up and to sample. All durations are sums of samples, so that a plan is exact under any clock.

    Attributes:
        duration_s: of a turn: sampling goes on until its samples add up to this,
        min_samples: and until there are this many,
        max_samples: and never past this many.
        window_s: length of a warm-up window; a window holds one call at least.
        agreement: the warm-up ends when the medians of three windows in a row lie within this fraction,
        warmup_limit_s: or when it has taken this long.

    Raises:
        UsageError: a value that no measurement can follow.
    """

    duration_s: float = 2.0
    min_samples: int = 10
    max_samples: int = 50_000
    window_s: float = 0.05
    agreement: float = 0.10
    warmup_limit_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("duration_s", "window_s", "agreement", "warmup_limit_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} must be a number of at least 0, not {value}", code="plan-negative")
        if not 1 <= self.min_samples <= self.max_samples:
            raise UsageError(
                f"min_samples must lie between 1 and max_samples, not {self.min_samples} with {self.max_samples}",
                code="samples-out-of-order",
            )


LEAST_PROCESSES, MOST_PROCESSES = 3, 10
"""Of each configuration, where none are asked for: as many as there is time for."""


DEVICES = ("cpu", "cuda")

BUDGET_S = 60.0
"""That time."""

ROUNDS = 10
"""Of turns in each process."""

SILENCE_S = 600.0
"""Without a sign of life, after which a worker is ended."""
