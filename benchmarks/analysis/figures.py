"""The figures of a result: every median, ratio, share and warning, derived from the facts when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

from benchmarks.accuracy import differences, packing, predictions
from benchmarks.accuracy.differences import Flips
from benchmarks.accuracy.predictions import Predictions, ShareEstimate
from benchmarks.analysis import limits, warnings
from benchmarks.machine.disturbances import disturbances, find_invalidity
from benchmarks.machine.gpu import GpuState
from benchmarks.machine.gpu_conditions import GpuConditions
from benchmarks.machine.monitor import Conditions
from benchmarks.records.identity import References, find_evaluated_reference, find_timed_reference, is_reference
from benchmarks.records.plan import LEAST_PROCESSES
from benchmarks.records.result import Estimate, RecordedFigures, Result
from benchmarks.records.samples import ProcessSamples, Series, Transfers
from benchmarks.stats import comparison, intervals
from benchmarks.stats.comparison import NO_DIFFERENCE, LatencyComparison, Verdict
from runtimes import codec
from runtimes.errors import ArtifactError, Reason, quote

NAMES = (
    *("p50", "p90", "p99", "p999", "compute_p50", "device_p50", "image_p50", "images_per_s", "ratio", "verdict"),
    *("load_s", "first_s", "peak_bytes", "baseline_bytes", "images", "top1", "top5", "top1_change", "agreement"),
    *("changed_predictions", "roofline_share", "validity", "validity_reason", "disturbances", "warnings"),
    *("device_p99", "enqueue_p50", "to_device_p50", "to_host_p50", "throughput", "device_idle_share"),
    *("trtexec_p50", "trtexec_ratio"),
)
"""The figures that a line of JSON has beside the facts."""

_NAMES_OF_QUANTILES = {0.5: "p50", 0.9: "p90", 0.99: "p99", 0.999: "p999"}
Validity: TypeAlias = Literal["VALID", "INVALID", "PRELIMINARY"]

_NOT_RECORDED = RecordedFigures(complete=False, estimates={})

Processes: TypeAlias = tuple[tuple[tuple[float, ...], ...], ...]
"""Seconds, by process and round."""

PRELIMINARY_CODES = ("processes-too-few", "run-quick", "machine-not-recorded")
"""Codes of what makes a result preliminary. Other reasons make it invalid."""

REMEMBERED = 1024
"""Results of resampling, which takes a tenth of a second of many samples: what was computed once is kept."""


class Figures:
    """A result, and the figures that follow from it; ``None`` is what follows from nothing that was measured.

    Each is computed once. Those against a reference need the results of the same run: see ``of``. Of a result of an
    older version, what it recorded is given where the facts do not give it any more.
    """

    def __init__(self, result: Result, reference: Result | None = None, evaluated: Result | None = None) -> None:
        """``reference`` is what the latency is compared with, ``evaluated`` what the predictions are."""
        self.result = result
        self._reference = reference
        self._evaluated = evaluated
        self._recorded = result.recorded or _NOT_RECORDED

    @classmethod
    def of(cls, result: Result, among: Sequence[Result] | References = ()) -> Figures:
        """The figures of the result beside the others of its run, which may hold the reference."""
        return cls(result, find_timed_reference(result, among), find_evaluated_reference(result, among))

    @classmethod
    def of_all(cls, results: Sequence[Result]) -> tuple[Figures, ...]:
        """The figures of each among the others."""
        references = References(results)
        return tuple(cls.of(result, references) for result in results)

    def as_json(self) -> dict[str, object]:
        """The figures by name, as JSON has them."""
        return {name: codec.encode(getattr(self, name)) for name in NAMES}

    @property
    def is_reference(self) -> bool:
        """Whether the others are compared with it."""
        return is_reference(self.result)

    def quantile(self, q: float) -> Estimate | None:
        """The ``q``-quantile of a whole call, host arrays in and out, of a whole batch; of a load, of its responses.

        It has an interval from three processes on.
        """
        if self._recorded.complete:
            return self._without_interval(self._recorded.estimates.get(_NAMES_OF_QUANTILES[q]))
        return self._quantiles.get(q)

    @cached_property
    def p50(self) -> Estimate | None:
        """From five samples on."""
        return self.quantile(0.5)

    @cached_property
    def p90(self) -> Estimate | None:
        """From 20 samples on."""
        return self.quantile(0.9)

    @cached_property
    def p99(self) -> Estimate | None:
        """From 1,000 samples on."""
        return self.quantile(0.99)

    @cached_property
    def p999(self) -> Estimate | None:
        """From 10,000 samples on."""
        return self.quantile(0.999)

    @property
    def has_enough_processes(self) -> bool:
        """Whether the result has the processes that an interval on a time needs."""
        return len(self.result.samples) >= LEAST_PROCESSES

    @cached_property
    def _quantiles(self) -> dict[float, Estimate]:
        return dict(estimate_quantiles(latencies(self.result), tuple(intervals.MIN_SAMPLES), self.result.asked.seed))

    @cached_property
    def compute_p50(self) -> Estimate | None:
        """One run with the inputs already on the device, by the host's clock until the device is done."""
        return self._median("compute_p50", lambda process: process.compute)

    @cached_property
    def device_p50(self) -> Estimate | None:
        """The same by the device's own clock; ``None`` on a processor."""
        return self._median("device_p50", lambda process: process.device)

    @cached_property
    def device_p99(self) -> Estimate | None:
        """The 99 % quantile of the same times, from 1,000 samples on."""
        return self._quantile_of(lambda process: process.device, 0.99)

    @cached_property
    def enqueue_p50(self) -> Estimate | None:
        """What the host needs to queue a run of ``device_p50``."""
        return self._quantile_of(lambda process: process.enqueue, 0.5)

    @cached_property
    def to_device_p50(self) -> Estimate | None:
        """The copies of a call's inputs from pinned memory, by the device's clock."""
        return self._copies(lambda transfers: transfers.to_device_s)

    @cached_property
    def to_host_p50(self) -> Estimate | None:
        """The copies of a call's outputs to pinned memory, by the device's clock."""
        return self._copies(lambda transfers: transfers.to_host_s)

    def _copies(self, direction: Callable[[Transfers], tuple[float, ...]]) -> Estimate | None:
        found = [process.transfers for process in self.result.samples if process.transfers is not None]
        processes = tuple((direction(transfers),) for transfers in found)
        return estimate_quantiles(processes, (0.5,), self.result.asked.seed).get(0.5)

    @cached_property
    def throughput(self) -> Mapping[str, Estimate] | None:
        """The images per second with several calls at once, by their number: the median of all rounds."""
        seconds: dict[int, list[tuple[tuple[float, ...], ...]]] = {}
        for series in (series for process in self.result.samples for series in process.throughput):
            seconds.setdefault(series.streams, []).append(tuple((1 / rate,) for rate in series.rates_per_s))
        batch, seed = self.result.identity.batch, self.result.asked.seed
        found = {streams: estimate_quantiles(tuple(each), (0.5,), seed).get(0.5) for streams, each in seconds.items()}
        return {str(name): rate_of(each, batch) for name, each in sorted(found.items()) if each is not None} or None

    @cached_property
    def device_idle_share(self) -> float | None:
        """The share of ``device_p50`` in which no kernel ran, by the kernels of a run without CUDA graphs."""
        kernels = self.result.kernels
        if kernels is None or self.device_p50 is None:
            return None
        return max(0.0, 1 - kernels.busy_s / self.device_p50.value)

    @cached_property
    def trtexec_p50(self) -> Estimate | None:
        """The median "GPU Compute Time" of ``trtexec`` for the same engine."""
        times = self.result.trtexec
        return None if times is None else Estimate(intervals.quantile(times.compute_s, 0.5))

    @cached_property
    def trtexec_ratio(self) -> float | None:
        """``trtexec_p50`` over ``device_p50``: 1 where both measure the same."""
        theirs, own = self.trtexec_p50, self.device_p50
        return None if theirs is None or own is None else theirs.value / own.value

    @cached_property
    def image_p50(self) -> Estimate | None:
        """From the bytes of an encoded image to its label, one image a call."""
        return self._median("image_p50", lambda process: process.image)

    def _median(self, name: str, clock: Callable[[ProcessSamples], Series | None]) -> Estimate | None:
        if self._recorded.complete:
            return self._without_interval(self._recorded.estimates.get(name))
        return self._quantile_of(clock, 0.5)

    def _quantile_of(self, clock: Callable[[ProcessSamples], Series | None], q: float) -> Estimate | None:
        return estimate_quantiles(rounds_of(self.result, clock), (q,), self.result.asked.seed).get(q)

    def _without_interval(self, recorded: Estimate | None) -> Estimate | None:
        return recorded if recorded is None or self.has_enough_processes else Estimate(recorded.value)

    @cached_property
    def images_per_s(self) -> float | None:
        """Images over the sum of the latency's samples; of a load, that were answered in a second."""
        batch, load = self.result.identity.batch, self.result.load
        if self._recorded.complete:
            return self._recorded.images_per_s
        if load is not None:
            return batch * load.achieved_per_s
        samples = [sample for process in self.result.samples for sample in process.latency.samples_s]
        return batch * len(samples) / math.fsum(samples) if any(samples) else None

    @cached_property
    def ratio(self) -> Estimate | None:
        """The p50 of the reference over this one's, by rounds where they took turns: 2.0 is twice as fast.

        It has an interval from three processes of both on.
        """
        if (recorded := self._recorded.estimates.get("ratio")) is not None or self._recorded.complete:
            return self._without_interval(recorded)
        if self.is_reference:
            return Estimate(1.0) if self.result.samples else None
        found, reference = self._comparison, self._reference
        if found is None or reference is None:
            return None
        enough = min(len(self.result.samples), len(reference.samples)) >= LEAST_PROCESSES
        return Estimate(found.ratio, *(found.interval if enough else ()))

    @cached_property
    def verdict(self) -> Verdict | None:
        """On the ratio: significant if its whole interval lies beyond the resolution. ``None`` without an interval."""
        if self.ratio is None or self.ratio.interval is None:
            return None
        if (recorded := self._recorded.verdict) is not None:
            return NO_DIFFERENCE if recorded == "tie" else recorded
        return None if self._comparison is None else self._comparison.verdict

    @cached_property
    def _comparison(self) -> LatencyComparison | None:
        if self._reference is None or self.result.load is not None:
            return None
        if not has_samples(self.result) or not has_samples(self._reference):
            return None
        return compare_latencies(self._reference, self.result)

    @property
    def _ratio_of_medians(self) -> float | None:
        """The p50 of the reference over this one's, each of all its samples."""
        other = None if self._reference is None else Figures(self._reference).p50
        return None if other is None or self.p50 is None else other.value / self.p50.value

    @cached_property
    def load_s(self) -> float | None:
        """Of opening in the first process, with the import of the backend's library."""
        return self.result.samples[0].load_s if self.result.samples else None

    @cached_property
    def first_s(self) -> float | None:
        """Of the first call in the first process."""
        return self.result.samples[0].first_s if self.result.samples else None

    @cached_property
    def baseline_bytes(self) -> int | None:
        """The resident memory of the first process before the artifact was opened."""
        return self.result.samples[0].baseline_bytes if self.result.samples else None

    @cached_property
    def peak_bytes(self) -> int | None:
        """The largest resident memory of a process by the end of the timing."""
        if self.result.load is not None:
            return self.result.load.peak_bytes
        return max((process.peak_bytes for process in self.result.samples if process.peak_bytes), default=None)

    @cached_property
    def predictions(self) -> Predictions | None:
        """Image by image.

        Raises:
            ArtifactError: they are damaged.
        """
        return _predictions_of(self.result)

    @cached_property
    def _reference_predictions(self) -> Predictions | None:
        return None if self._evaluated is None else _predictions_of(self._evaluated)

    @cached_property
    def images(self) -> int | None:
        """That were evaluated."""
        return self._recorded.images if self.result.predictions is None else self.result.predictions.images

    @cached_property
    def top1(self) -> Estimate | None:
        """The share of the images whose best class is the true one."""
        return self._share("top1", predictions.top1)

    @cached_property
    def top5(self) -> Estimate | None:
        """The share of the images whose true class is among the best five."""
        return self._share("top5", predictions.top5)

    @cached_property
    def agreement(self) -> Estimate | None:
        """The share of the images whose best class is the reference's."""
        return self._share_against_reference("agreement", predictions.agreement)

    @cached_property
    def top1_change(self) -> Estimate | None:
        """Top-1 less the reference's, image by image: below 0 this one is worse."""
        lost = self._share_against_reference("drop", predictions.drop)
        return None if lost is None else negate(lost)

    @cached_property
    def changed_predictions(self) -> Flips | None:
        """The images whose best class is not the reference's."""
        if self._recorded.flips is not None or self.is_reference or self._recorded.complete:
            return self._recorded.flips
        mine, its = self.predictions, self._reference_predictions
        return None if mine is None or its is None else differences.flips(mine, its)

    def _share(self, name: str, share: Callable[[Predictions], ShareEstimate | None]) -> Estimate | None:
        if (recorded := self._recorded.estimates.get(name)) is not None or self.predictions is None:
            return recorded
        found = share(self.predictions)
        return None if found is None else Estimate(found.value, *found.interval)

    def _share_against_reference(
        self, name: str, share: Callable[[Predictions, Predictions], ShareEstimate | None]
    ) -> Estimate | None:
        its = self._reference_predictions
        return self._share(name, lambda mine: None if its is None else share(mine, its))

    @cached_property
    def roofline_share(self) -> float | None:
        """The least time that the machine's ceilings allow one call, over ``run_p50``."""
        roof, run = self.result.roof, self.run_p50
        return None if roof is None or run is None else roof.least_s / run.value

    @property
    def run_p50(self) -> Estimate | None:
        """One run on bound inputs: by the device's clock where it has one, otherwise by the host's."""
        return self.compute_p50 if self.device_p50 is None else self.device_p50

    @cached_property
    def disturbances(self) -> tuple[Reason, ...] | None:
        """What disturbed the measurement; ``None`` where the machine was not recorded."""
        return disturbances(*self._machine)

    @cached_property
    def validity(self) -> Validity | None:
        """Whether the times are reliable, in MLPerf's words; ``None`` of what was not measured, and of cold starts.

        ``INVALID``: the machine was busy, or throttled. ``PRELIMINARY``: there is too little to tell, as of fewer than
        three processes, or of a quick run.
        """
        if self.validity_reason is None:
            return "VALID" if self._is_judged else None
        return "PRELIMINARY" if self.validity_reason.code in PRELIMINARY_CODES else "INVALID"

    @cached_property
    def validity_reason(self) -> Reason | None:
        """Why the times are not valid."""
        if not self._is_judged:
            return None
        if (invalid := find_invalidity(*self._machine)) is not None:
            return invalid
        processes = len(self.result.samples)
        if self.result.load is None and 0 < processes < LEAST_PROCESSES:
            return Reason(
                "processes-too-few",
                f"{processes} process{'' if processes == 1 else 'es'} per configuration; an interval needs at least "
                f"{LEAST_PROCESSES}",
            )
        if self.result.asked.quick:
            return Reason("run-quick", "measured with --quick, in short samples")
        if self.disturbances is None:
            return Reason("machine-not-recorded", "the state of the machine was not recorded")
        return None

    @property
    def _is_judged(self) -> bool:
        """Whether it is a measured result, and not one of cold starts."""
        result = self.result
        measured = bool(result.samples) if result.load is None else result.load.shape != "cold"
        return result.status == "ok" and measured

    @property
    def conditions(self) -> tuple[Conditions | None, ...]:
        """The machine as each process recorded it."""
        result = self.result
        if result.load is None:
            return tuple(process.conditions for process in result.samples)
        return (warnings.conditions_of(result, result.load),)

    @property
    def _device_times(self) -> limits.DeviceTimes | None:
        if self.device_p50 is None:
            return None
        others = (self.enqueue_p50, self.to_device_p50, self.to_host_p50)
        return limits.DeviceTimes(self.device_p50.value, *(None if each is None else each.value for each in others))

    @property
    def gpu_conditions(self) -> tuple[GpuConditions, ...]:
        """The GPU as each process recorded it; empty on a processor."""
        return tuple(each.gpu for each in self.conditions if each is not None and each.gpu is not None)

    @property
    def _machine(self) -> tuple[Sequence[Conditions | None], int, GpuState | None, GpuState | None]:
        """The machine as the processes recorded it, the threads that computed, and the GPU before and after."""
        result, clients = self.result, 1 if self.result.load is None else self.result.load.clients
        return self.conditions, result.ran.threads * clients, result.gpu.before, result.gpu.after

    @cached_property
    def warnings(self) -> tuple[Reason, ...]:
        """What is doubtful about the numbers, each once."""
        found: Iterable[Reason] = ()
        if self.result.load is not None or (self.result.samples and not self._recorded.complete):
            found = (
                *warnings.list_warnings(self.result, self.compute_p50, self.device_p50),
                *limits.list_limits(self._device_times, self.device_idle_share, self.trtexec_ratio),
                *warnings.check_speeds(self.ratio, self._ratio_of_medians),
            )
        return tuple(dict.fromkeys((*self.result.warnings, *found)))


