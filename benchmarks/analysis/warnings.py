"""What is doubtful about a row's numbers, a line each. None of it means that the machine was not quiet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.machine import disturbances
from benchmarks.process.job import ProcessOutcomes
from benchmarks.records.plan import LEAST_PROCESSES
from benchmarks.records.result import Row
from benchmarks.records.samples import Series
from benchmarks.roofline.executed_precision import narrower
from benchmarks.roofline.roof import implausible
from benchmarks.stats import intervals, trend
from benchmarks.stats.intervals import Processes, Samples

NOT_SETTLED = "the warm-up reached its limit before three windows agreed"

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


def list_warnings(row: Row, gathered: ProcessOutcomes) -> tuple[str, ...]:
    """The lines for a row that has its figures."""
    lines = (
        *_check_inputs(gathered),
        *_check_request(row, gathered),
        *_check_samples(row),
        *_check_device(row),
        *_check_roof(row),
    )
    return tuple(dict.fromkeys(lines))


def find_unfinished_work(row: Row) -> str | None:
    """Why the runs on bound inputs cannot have been the work, in one line; ``None`` where they can. Such a row gets no
    number."""
    compute_s, device_s, whole_s = row.compute_p50_s, row.device_p50_s, row.p50_s
    if compute_s is None:
        return None
    if device_s is not None and device_s > LONGEST * compute_s:
        return f"runs returned before they were done: {_by_two_clocks(device_s, compute_s)}"
    if whole_s is None or compute_s >= IDLE * whole_s or not (_empty(row, compute_s) or _impossible(row, compute_s)):
        return None
    return (
        f"runs on bound inputs do not do the work: one takes {1e6 * compute_s:.3g} µs, where a whole call takes "
        f"{1e6 * whole_s:,.0f} µs"
    )


def _by_two_clocks(device_s: float, compute_s: float) -> str:
    return f"one takes {1e3 * device_s:.3g} ms by the device's clock and {1e3 * compute_s:.3g} ms by the host's"


def _empty(row: Row, compute_s: float) -> bool:
    """Whether a run takes no longer than a call that does nothing."""
    seen = [sitting.conditions for sitting in row.sittings if sitting.conditions is not None]
    return any(compute_s < EMPTY * one.clock_cost_s for one in seen)


def _impossible(row: Row, compute_s: float) -> bool:
    """Whether no machine like this one could do its multiplications in that time. The bytes do not count: a cache may
    hold them."""
    roof = row.roof
    return roof is not None and roof.multiply_adds > IMPOSSIBLE * compute_s * roof.peak_multiply_adds_per_s


def _check_inputs(gathered: ProcessOutcomes) -> Iterator[str]:
    for outcome in gathered.outcomes:
        yield from outcome.warnings


def _check_request(row: Row, gathered: ProcessOutcomes) -> Iterator[str]:
    """What was asked for and is not what ran."""
    if row.requested_threads is not None and row.threads != row.requested_threads:
        yield f"{row.requested_threads} threads were asked for, and it ran on {row.threads}"
    if row.requested_device is not None and row.device != row.requested_device:
        yield f"device {row.requested_device} was asked for, and it ran on {row.device}"
    if (line := narrower(row.precision, row.arithmetic)) is not None:
        yield line
    if gathered.alone:
        yield "it was measured by itself, as there was no room beside the others"
    least = LEAST_PROCESSES if row.processes is None else row.processes
    if len(row.sittings) < least:
        yield f"it was measured in {len(row.sittings)} of {least} processes: the run ended early"


def _check_samples(row: Row) -> Iterator[str]:
    latency = [sitting.latency for sitting in row.sittings]
    unsettled = sum(not series.settled for series in latency)
    if unsettled:
        yield NOT_SETTLED if len(latency) == 1 else f"{NOT_SETTLED}, in {unsettled} of {len(latency)} processes"
    yield from check_trend([series.rounds_s for series in latency])
    yield from check_correlation([series.samples_s for series in latency])
    yield from _check_processes(latency)
    seen = row.sittings[0].conditions
    if seen is not None:
        yield from disturbances.list_warnings(seen, latency[0].samples_s, (row.gpu_before, row.gpu_after))


def check_trend(processes: Processes) -> Iterator[str]:
    """Whether the latency had a trend, by process and round, and from process to process."""
    within, between = trend.drift(processes), trend.drift_between(processes)
    if within is not None and within.found:
        yield f"the latency drifted by {within.change:+.1%} from the first third of the rounds to the last"
    if between is not None and between.found:
        yield f"the latency drifted by {between.change:+.1%} from the first third of the processes to the last"


def check_correlation(processes: Sequence[Samples]) -> Iterator[str]:
    """Whether a sample leans on the one before, in most processes."""
    if 2 * sum(map(trend.is_strongly_correlated, processes)) > len(processes):
        mean = sum(map(trend.autocorrelation, processes)) / len(processes)
        yield f"a latency leans on the one before (autocorrelation {mean:.2f}): so many tell less than they would"


def _check_processes(latency: Sequence[Series]) -> Iterator[str]:
    medians = [intervals.quantile(series.samples_s, 0.5) for series in latency if series.samples_s]
    if len(medians) > 1 and max(medians) > APART * min(medians):
        least, most = (f"{1e3 * value:.3g}" for value in (min(medians), max(medians)))
        yield f"its processes differ: their medians lie between {least} and {most} ms"


def _check_device(row: Row) -> Iterator[str]:
    """Whether the host saw the device's work to its end."""
    device_s, compute_s = row.device_p50_s, row.compute_p50_s
    if device_s is not None and compute_s is not None and device_s > LONGER * compute_s:
        yield f"a run may have returned before it was done: {_by_two_clocks(device_s, compute_s)}"


def _check_roof(row: Row) -> Iterator[str]:
    line = None if row.roof is None else implausible(row.roof)
    if line is not None:
        yield line
