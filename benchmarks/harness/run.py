"""``rbench run``: every network x batch, and of each all backends and precisions side by side; a result for each."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from benchmarks.analysis.figures import Figures
from benchmarks.harness.harness import Harness, Trial
from benchmarks.harness.subjects import pairs
from benchmarks.records.request import BenchmarkRequest, Configuration, RunListener, complete_request
from benchmarks.records.result import Result
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
        harness.measure_ceilings()
        trials = [
            (subject, batch)
            for subject in subjects
            for batch in dict.fromkeys(request.batches or (subject.fixed_batch or 1,))
        ]
        threads = request.threads or usable_processors()
        yield from harness.measure(
            Trial(
                subject,
                tuple(Configuration(pair, batch, threads, request.cuda_graphs) for pair in pairs(subject, request)),
                later_s=(0.0,) * (len(trials) - number),
            )
            for number, (subject, batch) in enumerate(trials, start=1)
        )


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
