"""What is doubtful about the figures of a load shape, and what one of them alone would hide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.analysis.warnings import check_correlation, check_trend, describe_warm_up
from benchmarks.format import milliseconds
from benchmarks.machine import disturbances
from benchmarks.machine.monitor import Conditions
from benchmarks.records.result import Result
from benchmarks.records.samples import LoadResult
from benchmarks.stats import intervals
from benchmarks.stats.intervals import MIN_SAMPLES, Samples
from runtimes.errors import Reason

KEPT = 0.95
"""Of the rate at which requests were to come: what must be answered, or else they come too fast."""

STALL = 10.0
"""How many medians a call takes that is called a stall."""

HELD_UP = 2.0
"""How many times the calls' own p99 the responses' is where waiting is worth a line."""

PARTS = 10
"""Of a load, among which a trend is looked for."""


def conditions_of(result: Result, load: LoadResult) -> Conditions | None:
    """How the machine was, less what the load did to itself: threads that are more than the processors wait for each
    other, which is no disturbance."""
    about = load.conditions
    if about is None or about.processors is None or result.ran.threads * load.clients <= about.processors:
        return about
    return replace(about, waited_s=None, involuntary_switches=0, pressure_share=None)


def list_warnings(load: LoadResult) -> Iterator[Reason]:
    """What is doubtful about the load's figures, each once."""
    if not load.settled:
        yield describe_warm_up(1, 1)
    if load.shape != "cold":
        yield from check_trend([_parts(load.services_s)])
    if load.shape != "cold" and load.clients == 1:
        yield from check_correlation([load.services_s])
    if load.conditions is not None:
        yield from disturbances.list_warnings(load.conditions, load.services_s)
    if load.unanswered:
        total = load.unanswered + len(load.services_s)
        yield Reason(
            "requests-unanswered",
            f"{load.unanswered:,} of {total:,} requests still waited at the end: they came faster than they could be "
            "answered, and how long they wait depends on how long that lasts",
        )
    elif load.rate_per_s is not None and load.shape == "open" and load.achieved_per_s < KEPT * load.rate_per_s:
        yield Reason(
            "rate-not-reached",
            f"{load.rate_per_s:,.0f} requests a second were to come, and {load.achieved_per_s:,.0f} were answered",
        )


def _parts(samples: Sequence[float]) -> list[Samples]:
    """The samples in their order, in as many parts as a trend is looked for in; none of too few."""
    return [] if len(samples) < PARTS * MIN_SAMPLES[0.5] else list(np.array_split(np.asarray(samples), PARTS))


def list_load_warnings(load: LoadResult) -> Iterator[Reason]:
    """What the load's figures say that one of them alone would hide."""
    calls = load.services_s
    usual_s = intervals.quantile(calls, 0.5)
    stalls = [sample for sample in calls if sample > STALL * usual_s]
    if load.shape == "closed" and stalls:
        yield Reason(
            "calls-stalled",
            f"{len(stalls):,} of {len(calls):,} calls stalled, for up to {milliseconds(max(stalls))} ms where "
            f"{milliseconds(usual_s)} is usual; this is service time: a closed loop sends nothing meanwhile, so nobody "
            "is seen to wait",
        )
    if load.shape == "open" and intervals.enough_for(calls, 0.99):
        service_s, response_s = (intervals.quantile(samples, 0.99) for samples in (calls, load.responses_s))
        if response_s > HELD_UP * service_s:
            behind = f"{len(stalls):,} of {len(calls):,} calls stalled, for up to {milliseconds(max(calls))} ms; "
            yield Reason(
                "requests-waited",
                f"{behind if stalls else ''}p99 from the intended start is {milliseconds(response_s)} ms, of the calls "
                f"alone {milliseconds(service_s)}: requests wait behind slow calls",
            )
