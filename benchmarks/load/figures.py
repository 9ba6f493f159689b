"""From what a load shape gave to a row, and what must be said about it: every figure is derived from its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.analysis.warnings import NOT_SETTLED, check_correlation, check_trend
from benchmarks.format import milliseconds
from benchmarks.machine.disturbances import disturbances, list_warnings
from benchmarks.machine.monitor import Conditions
from benchmarks.records.load import LoadResult
from benchmarks.records.result import Row
from benchmarks.stats import intervals as statistics_intervals
from benchmarks.stats.intervals import MIN_SAMPLES, Samples

KEPT = 0.95
"""Of the rate at which requests were to come: what must be answered, or else they come too fast."""

STALL = 10.0
"""How many medians a call takes that is called a stall."""

HELD_UP = 2.0
"""How many times the calls' own p99 the responses' is where waiting is worth a line."""

PARTS = 10
"""Of a load, among which a trend is looked for."""


def with_load(row: Row, load: LoadResult) -> Row:
    """The row with the load, and the quantiles of its responses as far as there are the samples for them; intervals
    speak of the one process that they were taken in, those of cold starts of the processes."""
    samples = load.responses_s
    given = [q for q in statistics_intervals.MIN_SAMPLES if statistics_intervals.enough_for(samples, q)]
    processes = [[[sample]] for sample in samples] if load.shape == "cold" else [[samples]]
    intervals = dict(zip(given, statistics_intervals.quantile_intervals(processes, given, row.seed), strict=True))
    values = {q: statistics_intervals.quantile(samples, q) for q in given}
    about = conditions_of(row, load)
    return replace(
        row,
        load=load,
        p50_s=values.get(0.5),
        p50_interval_s=intervals.get(0.5),
        p90_s=values.get(0.9),
        p90_interval_s=intervals.get(0.9),
        p99_s=values.get(0.99),
        p99_interval_s=intervals.get(0.99),
        p999_s=values.get(0.999),
        p999_interval_s=intervals.get(0.999),
        images_per_s=row.batch * load.achieved_per_s,
        peak_bytes=row.peak_bytes if load.peak_bytes is None else load.peak_bytes,
        warnings=(*row.warnings, *warnings(load)),
        disturbances=None if about is None else disturbances(about, row.threads * load.clients),
    )


def conditions_of(row: Row, load: LoadResult) -> Conditions | None:
    """How the machine was, less what the load did to itself: threads that are more than the processors wait for each
    other, which is no disturbance."""
    about = load.conditions
    if about is None or about.processors is None or row.threads * load.clients <= about.processors:
        return about
    return replace(about, waited_s=None, involuntary_switches=0, pressure_share=None)


def warnings(load: LoadResult) -> Iterator[str]:
    """What is doubtful about the load's figures, a line each."""
    if not load.settled:
        yield NOT_SETTLED
    if load.shape != "cold":
        yield from check_trend([_parts(load.services_s)])
    if load.shape != "cold" and load.clients == 1:
        yield from check_correlation([load.services_s])
    if load.conditions is not None:
        yield from list_warnings(load.conditions, load.services_s)
    if load.unanswered:
        total = load.unanswered + len(load.services_s)
        yield (
            f"{load.unanswered:,} of {total:,} requests still waited at the end: they came faster than they could be "
            "answered, and how long they wait depends on how long that lasts"
        )
    elif load.rate_per_s is not None and load.shape == "open" and load.achieved_per_s < KEPT * load.rate_per_s:
        yield f"{load.rate_per_s:,.0f} requests a second were to come, and {load.achieved_per_s:,.0f} were answered"


def _parts(samples: Sequence[float]) -> list[Samples]:
    """The samples in their order, in as many parts as a trend is looked for in; none of too few."""
    return [] if len(samples) < PARTS * MIN_SAMPLES[0.5] else list(np.array_split(np.asarray(samples), PARTS))


def list_load_warnings(load: LoadResult) -> Iterator[str]:
    """What the load's figures say that one of them alone would hide."""
    calls = load.services_s
    usual_s = statistics_intervals.quantile(calls, 0.5)
    stalls = [sample for sample in calls if sample > STALL * usual_s]
    if load.shape == "closed" and stalls:
        yield (
            f"{len(stalls):,} of {len(calls):,} calls stalled, for up to {milliseconds(max(stalls))} ms where "
            f"{milliseconds(usual_s)} is usual; this is service time: a closed loop sends nothing meanwhile, so nobody "
            "is seen to wait"
        )
    if load.shape == "open" and statistics_intervals.enough_for(calls, 0.99):
        service_s, response_s = (
            statistics_intervals.quantile(calls, 0.99),
            statistics_intervals.quantile(load.responses_s, 0.99),
        )
        if response_s > HELD_UP * service_s:
            behind = f"{len(stalls):,} of {len(calls):,} calls stalled, for up to {milliseconds(max(calls))} ms; "
            yield (
                f"{behind if stalls else ''}p99 from the intended start is {milliseconds(response_s)} ms, of the calls "
                f"alone {milliseconds(service_s)}: requests wait behind slow calls"
            )
