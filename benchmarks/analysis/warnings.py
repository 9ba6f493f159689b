"""Doubts about the figures of a result, besides disturbances of the machine.

The figures of a sentence stand in brackets at its end, so that a report can say the sentence once for several rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.analysis.served import check_served
from benchmarks.format import milliseconds
from benchmarks.machine import disturbances
from benchmarks.machine.monitor import Conditions
from benchmarks.records.plan import LEAST_PROCESSES
from benchmarks.records.result import Estimate, Result
from benchmarks.records.samples import LoadResult
from benchmarks.roofline.roof import implausible, narrower
from benchmarks.stats import intervals, trend
from benchmarks.stats.intervals import MIN_SAMPLES, Processes, Samples
from runtimes.errors import Reason

APART = 1.25
"""How many times the fastest process's median the slowest one's may be before a line says so."""

LONGER = 1.05
"""How many times longer a run may seem by the device's clock than by the host's, which starts before it."""

LONGEST = 1.25
"""From here on it returned before it was done. Beneath, the device may have been slower in one part of the turns than
in the other, as where its power is at the limit."""

IDLE = 1 / 20
"""Of a whole call: what a run takes at least, or it must be one that there can be. Where copies are most of the work,
a run may be less than that."""

EMPTY = 50
"""What a run takes at least, in readings of the clock: a call in Python that does nothing takes ten or twenty, and no
library starts a network and sees its end in a few more."""

IMPOSSIBLE = 10.0
"""How many times faster than the fastest matrix product a run may be: an algorithm may save three of four
multiplications (Lavin and Gray 2015), and a ceiling may be measured too low."""

KEPT = 0.95
"""Of the rate at which requests were to come: what must be answered, or else they come too fast."""

STALL = 10.0
"""How many medians a call takes that is called a stall."""

HELD_UP = 2.0
"""How many times the calls' own p99 the responses' is where waiting is worth a line."""

PARTS = 10
"""Of a load, among which a trend is looked for."""


def list_warnings(result: Result, compute: Estimate | None, device: Estimate | None) -> Iterator[Reason]:
    """The warnings that follow from the facts of a result with samples or a load, and from the medians of its runs on
    bound inputs, by the host's and by the device's clock."""
    asked, ran = result.asked, result.ran
    if asked.threads is not None and ran.threads != asked.threads:
        yield Reason(
            "threads-not-granted",
            f"ran on another number of threads than requested ({ran.threads}, not {asked.threads})",
        )
    if asked.device is not None and ran.device != asked.device:
        yield Reason("device-not-granted", f"ran on another device than requested ({ran.device}, not {asked.device})")
    if result.load is not None:
        yield from check_load(result.load)
        return
    if (line := narrower(result.identity.precision, ran.arithmetic)) is not None:
        yield line
    if asked.group is None:
        yield Reason("measured-alone", "measured alone: there was no room to interleave it with the others")
    least, processes = LEAST_PROCESSES if asked.processes is None else asked.processes, len(result.samples)
    if processes < least:
        yield Reason("processes-missing", f"the run ended early ({processes} of {least} processes)")
    yield from _check_samples(result)
    if device is not None and compute is not None and device.value > LONGER * compute.value:
        clocks = _describe_clocks(device.value, compute.value)
        yield Reason("run-returned-early", f"a run may have returned before it was done ({clocks})")
    line = None if result.roof is None or compute is None else implausible(result.roof, compute.value)
    if line is not None:
        yield line


def check_speeds(by_rounds: Estimate | None, by_medians: float | None) -> Iterator[Reason]:
    """Whether the ratio of all calls' medians is that of rounds side by side; else a network ran at several speeds.

    Args:
        by_rounds: How many times as fast as the reference, by the medians of each round.
        by_medians: The same, by the medians of all calls.
    """
    if by_rounds is None or by_medians is None:
        return
    if not 1 / APART <= by_rounds.value / by_medians <= APART:
        yield Reason(
            "speed-changed",
            "the speed changed during the run: vs baseline compares calls of the same moment, the p50 columns compare "
            f"all calls ({by_rounds.value:.2f}x, {by_medians:.2f}x)",
        )


def find_unfinished_work(
    result: Result, whole: Estimate | None, compute: Estimate | None, device: Estimate | None
) -> Reason | None:
    """Why the runs on bound inputs cannot have been the work; ``None`` where they can. Such a result gets no number."""
    if compute is None:
        return None
    if device is not None and device.value > LONGEST * compute.value:
        clocks = _describe_clocks(device.value, compute.value)
        return Reason("runs-returned-early", f"runs returned before they were done ({clocks})")
    if whole is None or compute.value >= IDLE * whole.value:
        return None
    roof, seen = result.roof, [process.conditions for process in result.samples]
    empty = any(each is not None and compute.value < EMPTY * each.clock_cost_s for each in seen)
    # Of the two ceilings the multiplications' alone: a cache may hold the bytes.
    most = None if roof is None else IMPOSSIBLE * compute.value * roof.peak_multiply_adds_per_s
    if not empty and (roof is None or most is None or roof.multiply_adds <= most):
        return None
    return Reason(
        "runs-without-work",
        f"runs with inputs on the device do not do the work ({1e6 * compute.value:.3g} µs, a call from the host takes "
        f"{1e6 * whole.value:,.0f} µs)",
    )


def _describe_clocks(device_s: float, compute_s: float) -> str:
    return f"{1e3 * device_s:.3g} ms by the device's clock, {1e3 * compute_s:.3g} ms by the host's"


def _check_samples(result: Result) -> Iterator[Reason]:
    latency = [process.latency for process in result.samples]
    yield from _check_warm_up([series.settled for series in latency])
    yield from _check_trend([series.rounds_s for series in latency])
    yield from _check_correlation([series.samples_s for series in latency])
    medians = [intervals.quantile(series.samples_s, 0.5) for series in latency if series.samples_s]
    if len(medians) > 1 and max(medians) > APART * min(medians):
        least, most = (f"{1e3 * value:.3g}" for value in (min(medians), max(medians)))
        yield Reason("processes-differ", f"latency varies between processes (medians {least} to {most} ms)")
    seen = result.samples[0].conditions
    if seen is not None:
        yield from disturbances.list_warnings(seen, latency[0].samples_s, (result.gpu.before, result.gpu.after))
        if result.ran.device.startswith("cuda") and seen.gpu is None:
            yield Reason("gpu-not-recorded", "the state of the GPU was not recorded; rbench doctor says why")


def check_load(load: LoadResult) -> Iterator[Reason]:
    """What is doubtful about the figures of a load, each once."""
    calls = load.services_s
    yield from _check_warm_up([load.settled])
    if load.shape != "cold":
        long = len(calls) >= PARTS * MIN_SAMPLES[0.5]
        yield from _check_trend([np.array_split(np.asarray(calls), PARTS)] if long else [])
    is_searched = load.served is not None and load.served.limit_s is not None
    if load.shape != "cold" and load.clients == 1 and not is_searched:  # the verdict on a rate allows for it
        yield from _check_correlation([calls])
    if load.conditions is not None:
        yield from disturbances.list_warnings(load.conditions, calls)
    if load.served is not None:
        yield from check_served(load, load.served)
    if load.unanswered:
        total = load.unanswered + len(calls)
        yield Reason(
            "requests-unanswered",
            "requests arrived faster than they were answered, so their waiting time depends on the duration "
            f"({load.unanswered:,} of {total:,} unanswered at the end)",
        )
    elif load.rate_per_s is not None and load.achieved_per_s < KEPT * load.rate_per_s:
        yield Reason(
            "rate-not-reached",
            f"the requested rate was not reached ({load.achieved_per_s:,.0f} of {load.rate_per_s:,.0f} requests/s)",
        )


def _check_warm_up(settled: Sequence[bool]) -> Iterator[Reason]:
    """Whether the warm-up settled, by process."""
    if not all(settled):
        where = "" if len(settled) == 1 else f" ({settled.count(False)} of {len(settled)} processes)"
        yield Reason("warm-up-not-settled", f"warm-up did not stabilise{where}")


def _check_trend(processes: Processes) -> Iterator[Reason]:
    """Whether the latency had a trend, by process and round, and from process to process."""
    for drift, parts in ((trend.drift(processes), "rounds"), (trend.drift_between(processes), "processes")):
        if drift is not None and drift.found:
            yield Reason(
                "latency-drifted",
                f"latency drifted from the first third of the {parts} to the last ({100 * drift.change:+.1f} %)",
            )


def _check_correlation(processes: Sequence[Samples]) -> Iterator[Reason]:
    """Whether a sample leans on the one before, in most processes."""
    if 2 * sum(map(trend.is_strongly_correlated, processes)) > len(processes):
        mean = sum(map(trend.autocorrelation, processes)) / len(processes)
        yield Reason(
            "samples-correlated",
            f"consecutive samples are correlated: the effective sample size is smaller (lag-1 {mean:.2f})",
        )


def conditions_of(result: Result, load: LoadResult) -> Conditions | None:
    """How the machine was, less what the load did to itself, which is no disturbance: threads that are more than the
    processors wait for each other, and a server on the same machine is one of the other processes."""
    about = load.conditions
    if about is not None and load.served is not None and load.served.host == "loopback":
        return replace(about, foreign_cores=None, waited_s=None, involuntary_switches=0, pressure_share=None)
    if about is None or about.processors is None or result.ran.threads * load.clients <= about.processors:
        return about
    return replace(about, waited_s=None, involuntary_switches=0, pressure_share=None)


def list_stalls(load: LoadResult) -> Iterator[Reason]:
    """The stalls of a load, and the waiting behind them, which one of its figures alone would hide."""
    calls = load.services_s
    usual_s = intervals.quantile(calls, 0.5)
    stalls = [sample for sample in calls if sample > STALL * usual_s]
    if load.shape == "single-stream" and stalls:
        yield Reason(
            "calls-stalled",
            f"{len(stalls):,} of {len(calls):,} calls stalled, for up to {milliseconds(max(stalls))} ms (median "
            f"{milliseconds(usual_s)} ms); a single stream sends nothing meanwhile, so no request is seen to wait",
        )
    if load.shape == "server" and load.served is None and intervals.enough_for(calls, 0.99):
        service_s, response_s = (intervals.quantile(samples, 0.99) for samples in (calls, load.responses_s))
        if response_s > HELD_UP * service_s:
            behind = f"{len(stalls):,} of {len(calls):,} calls stalled, for up to {milliseconds(max(calls))} ms; "
            yield Reason(
                "requests-waited",
                f"{behind if stalls else ''}requests wait behind slow calls: p99 from the intended start is "
                f"{milliseconds(response_s)} ms, of the calls alone {milliseconds(service_s)} ms",
            )
