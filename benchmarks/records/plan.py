"""How long and how often each configuration is measured, and how the requests of a load test come in.

The names here are options of commands, so nothing heavy is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from runtimes.errors import UsageError

ShapeName: TypeAlias = Literal["single-stream", "server", "fixed-rate", "clients", "batches", "cold"]
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)
"""Of a load. The first two are called as in MLPerf Inference."""

FORMER_SHAPES: dict[str, ShapeName] = {"closed": "single-stream", "open": "server", "paced": "fixed-rate"}
"""Names of shapes up to version 0.1, which commands and files of results may still have."""

RATED_SHAPES: tuple[ShapeName, ...] = ("server", "fixed-rate")
"""In which requests come at a rate, whether or not the last one has ended."""

LEAST_PROCESSES, MOST_PROCESSES = 3, 10
"""Of each configuration, where none are asked for: as many as there is time for."""

DEVICES = ("cpu", "cuda")

BUDGET_S = 60.0
"""That time."""

ROUNDS = 10
"""Of turns in each process."""

SILENCE_S = 600.0
"""Without a sign of life, after which a worker is ended."""


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


@dataclass(frozen=True)
class ArrivalPlan:
    """How requests are to come in.

    Attributes:
        shape: as ``LoadResult.shape``; ``cold`` is not run in a worker.
        duration_s: how long they come.
        rate_per_s: of ``RATED_SHAPES``.
        clients: of ``clients``: how many threads call.
        seed: of a server's arrivals.
        max_requests: of all that come.

    Raises:
        UsageError: a value that no load can follow.
    """

    shape: ShapeName
    duration_s: float = 1.0
    rate_per_s: float | None = None
    clients: int = 1
    seed: int = 0
    max_requests: int = Plan.max_samples

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise UsageError(
                f"the duration must be a number of seconds above 0, not {self.duration_s}", code="duration-not-positive"
            )
        if self.shape in RATED_SHAPES:
            if self.rate_per_s is None or not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
                raise UsageError(
                    f"the rate of shape {self.shape} must be a number above 0, not {self.rate_per_s}",
                    code="shape-rate-not-positive",
                )
        elif self.rate_per_s is not None:
            raise UsageError(f"shape {self.shape} has no rate", code="shape-without-rate", hint="--shape server")
        for name, value in (("clients", self.clients), ("max_requests", self.max_requests)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}", code="count-not-positive")