def rate_of(duration: Estimate, images: int) -> Estimate:
    """The images per second of calls that take ``duration`` each."""
    value, low, high = duration.value, duration.low, duration.high
    return Estimate(images / value, None if high is None else images / high, None if low is None else images / low)


def negate(estimate: Estimate) -> Estimate:
    """The estimate of the opposite difference."""
    low, high = estimate.low, estimate.high
    return Estimate(0.0 - estimate.value, None if high is None else 0.0 - high, None if low is None else 0.0 - low)


def has_samples(result: Result) -> bool:
    """Whether any call was timed."""
    return any(sample for process in result.samples for sample in process.latency.samples_s)


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


@lru_cache(maxsize=REMEMBERED)
def estimate_quantiles(processes: Processes, quantiles: Iterable[float], seed: int) -> Mapping[float, Estimate]:
    """Those of the quantiles that there are enough samples for, of all processes together, with intervals if there are
    enough processes."""
    samples = intervals.together(processes)
    given = [q for q in quantiles if intervals.enough_for(samples, q)]
    if not given or sum(map(any, processes)) < LEAST_PROCESSES:
        return {q: Estimate(intervals.quantile(samples, q)) for q in given}
    ends = intervals.quantile_intervals(processes, given, seed)
    return {q: Estimate(intervals.quantile(samples, q), *each) for q, each in zip(given, ends, strict=True)}


def compare_latencies(reference: Result, other: Result, q: float = 0.5) -> LatencyComparison:
    """The ``q``-quantiles of two results: above 1, ``other`` is the faster. Pair by pair if they took turns."""
    paired = took_turns(reference, other)
    return _compare(latencies(reference), latencies(other), paired, other.asked.seed, q)


def took_turns(first: Result, second: Result) -> bool:
    """Whether the two were measured side by side."""
    return first.run == second.run and first.asked.group == second.asked.group is not None


@lru_cache(maxsize=REMEMBERED)
def _compare(reference: Processes, other: Processes, paired: bool, seed: int, q: float) -> LatencyComparison:
    compare = comparison.compare_paired if paired else comparison.compare_unpaired
    return compare(reference, other, seed=seed, q=q)


def _predictions_of(result: Result) -> Predictions | None:
    """The predictions of a result, if it has any. An error names the result, since its file is not known any more."""
    if result.predictions is None:
        return None
    try:
        return packing.unpack_predictions(result.predictions)
    except ArtifactError as error:
        identity = result.identity
        place = f"result of {quote(identity.artifact)} with {quote(identity.backend)}, run {quote(result.run)}"
        raise ArtifactError(f"{place}: {error.what}", code=error.code, hint=error.hint) from error
