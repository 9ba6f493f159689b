"""The process of one configuration: ``python -m benchmarks.worker JOB.json RESULT.json PREDICTIONS.npz``.

Denormal flags, thread pools, allocators and caches of one backend affect the next one in the same process, so each
configuration gets a fresh process. It opens the artifact, checks the outputs, times them when the parent asks for it,
and then evaluates the images. If the outputs do not match, nothing is timed. At the end, the backend's profiler reports
the precision in which the model was executed.

Standard output carries the steps, one a line, and replies to the commands on standard input (see
``benchmarks.process.job``). The output of libraries goes to standard error.
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
from benchmarks.machine.gpu_monitor import GpuMonitor
from benchmarks.machine.monitor import MachineMonitor
from benchmarks.process.job import REFUSALS, HungUpError, Job, JobOutcome, Pipes, detach_stdout, status_of
from benchmarks.records.plan import ArrivalPlan
from benchmarks.records.request import is_classifier
from benchmarks.records.result import KernelSummary
from benchmarks.records.samples import LoadResult
from benchmarks.worker import evaluate, kernels, load_generator, served_load, trtexec
from benchmarks.worker.calls import tolerance_of
from benchmarks.worker.clocks import Clocks, OpenedArtifact
from benchmarks.worker.inputs import ROTATION, list_assumptions, make_encoded_call, oddities, rotation
from benchmarks.worker.remote_session import RemoteRuntime
from benchmarks.worker.served_load import ServedRun
from benchmarks.worker.timer import garbage_collector_at_rest, time_call
from exporter.data.dataset import Unreadable
from runtimes import Artifact, Runtime, codec, files
from runtimes.backends import registry
from runtimes.devices import parse_device
from runtimes.errors import BackendUnavailableError, CheckFailedError, Reason, RexportError
from runtimes.parity import compare_at
from runtimes.protocol import Arrays, summarise_precisions

UNFINISHED = Reason("profiler-crashed", "not profiled: the profiler ended the process")
"""The note that is written before profiling, and stays if the profiler ends the process."""

NOT_A_CLASSIFIER = Reason("not-a-classifier", "not a classifier, so it has no accuracy")
"""The note about a model without logits."""

ONE_OUTPUT = Reason("one-output-not-evaluated", "the network has one output, so its accuracy is not measured")
"""The note about a model whose logits are one number, for which predictions have no second class."""

UNVARIED = Reason("outputs-constant", "all inputs give the same output")
"""The warning about a model whose output does not depend on its input."""


def outcomes(job: Job, predictions: Path, wire: Pipes) -> Iterator[JobOutcome]:
    """Yield the outcome of the job each time more is known. Each outcome replaces the one before; the last is complete.

    The predictions are written before the first outcome. An exception becomes a status with its reason. An exception of
    the profiler, which runs when everything is measured, becomes a note.

    Args:
        job: The job.
        predictions: The file for the predictions.
        wire: The pipes to the parent.
    """
    runtime = None
    try:
        wire.step("open")
        alone = not job.number or job.load is not None
        baseline, gpu, machine = resident_peak_bytes(), GpuMonitor(job.device, alone), MachineMonitor()
        runtime, load_s = time_call(lambda: _open(job))
        with runtime:
            wire.wait_for_start()
            outcome, opened = _check(job, runtime, wire, load_s, baseline)
            if job.load is None:
                outcome = _time_turns(
                    outcome, job, Clocks(opened, job.plan, gpu, machine, job.began_s, job.throughput), gpu, wire
                )
            else:
                outcome = replace(outcome, load=_apply_load(job.load, opened, wire, machine, gpu))
            if job.evaluate:
                outcome = _evaluate_accuracy(outcome, job, runtime, predictions, wire)
    except Exception as error:
        yield _describe_failure(error, opened=runtime is not None)
        return
    outcome = _add_trtexec(outcome, job, opened, wire)
    yield from _add_profile(outcome, job, opened.feeds[0], wire)


def _open(job: Job) -> Runtime:
    """Return the opened artifact of the job, or the served model that a load goes to."""
    if job.load is not None and job.load.endpoint is not None:
        return RemoteRuntime(Artifact.read(job.artifact), job.load.endpoint)
    return runtimes.open(
        job.artifact, job.runtime, job.device, job.threads, job.cuda_graphs, streams=job.streams, batch=job.batch
    )


def _apply_load(
    plan: ArrivalPlan, opened: OpenedArtifact, wire: Pipes, machine: MachineMonitor, gpu: GpuMonitor
) -> LoadResult:
    runtime = opened.runtime
    if isinstance(runtime, RemoteRuntime):
        assert runtime.artifact.manifest is not None
        tolerance = tolerance_of(runtime.artifact.manifest)
        return served_load.run(runtime.session, opened, plan, ServedRun(wire.step, machine, tolerance))
    with gpu.turn():
        load = load_generator.run(runtime, opened.feeds, plan, wire.step, watcher=machine)
    conditions = load.conditions and replace(load.conditions, gpu=gpu.conditions())
    return replace(load, conditions=conditions)


def _describe_failure(error: Exception, opened: bool) -> JobOutcome:
    """Return the outcome of a failed job.

    A backend that refuses the file before it is ``opened`` gives the status ``skipped``. Afterwards a mismatch is an
    error.
    """
    status = status_of(error, (BackendUnavailableError,) if opened else REFUSALS)
    if status == "error":
        traceback.print_exception(error)
    if isinstance(error, RexportError):
        return JobOutcome(status, Reason(error.code, one_line(error)))
    reason = Reason("library-failed", f"{type(error).__name__}: {error}")
    return JobOutcome(status, Reason(reason.code, one_line(reason)))


def _add_profile(outcome: JobOutcome, job: Job, feeds: Arrays, wire: Pipes) -> Iterator[JobOutcome]:
    """Yield the outcome, and if the backend has a profiler, the outcome with the result of the profiler."""
    if job.number:  # also a model behind a server, whose backend nobody knows
        yield outcome
        return
    has_profiler = registry.find_backend(job.runtime).profile is not None
    records_kernels = job.device != "cpu" and kernels.can_record()
    if not (has_profiler or records_kernels):
        yield outcome
        return
    yield _add_note(outcome, UNFINISHED)
    wire.step("profile")
    try:
        if records_kernels:
            outcome = replace(outcome, kernels=_record_kernels(job, feeds))
        proven = None if outcome.kernels is None else outcome.kernels.arithmetic
        if proven is None and has_profiler:
            layers = runtimes.profile(job.artifact, feeds, job.runtime, job.device, job.threads, batch=job.batch)
            proven = summarise_precisions(layers)
        yield replace(outcome, arithmetic=proven)
    except Exception as error:  # includes the exception classes of libraries
        traceback.print_exc()
        yield _add_note(outcome, Reason("profiler-failed", f"not profiled: {error}"))


def _record_kernels(job: Job, feeds: Arrays) -> KernelSummary | None:
    """Return the kernels of a run without CUDA graphs, whose replays the profiler may not split into kernels."""
    backend = registry.find_backend(job.runtime).without_graphs or job.runtime
    with runtimes.open(job.artifact, backend, job.device, job.threads, cuda_graphs=False, batch=job.batch) as runtime:
        run = runtime.bind(feeds)
        run()
        return kernels.summarise_kernels(kernels.record_kernels(run))


def _add_trtexec(outcome: JobOutcome, job: Job, opened: OpenedArtifact, wire: Pipes) -> JobOutcome:
    """Return the outcome with the times of ``trtexec``, if they are requested and the backend runs an engine."""
    engine = None if outcome.description is None else outcome.description.compiled
    if job.trtexec is None or job.number or engine is None:
        return outcome
    wire.step("trtexec")
    inputs = [spec for spec in opened.runtime.inputs if not all(isinstance(size, int) for size in spec.shape)]
    shapes = {spec.name: opened.feeds[0][spec.name].shape for spec in inputs}
    try:
        times = trtexec.measure_engine(
            job.trtexec, trtexec.EngineRun(engine, shapes, job.cuda_graphs, parse_device(job.device).index)
        )
    except BackendUnavailableError as error:
        return _add_note(outcome, Reason(error.code, str(error)))
    return replace(outcome, trtexec=times)


def _add_note(outcome: JobOutcome, note: Reason) -> JobOutcome:
    return replace(outcome, notes=(*outcome.notes, Reason(note.code, one_line(note))))


def _check(
    job: Job, runtime: Runtime, wire: Pipes, load_s: float, baseline: int | None
) -> tuple[JobOutcome, OpenedArtifact]:
    """Check the outputs and return the outcome so far, and the opened artifact with its feeds and expected outputs."""
    feeds = rotation(job, runtime)
    wire.step("first call")
    _, first_s = time_call(lambda: runtime.infer(feeds[0]))
    wire.step("check")
    note = _check_outputs(runtime, job.batch, feeds)
    expected = [runtime.infer(arrays) for arrays in feeds]
    warnings = (*oddities(feeds, ROTATION), *list_assumptions(job, runtime.artifact))
    first, *others = expected
    if others and all(np.array_equal(other[name], first[name]) for other in others for name in first):
        warnings = (*warnings, UNVARIED)  # equal to the last bit, as for a graph folded into a constant
    notes = (*(() if note is None else (note,)), *runtime.description.notes)
    outcome = JobOutcome("ok", notes=notes, description=runtime.description, warnings=warnings)
    image = make_encoded_call(job, runtime)
    return outcome, OpenedArtifact(runtime, feeds, expected, image, load_s, first_s, baseline)


def _time_turns(outcome: JobOutcome, job: Job, clocks: Clocks, watch: GpuMonitor, wire: Pipes) -> JobOutcome:
    """Return the outcome with all samples, taken turn by turn as the parent asks, and the state of the GPU."""
    # The inputs of all feeds will be bound twice: for the clock of the host and for that of the device.
    bound_bytes = 2 * sum(array.nbytes for arrays in clocks.opened.feeds for array in arrays.values())
    lead_s = wire.report_open(resident_peak_bytes() or 0, watch.read_memory(bound_bytes))
    with garbage_collector_at_rest():
        wire.step("warm-up")
        wire.ready(clocks.warm_up(lead_s))
        for turn in wire.turns():
            wire.report_turn(clocks.turn(turn))
    outcome = replace(
        outcome,
        sitting=clocks.collect_samples(resident_peak_bytes()),
        gpu_before=clocks.gpu_before,
        gpu_after=watch.last_state,
        device_peak_bytes=clocks.device_peak_bytes,
        description=clocks.opened.runtime.description,  # now with the batch sizes that could not be recorded
    )
    return outcome if job.number else replace(outcome, energy=watch.measure_energy(clocks.bound))


def _evaluate_accuracy(outcome: JobOutcome, job: Job, runtime: Runtime, predictions: Path, wire: Pipes) -> JobOutcome:
    if not is_classifier(runtime.artifact):
        return _add_note(outcome, NOT_A_CLASSIFIER)
    if runtime.outputs[0].shape[1:] == (1,):  # of the logits, as for evaluate
        return _add_note(outcome, ONE_OUTPUT)
    unreadable: list[Unreadable] = []
    predicted, taken_s = time_call(lambda: evaluate.evaluate(job, runtime, unreadable, wire.step))
    accuracy.save(predicted, predictions)
    return replace(
        outcome,
        unreadable=tuple(one_line(image.label) for image in unreadable),
        evaluated_per_s=len(predicted.indices) / taken_s,
    )


def resident_peak_bytes() -> int | None:
    """Return the largest resident memory of this process so far in bytes, or ``None`` if the system does not report it.

    The value is the kernel's high-water mark of this address space. ``ru_maxrss`` would include the memory of the
    parent from before the program was started.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _check_outputs(runtime: Runtime, batch: int, feeds: Sequence[Arrays]) -> Reason | None:
    """Compare the outputs with the test vectors of the artifact, and return a note for the reader or ``None``.

    Raises:
        CheckFailedError: The outputs do not match, or an output is not finite.
    """
    manifest = runtime.artifact.manifest
    if manifest is None or manifest.vectors is None:
        for name, values in runtime.infer(feeds[0]).items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise CheckFailedError(f"output {name!r} is not finite", code="model-output-not-finite")
        return Reason("outputs-not-compared", "no test vectors: the outputs were only checked for finite values")
    vectors = runtime.artifact.vectors()
    tolerance = tolerance_of(manifest)
    for name, difference in compare_at(runtime, vectors, batch).items():
        if not difference.relative_difference <= tolerance:
            raise CheckFailedError(
                f"output {name} does not match the test vectors: relative difference "
                f"{difference.relative_difference:.1e}, limit {tolerance:.1e}",
                code="vectors-not-matched",
            )
    return None


def main(arguments: Sequence[str]) -> int:
    """Do the job and return exit code 0, also if the parent has ended.

    Known results are written before the profiler runs, so that a profiler that ends the process loses none of them.

    Args:
        arguments: The paths of the job, of the outcome and of the predictions.
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
    # Everything is written and the model is closed. A normal exit with PyTorch loaded would take another second.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
