"""What is doubtful about a row's numbers, a line each. None of it means that the machine was not quiet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks import conditions, statistics
from benchmarks.field import LEAST_PROCESSES, Gathered
from benchmarks.results import Row
from benchmarks.roofline import implausible
from benchmarks.samples import Series

NOT_SETTLED = "the warm-up reached its limit before three windows agreed"

APART = 1.25
"""How many times the fastest process's median the slowest one's may be before a line says so."""


LONGER = 1.05
"""How many times longer a run may seem by the device's clock than by the host's, which starts before it."""


def of(row: Row, gathered: Gathered) -> tuple[str, ...]:
    """The lines for a row that has its figures."""
    lines = (*_of_inputs(gathered), *_of_request(row, gathered), *_of_samples(row), *_of_device(row), *_of_roof(row))
    return tuple(dict.fromkeys(lines))


def _of_inputs(gathered: Gathered) -> Iterator[str]:
    for outcome in gathered.outcomes:
        yield from outcome.warnings


def _of_request(row: Row, gathered: Gathered) -> Iterator[str]:
    """What was asked for and is not what ran."""
    if row.requested_threads is not None and row.threads != row.requested_threads:
        yield f"{row.requested_threads} threads were asked for, and it ran on {row.threads}"
    if row.requested_device is not None and row.device != row.requested_device:
        yield f"device {row.requested_device} was asked for, and it ran on {row.device}"
    if gathered.alone:
        yield "it was measured by itself, as there was no room beside the others"
    least = LEAST_PROCESSES if row.processes is None else row.processes
    if len(row.sittings) < least:
        yield f"it was measured in {len(row.sittings)} of {least} processes: the run ended early"


def _of_samples(row: Row) -> Iterator[str]:
    latency = [sitting.latency for sitting in row.sittings]
    unsettled = sum(not series.settled for series in latency)
    if unsettled:
        yield NOT_SETTLED if len(latency) == 1 else f"{NOT_SETTLED}, in {unsettled} of {len(latency)} processes"
    drift = statistics.drift([series.rounds_s for series in latency])
    if drift is not None and drift.found:
        yield f"the latency drifted by {drift.change:+.1%} from the first third of the rounds to the last"
    correlated = sum(statistics.strongly_correlated(series.samples_s) for series in latency)
    if 2 * correlated > len(latency):
        mean = sum(statistics.autocorrelation(series.samples_s) for series in latency) / len(latency)
        yield f"a latency leans on the one before (autocorrelation {mean:.2f}): so many tell less than they would"
    yield from _of_processes(latency)
    seen = row.sittings[0].conditions
    if seen is not None:
        yield from conditions.doubts(seen, latency[0].samples_s, (row.gpu_before, row.gpu_after))


def _of_processes(latency: Sequence[Series]) -> Iterator[str]:
    medians = [statistics.quantile(series.samples_s, 0.5) for series in latency if series.samples_s]
    if len(medians) > 1 and max(medians) > APART * min(medians):
        least, most = (f"{1e3 * value:.3g}" for value in (min(medians), max(medians)))
        yield f"its processes differ: their medians lie between {least} and {most} ms"


def _of_device(row: Row) -> Iterator[str]:
    """Whether the host saw the device's work to its end."""
    device_s, compute_s = row.device_p50_s, row.compute_p50_s
    if device_s is not None and compute_s is not None and device_s > LONGER * compute_s:
        yield (
            f"a run takes {1e3 * device_s:.3g} ms by the device's clock and {1e3 * compute_s:.3g} ms by the host's: "
            "it returned before it was done"
        )


def _of_roof(row: Row) -> Iterator[str]:
    line = None if row.roof is None else implausible(row.roof)
    if line is not None:
        yield line
