"""``rbench run``: every network x batch, and of each all backends and precisions side by side; a result for each."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from benchmarks.analysis.figures import Figures
from benchmarks.harness.eta import RunPlan, workload
from benchmarks.harness.harness import Harness, Trial
from benchmarks.harness.subjects import pairs
from benchmarks.records.request import BenchmarkRequest, Configuration, RunListener, complete_request
from benchmarks.records.result import Result
from runtimes import Artifact
from runtimes.errors import BackendUnavailableError, CheckFailedError
from runtimes.processors import usable_processors


def run(request: BenchmarkRequest, listener: RunListener) -> Generator[Result, None, None]:
    """The results, those of one network and batch together as soon as they are measured. Closing the generator, or an
    interrupt, ends the workers at once; an interrupt gives the results of the processes that were through, first.

    Raises:
        UsageError: an unknown backend or variant, or options that contradict each other.
        RexportError: an artifact or the data cannot be read, or do not go together. All this before any measurement.
    """
    with Harness(complete_request(request), listener) as harness:
        request, subjects = harness.request, harness.make_subjects()
        threads = request.threads or usable_processors()
        trials = [
            Trial(each)
            for subject in subjects
            for sides in [pairs(subject, request)]
            for batch in dict.fromkeys(request.batches or (subject.fixed_batch or 1,))
            for each in _side_by_side(
                [Configuration(pair, batch, threads, request.cuda_graphs) for pair in sides], request
            )
        ]
        harness.announce(_plan(trials, request))
        harness.measure_ceilings()
        later = range(len(trials) - 1, -1, -1)
        yield from harness.measure(
            replace(trial, later_s=(0.0,) * number) for trial, number in zip(trials, later, strict=True)
        )


def _side_by_side(
    configurations: Sequence[Configuration], request: BenchmarkRequest
) -> Iterator[tuple[Configuration, ...]]:
    """The configurations of each trial: all of them on each device; and of several devices, each of them on all at
    once."""
    devices = request.devices
    if len(devices) == 1:
        yield tuple(configurations)
        return
    for device in devices:
        yield tuple(replace(each, device=device) for each in configurations)
    for each in configurations:
        if isinstance(each.pair.opens, Artifact):
            yield tuple(replace(each, device=device, at_once=devices) for device in devices)


def _plan(trials: Sequence[Trial], request: BenchmarkRequest) -> RunPlan:
    """The plan of the trials. Each network is evaluated in its first one."""
    first = {trial.configurations[0].pair.subject.name: trial for trial in reversed(trials)}
    workloads = [
        workload(trial.configurations, subject.weights is not None and trial is first[subject.name])
        for trial in trials
        for subject in [trial.configurations[0].pair.subject]
    ]
    able = [each for trial in trials for each in trial.configurations if isinstance(each.pair.opens, Artifact)]
    precisions = len({each.pair.typed.precision for each in able})
    factors = [(len(first), "network"), (len({each.pair.backend.name for each in able}), "backend")]
    factors += [(precisions, "precision")] if precisions > 1 else []
    factors += [(len({each.batch for each in able}), "batch size")]
    factors += [(len(request.devices), "device")] if len(request.devices) > 1 else []
    return RunPlan(request, tuple(workloads), tuple(factors))


def exit_code(results: Sequence[Figures], request: BenchmarkRequest) -> int:
    """0 if all is well; 1 if a check failed, an image was unreadable, something broke or, with ``strict``, a result is
    invalid or its machine was not recorded; 5 if nothing at all was measured here, or nothing on a backend or in a
    precision that was asked for.

    What a backend cannot run beside others that can, as one precision of several, is told in its result alone.
    """
    measured = [each for each in results if each.result.status == "ok"]
    unreadable = any(each.result.evaluation is not None and each.result.evaluation.unreadable for each in measured)
    if unreadable or any(each.result.status in ("failed", "error") for each in results):
        return CheckFailedError.exit_code
    # Cold starts are not judged: they watch nothing but themselves.
    judged = [each for each in measured if each.result.load is None or each.result.load.shape != "cold"]
    if request.strict and any(each.disturbances is None or each.validity == "INVALID" for each in judged):
        return CheckFailedError.exit_code
    named = {*request.backends, *filter(None, [request.baseline])}
    lacking = named - {each.result.identity.backend for each in measured}
    lacking |= {*request.precisions} - {each.result.identity.precision for each in measured}
    if lacking or not measured:
        return BackendUnavailableError.exit_code
    return 0
