"""Quantiles of a result's samples with their intervals, and the comparison of two results' latencies.

Both resample, which takes a tenth of a second of many samples: what was computed once is remembered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from benchmarks.records.result import Estimate, Result
from benchmarks.records.samples import ProcessSamples, Series
from benchmarks.stats import comparison, intervals
from benchmarks.stats.comparison import LatencyComparison

Processes: TypeAlias = tuple[tuple[tuple[float, ...], ...], ...]
"""Seconds, by process and round."""

REMEMBERED = 1024


def latencies(result: Result) -> Processes:
    """The samples of whole calls; of a load its responses, of whose processes cold starts have one each."""
    if result.load is None:
        return rounds_of(result, lambda process: process.latency)
    if result.load.shape == "cold":
        return tuple(((sample,),) for sample in result.load.responses_s)
    return ((result.load.responses_s,),) if result.load.responses_s else ()


def rounds_of(result: Result, clock: Callable[[ProcessSamples], Series | None]) -> Processes:
    """The samples of one clock, without the processes that it was not read in."""
    return tuple(series.rounds_s for process in result.samples if (series := clock(process)) is not None)


@functools.lru_cache(maxsize=REMEMBERED)
def estimate_quantiles(processes: Processes, quantiles: Iterable[float], seed: int) -> Mapping[float, Estimate]:
    """Those of the quantiles that there are enough samples for, of all processes together."""
    samples = intervals.together(processes)
    given = [q for q in quantiles if intervals.enough_for(samples, q)]
    if not given:
        return {}
    ends = intervals.quantile_intervals(processes, given, seed)
    return {q: Estimate(intervals.quantile(samples, q), *each) for q, each in zip(given, ends, strict=True)}


def compare_latencies(reference: Result, other: Result, q: float = 0.5) -> LatencyComparison:
    """The ``q``-quantiles of two results: above 1, ``other`` is the faster. Pair by pair if they took turns."""
    paired = took_turns(reference, other)
    return _compare(latencies(reference), latencies(other), paired, other.asked.seed, q)


def took_turns(first: Result, second: Result) -> bool:
    """Whether the two were measured side by side."""
    return first.run == second.run and first.asked.group == second.asked.group is not None


@functools.lru_cache(maxsize=REMEMBERED)
def _compare(reference: Processes, other: Processes, paired: bool, seed: int, q: float) -> LatencyComparison:
    compare = comparison.compare_paired if paired else comparison.compare_unpaired
    return compare(reference, other, seed=seed, q=q)
