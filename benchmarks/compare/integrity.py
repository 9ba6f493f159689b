"""Facts of one result that cannot both be true."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks.compare.matching import name
from benchmarks.records.result import Result
from benchmarks.records.samples import Series
from runtimes.errors import ArtifactError


def check(result: Result, path: str | os.PathLike[str]) -> None:
    """Returns if no fact contradicts another.

    Figures are not looked at: they are derived from the facts. Packed predictions are checked where they are unpacked.

    Raises:
        ArtifactError: a sample took no time, the clocks of a process have different numbers of rounds than it had
            turns, or a result that was not measured has samples.
    """
    for sentence in _find_contradictions(result):
        raise ArtifactError(
            f"{name(result)}: {sentence}", code="facts-contradict", path=path, hint="measure again with rbench run"
        )


def _find_contradictions(result: Result) -> Iterator[str]:
    if result.status != "ok" and (result.samples or result.load is not None):
        yield f"its status is {result.status}, and it has samples"
    for number, process in enumerate(result.samples, start=1):
        for clock in ("latency", "compute", "device", "image"):
            series: Series | None = getattr(process, clock)
            least = min(series.samples_s, default=None) if series is not None else None
            if least is not None and least <= 0:
                yield f"a sample of {clock} in process {number} is {least} s, expected above 0"
        if len(process.latency.rounds_s) > len(process.starts_s):
            yield f"process {number} has {len(process.latency.rounds_s)} rounds and {len(process.starts_s)} starts"
    load = result.load
    if load is not None and load.responses_s and min(load.responses_s) <= 0:
        yield f"a response took {min(load.responses_s)} s, expected above 0"
    if load is not None and len(load.services_s) != len(load.responses_s):
        yield f"it has {len(load.services_s)} services and {len(load.responses_s)} responses"
