"""One process of one configuration: ``python -m benchmarks.worker JOB.json RESULT.json PREDICTIONS.npz``.

Denormal flags, thread pools, allocators and caches leak from one runtime to the next in one process, so each gets a
fresh one. The order is: open, check the outputs, time them when it is told to, and only then measure accuracy. No
parity, no number. At last the runtime's own profiler is asked in what arithmetic it all ran.

Standard output carries the steps, one a line, and answers to what the parent says on standard input (see
``benchmarks.process.job``); what libraries print there goes to standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import runtimes
from benchmarks.accuracy import predictions as accuracy
from benchmarks.format import one_line
from benchmarks.machine.gpu import GpuMonitor
from benchmarks.machine.monitor import MachineMonitor
from benchmarks.process.job import REFUSALS, HungUpError, Job, JobOutcome, Pipes, detach_stdout, status_of
from benchmarks.worker import evaluate, load_generator
from benchmarks.worker.clocks import Clocks, OpenedArtifact
from benchmarks.worker.inputs import ROTATION, make_encoded_call, oddities, rotation
from benchmarks.worker.timer import garbage_collector_at_rest, time_call
from exporter.data.dataset import Unreadable
from runtimes import Manifest, Runtime, codec, files
from runtimes.backends import registry
from runtimes.errors import BackendUnavailableError, CheckFailedError, Reason, RexportError
from runtimes.parity import LogitComparison, logits_of
from runtimes.protocol import Arrays, summarise_precisions

DEFAULT_TOLERANCE = 1e-4
"""Of the relative difference, for an artifact whose manifest has test vectors and no parity record."""

UNFINISHED = Reason("profiler-crashed", "not profiled: its profiler ended the process")

UNVARIED = Reason("outputs-constant", "all the inputs gave the same output")


def outcomes(job: Job, predictions: Path, wire: Pipes) -> Iterator[JobOutcome]:
    """What came of the job, as it becomes known: each replaces the one before. The last one is complete.

    The predictions are written before the first. An exception becomes a status with its reason; one of the profiler,
    which is asked when all is measured, becomes a note.
    """
    runtime = None
    try:
        wire.step("open")
        baseline, gpu, machine = resident_peak_bytes(), GpuMonitor(job.device), MachineMonitor()
        runtime, load_s = time_call(
            lambda: runtimes.open(job.artifact, job.runtime, job.device, job.threads, job.cuda_graphs)
        )
        with runtime:
            wire.wait_for_start()
            outcome, opened = _check(job, runtime, wire, load_s, baseline)
            if job.load is None:
                outcome = _time_turns(outcome, job, Clocks(opened, job.plan, gpu, machine, job.began_s), gpu, wire)
            else:
                load = load_generator.run(runtime, opened.feeds, job.load, wire.step, watcher=machine)
                outcome = replace(outcome, load=load)
            if job.evaluate:
                outcome = _evaluate_accuracy(outcome, job, runtime, predictions, wire)
    except Exception as error:
        yield _describe_failure(error, opened=runtime is not None)
        return
    yield from _add_profile(outcome, job, opened.feeds[0], wire)


def _describe_failure(error: Exception, opened: bool) -> JobOutcome:
    """The outcome of a job that was not done. A runtime that is there and does not take the file broke nothing; once
    it has taken the file, a mismatch is an error."""
    status = status_of(error, (BackendUnavailableError,) if opened else REFUSALS)
    if status == "error":
        traceback.print_exception(error)
    if isinstance(error, RexportError):
        return JobOutcome(status, Reason(error.code, one_line(error)))
    reason = Reason("library-failed", f"{type(error).__name__}: {error}")
    return JobOutcome(status, Reason(reason.code, one_line(reason)))


def _add_profile(outcome: JobOutcome, job: Job, feeds: Arrays, wire: Pipes) -> Iterator[JobOutcome]:
    """The outcome; and where the runtime has a profiler, once more with what that told."""
    if job.number or registry.find_backend(job.runtime).profile is None:
        yield outcome
        return
    yield _add_note(outcome, UNFINISHED)
    wire.step("profile")
    try:
        layers = runtimes.profile(job.artifact, feeds, job.runtime, job.device, job.threads)
        yield replace(outcome, arithmetic=summarise_precisions(layers))
    except Exception as error:  # a library's own kinds among them
        traceback.print_exc()
        yield _add_note(outcome, Reason("profiler-failed", f"not profiled: {error}"))


def _add_note(outcome: JobOutcome, note: Reason) -> JobOutcome:
    return replace(outcome, notes=(*outcome.notes, Reason(note.code, one_line(note))))


def _check(
    job: Job, runtime: Runtime, wire: Pipes, load_s: float, baseline: int | None
) -> tuple[JobOutcome, OpenedArtifact]:
    """The outcome so far, and the runtime with its feeds and what they give, after the check of its outputs."""
    feeds = rotation(job, runtime)
    wire.step("first call")
    _, first_s = time_call(lambda: runtime.infer(feeds[0]))
    wire.step("check")
    note = _check_outputs(runtime, job.batch, feeds)
    expected = [runtime.infer(arrays) for arrays in feeds]
    warnings = oddities(feeds, ROTATION)
    first, *others = expected
    if others and all(np.array_equal(other[name], first[name]) for other in others for name in first):
        warnings = (*warnings, UNVARIED)  # to the last bit, as a graph does that has been folded into a constant
    notes = () if note is None else (note,)
    outcome = JobOutcome("ok", notes=notes, description=runtime.description, warnings=warnings)
    image = make_encoded_call(job, runtime)
    return outcome, OpenedArtifact(runtime, feeds, expected, image, load_s, first_s, baseline)


def _time_turns(outcome: JobOutcome, job: Job, clocks: Clocks, watch: GpuMonitor, wire: Pipes) -> JobOutcome:
    """The outcome with all that is timed, turn by turn as the parent says, and how the GPU was meanwhile."""
    wire.report_open(resident_peak_bytes() or 0)
    with garbage_collector_at_rest():
        wire.step("warm-up")
        wire.ready(clocks.warm_up())
        for turn in wire.turns():
            wire.report_turn(clocks.turn(turn))
    after = watch.read_state()
    outcome = replace(
        outcome,
        sitting=clocks.collect_samples(resident_peak_bytes()),
        gpu_before=clocks.gpu_before,
        gpu_after=after,
        device_peak_bytes=clocks.device_peak_bytes,
    )
    if job.number:
        return outcome
    made = clocks.bound.made
    _, spent_j = watch.measure_energy(clocks.bound, clocks.bound)
    images = (clocks.bound.made - made) * job.batch
    return replace(outcome, energy_per_image_j=None if spent_j is None else spent_j / images)


def _evaluate_accuracy(outcome: JobOutcome, job: Job, runtime: Runtime, predictions: Path, wire: Pipes) -> JobOutcome:
    broken: list[Unreadable] = []
    answers, taken_s = time_call(lambda: evaluate.evaluate(job, runtime, broken, wire.step))
    accuracy.save(answers, predictions)
    return replace(
        outcome,
        unreadable=tuple(one_line(image.label) for image in broken),
        evaluated_per_s=len(answers.indices) / taken_s,
    )


def resident_peak_bytes() -> int | None:
    """The largest resident memory of this process so far, or ``None`` where the system does not tell.

    The kernel's high-water mark of this very address space: ``ru_maxrss`` would count the parent's, from before the
    program was started.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _check_outputs(runtime: Runtime, batch: int, feeds: Sequence[Arrays]) -> Reason | None:
    """Compares with the artifact's test vectors. What a reader must be told, or ``None``.

    Raises:
        CheckFailedError: no parity, or an output that is not finite.
    """
    manifest = runtime.artifact.manifest
    if manifest is None or manifest.vectors is None:
        for name, values in runtime.infer(feeds[0]).items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise CheckFailedError(f"output {name!r} is not finite", code="model-output-not-finite")
        return Reason("outputs-not-compared", "no test vectors: the outputs were only checked to be finite")
    vectors = runtime.artifact.vectors()
    tolerance = _tolerance(manifest)
    logits = logits_of(runtime, vectors.inputs, batch)
    difference = LogitComparison.compare(logits, vectors.logits).relative_difference
    if not difference <= tolerance:
        raise CheckFailedError(
            f"no parity with its test vectors: relative difference {difference:.1e}, at most {tolerance:.1e} is "
            "allowed",
            code="vectors-not-matched",
        )
    return None


def _tolerance(manifest: Manifest) -> float:
    """What parity allows the artifact's logits."""
    if manifest.parity is not None:
        return manifest.parity.tolerance
    told = None if manifest.engine is None else manifest.engine.tolerance
    return DEFAULT_TOLERANCE if told is None else told


def main(arguments: Sequence[str]) -> int:
    """Does the job of the file named first; its outcome goes into the file named second. Exit code 0 if it is there,
    or if the parent has gone.

    What is known is written before the profiler runs, so that one that ends the process takes no number with it.
    """
    job_path, result_path, predictions_path = map(Path, arguments)
    channel = detach_stdout()
    job = codec.loads(Job, job_path.read_bytes())
    with contextlib.suppress(HungUpError):
        for outcome in outcomes(job, predictions_path, channel):
            with files.write_atomically(result_path) as temporary:
                temporary.write_text(codec.dumps(outcome), encoding="utf-8")
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # All is written and the model is closed: taking an interpreter with PyTorch in it apart would take a second more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
