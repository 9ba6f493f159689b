"""Load shapes: how requests come in, and what they then wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ShapeName: TypeAlias = Literal["closed", "open", "paced", "clients", "cold"]


@dataclass(frozen=True)
class Load:
    """What came of one load shape. The samples lie in the order of the requests, in seconds.

    Attributes:
        shape: ``closed``: the next call as soon as the last one has ended. ``open``: requests come at a rate, whether
            or not the last one has ended. ``paced``: one at a time, with idle gaps, as from a camera. ``clients``:
            several threads, each a closed loop. ``cold``: a fresh process.
        arrivals: of ``open``: ``fixed`` or ``poisson``.
        rate_per_s: of ``open`` and ``paced``: calls that were to come in a second.
        clients: threads that call.
        achieved_per_s: calls that were finished in a second.
        services_s: from the start of the call to its end.
        responses_s: from the intended start to the end: what the user of the request waits.
        steps_s: of ``cold``: the named steps from the start of the process on.
        disk_bytes: of ``cold``: the artifact and all its files.
    """

    shape: ShapeName
    services_s: tuple[float, ...]
    responses_s: tuple[float, ...]
    achieved_per_s: float
    arrivals: Literal["fixed", "poisson"] | None = None
    rate_per_s: float | None = None
    clients: int = 1
    steps_s: tuple[tuple[str, float], ...] = ()
    disk_bytes: int | None = None
