"""How long and how often each configuration is measured, and how the requests of a load test arrive.

The names here are options of commands. This module imports no heavy library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from runtimes.errors import UsageError

ShapeName: TypeAlias = Literal["single-stream", "server", "fixed-rate", "clients", "batches", "cold"]
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)
"""The load shapes, as ``LoadResult.shape`` explains them. The first two have their names in MLPerf Inference."""

FORMER_SHAPES: dict[str, ShapeName] = {"closed": "single-stream", "open": "server", "paced": "fixed-rate"}
"""The names of shapes up to version 0.1. Commands and files of results may still contain them."""

RATED_SHAPES: tuple[ShapeName, ...] = ("server", "fixed-rate")
"""The shapes in which requests arrive at a rate, whether or not the last one has ended."""

RelativeTo: TypeAlias = Literal["best", "own"]
RELATIVE_TO: tuple[RelativeTo, ...] = get_args(RelativeTo)
"""The network whose accuracy in fp32 the limit of a search counts from: the most accurate one of all, or each one's
own."""

LEAST_PROCESSES, MOST_PROCESSES = 3, 10
"""The limits of the number of processes of each configuration, if none is requested. The time budget decides."""


BUDGET_S = 60.0
"""The time budget for each network and batch size."""

ROUNDS = 10
"""The number of rounds in each process. Each process has one turn in a round."""

SILENCE_S = 600.0
"""The time without a sign of life after which a worker is ended."""


@dataclass(frozen=True)
class Plan:
    """The duration of warm-up and sampling. All durations are sums of samples, so that a plan is exact for any clock.

    Attributes:
        duration_s: The duration of a turn. Sampling ends when the sum of its samples reaches this duration.
        min_samples: The minimum number of samples, which may prolong a turn.
        max_samples: The maximum number of samples, which may shorten a turn.
        window_s: The length of a warm-up window. A window has at least one call.
        agreement: The warm-up ends when the medians of three consecutive windows differ by at most this fraction.
        warmup_limit_s: The warm-up ends after this time even if it did not stabilise.

    Raises:
        UsageError: A value is negative or not finite, or the numbers of samples are out of order.
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
                raise UsageError(f"{name} is {value}, expected a number of at least 0", code="plan-negative")
        if not 1 <= self.min_samples <= self.max_samples:
            raise UsageError(
                f"min_samples is {self.min_samples}, expected between 1 and max_samples ({self.max_samples})",
                code="samples-out-of-order",
            )


REQUEST_TIMEOUT_S = 10.0
"""The time limit of one request to a server, from its intended start."""


@dataclass(frozen=True)
class Endpoint:
    """A model on a server of the Open Inference Protocol (V2).

    Attributes:
        url: The address: ``http://``, ``https://``, ``grpc://`` or ``grpcs://``, a host and a port.
        model: The name of the model.
        version: The version of the model; empty for the server's choice.
        server: The name and the version of the server, as it gives them.
        timeout_s: The time limit of one request, from its intended start.
        limit_s: The limit of p99 in a search for the highest rate; ``None`` without a search.
        versions: The versions of the model that the server offers.

    Raises:
        UsageError: The address holds a password, or a time is out of range.
    """

    url: str
    model: str = ""
    version: str = ""
    server: str = ""
    timeout_s: float = REQUEST_TIMEOUT_S
    limit_s: float | None = None
    versions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "@" in self.url:
            raise UsageError(
                "the address holds a user or a password, which results would show",
                code="url-with-credentials",
                hint="leave out what stands before the @",
            )
        if self.limit_s is not None and not 0 < self.limit_s < self.timeout_s:
            raise UsageError(
                f"the limit of p99 is {self.limit_s:g} s, expected between 0 and the time limit of a request, "
                f"{self.timeout_s:g} s",
                code="limit-out-of-range",
                hint="--request-timeout waits longer",
            )

    @property
    def protocol(self) -> Literal["http", "grpc"]:
        """The protocol of the address."""
        return "grpc" if self.url.startswith("grpc") else "http"


@dataclass(frozen=True)
class ArrivalPlan:
    """How requests arrive, and where they go.

    Attributes:
        shape: The load shape, as ``LoadResult.shape`` explains it. A worker does not run ``cold``.
        duration_s: The duration of the arrivals.
        rate_per_s: The arrival rate of ``RATED_SHAPES``; ``None`` for other shapes.
        clients: The number of threads that call, for ``clients``.
        seed: The seed of the arrivals of ``server``.
        max_requests: The maximum number of requests.
        endpoint: The served model that answers; ``None`` for the model that the worker opens.

    Raises:
        UsageError: A number is out of range, or the rate does not fit the shape.
    """

    shape: ShapeName
    duration_s: float = 1.0
    rate_per_s: float | None = None
    clients: int = 1
    seed: int = 0
    max_requests: int = Plan.max_samples
    endpoint: Endpoint | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise UsageError(
                f"the duration is {self.duration_s}, expected a number of seconds above 0", code="duration-not-positive"
            )
        if self.shape in RATED_SHAPES:
            if self.rate_per_s is None or not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
                raise UsageError(
                    f"the rate of shape {self.shape} is {self.rate_per_s}, expected a number above 0",
                    code="shape-rate-not-positive",
                )
        elif self.rate_per_s is not None:
            raise UsageError(f"shape {self.shape} takes no rate", code="shape-without-rate", hint="--shape server")
        for name, value in (("clients", self.clients), ("max_requests", self.max_requests)):
            if value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1", code="count-not-positive")
