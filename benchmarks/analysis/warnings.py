"""What is doubtful about a result's numbers. None of it means that the machine was not quiet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.machine import disturbances
from benchmarks.records.estimate import Estimate
from benchmarks.records.plan import LEAST_PROCESSES
from benchmarks.records.result import Result
from benchmarks.records.samples import Series
from benchmarks.roofline.roof import implausible, narrower
from benchmarks.stats import intervals, trend
from benchmarks.stats.intervals import Processes, Samples
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


def list_warnings(result: Result, compute: Estimate | None, device: Estimate | None) -> Iterator[Reason]:
    """The warnings that follow from the facts of a result with samples, and from the medians of its runs on bound
    inputs, by the host's and by the device's clock."""
    yield from _check_request(result)
    yield from _check_samples(result)
    if device is not None and compute is not None and device.value > LONGER * compute.value:
        clocks = _describe_clocks(device.value, compute.value)
        yield Reason("run-returned-early", f"a run may have returned before it was done: {clocks}")
    line = None if result.roof is None or compute is None else implausible(result.roof, compute.value)
    if line is not None:
        yield line


def find_unfinished_work(
    result: Result, whole: Estimate | None, compute: Estimate | None, device: Estimate | None
) -> Reason | None:
    """Why the runs on bound inputs cannot have been the work; ``None`` where they can. Such a result gets no number."""
    if compute is None:
        return None
    if device is not None and device.value > LONGEST * compute.value:
        clocks = _describe_clocks(device.value, compute.value)
        return Reason("runs-returned-early", f"runs returned before they were done: {clocks}")
    if whole is None or compute.value >= IDLE * whole.value:
        return None
    if not (_is_empty(result, compute.value) or _is_impossible(result, compute.value)):
        return None
    return Reason(
        "runs-without-work",
        f"runs on bound inputs do not do the work: one takes {1e6 * compute.value:.3g} µs, where a whole call takes "
        f"{1e6 * whole.value:,.0f} µs",
    )


def _describe_clocks(device_s: float, compute_s: float) -> str:
    return f"one takes {1e3 * device_s:.3g} ms by the device's clock and {1e3 * compute_s:.3g} ms by the host's"


def _is_empty(result: Result, compute_s: float) -> bool:
    """Whether a run takes no longer than a call that does nothing."""
    seen = [process.conditions for process in result.samples if process.conditions is not None]
    return any(compute_s < EMPTY * conditions.clock_cost_s for conditions in seen)


def _is_impossible(result: Result, compute_s: float) -> bool:
    """Whether no machine like this one could do its multiplications in that time. The bytes do not count: a cache may
    hold them."""
    roof = result.roof
    return roof is not None and roof.multiply_adds > IMPOSSIBLE * compute_s * roof.peak_multiply_adds_per_s


def check_processors(result: Result) -> Iterator[Reason]:
    """Whether it ran with the threads and on the device that were asked for."""
    asked, ran = result.asked, result.ran
    if asked.threads is not None and ran.threads != asked.threads:
        yield Reason("threads-not-granted", f"{asked.threads} threads were asked for, and it ran on {ran.threads}")
    if asked.device is not None and ran.device != asked.device:
        yield Reason("device-not-granted", f"device {asked.device} was asked for, and it ran on {ran.device}")


def _check_request(result: Result) -> Iterator[Reason]:
    """What was asked for and is not what ran."""
    yield from check_processors(result)
    if (line := narrower(result.identity.precision, result.ran.arithmetic)) is not None:
        yield line
    if result.asked.group is None:
        yield Reason("measured-alone", "it was measured by itself, as there was no room beside the others")
    least = LEAST_PROCESSES if result.asked.processes is None else result.asked.processes
    if len(result.samples) < least:
        yield Reason(
            "processes-missing",
            f"it was measured in {len(result.samples)} of {least} processes: the run ended early",
        )


def describe_warm_up(unsettled: int, processes: int) -> Reason:
    """The warning for warm-ups that did not settle, in so many of the processes."""
    where = "" if processes == 1 else f", in {unsettled} of {processes} processes"
    return Reason("warm-up-not-settled", f"the warm-up reached its limit before three windows agreed{where}")


def _check_samples(result: Result) -> Iterator[Reason]:
    latency = [process.latency for process in result.samples]
    unsettled = sum(not series.settled for series in latency)
    if unsettled:
        yield describe_warm_up(unsettled, len(latency))
    yield from check_trend([series.rounds_s for series in latency])
    yield from check_correlation([series.samples_s for series in latency])
    yield from _check_processes(latency)
    seen = result.samples[0].conditions
    if seen is not None:
        yield from disturbances.list_warnings(seen, latency[0].samples_s, (result.gpu.before, result.gpu.after))


def check_trend(processes: Processes) -> Iterator[Reason]:
    """Whether the latency had a trend, by process and round, and from process to process."""
    for drift, parts in ((trend.drift(processes), "rounds"), (trend.drift_between(processes), "processes")):
        if drift is not None and drift.found:
            yield Reason(
                "latency-drifted",
                f"the latency drifted by {drift.change:+.1%} from the first third of the {parts} to the last",
            )


def check_correlation(processes: Sequence[Samples]) -> Iterator[Reason]:
    """Whether a sample leans on the one before, in most processes."""
    if 2 * sum(map(trend.is_strongly_correlated, processes)) > len(processes):
        mean = sum(map(trend.autocorrelation, processes)) / len(processes)
        yield Reason(
            "samples-correlated",
            f"a latency leans on the one before (autocorrelation {mean:.2f}): so many tell less than they would",
        )


def _check_processes(latency: Sequence[Series]) -> Iterator[Reason]:
    medians = [intervals.quantile(series.samples_s, 0.5) for series in latency if series.samples_s]
    if len(medians) > 1 and max(medians) > APART * min(medians):
        least, most = (f"{1e3 * value:.3g}" for value in (min(medians), max(medians)))
        yield Reason("processes-differ", f"its processes differ: their medians lie between {least} and {most} ms")
