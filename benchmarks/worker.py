"""One configuration in a process of its own: ``python -m benchmarks.worker JOB.json RESULT.json PREDICTIONS.npz``.

Denormal flags, thread pools, allocators and caches leak from one runtime to the next in one process, so each gets a
fresh one. The order is: open, check the outputs, time them, and only then measure accuracy. No parity, no number.
At last the runtime's own profiler is asked in what arithmetic it all ran.

Standard output carries the steps, one a line, for the parent; what libraries print there goes to standard error.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np

import runtimes
from benchmarks import accuracy
from benchmarks.feeds import Batches, evaluation, rotation
from benchmarks.gpu import Watch
from benchmarks.job import Job, Outcome, one_line
from benchmarks.measure import Measurement, Plan, measure, reported, timed
from runtimes import files, schema
from runtimes.errors import BackendUnavailableError, CheckFailedError, CompatibilityError, RexportError
from runtimes.parity import Comparison, logits_of
from runtimes.protocol import Arrays, executed

if TYPE_CHECKING:
    from exporter.data import Unreadable
    from runtimes import Manifest, Runtime

Step: TypeAlias = Callable[[str], None]
T = TypeVar("T")

DEFAULT_TOLERANCE = 1e-4
"""Of the relative difference, for an artifact whose manifest has test vectors and no parity record."""

REPEAT_TOLERANCE = 1e-3
"""Of the largest value: how far an output of a timed call may be from the same call afterwards."""


NOT_PROFILED = "not profiled: "
UNFINISHED = f"{NOT_PROFILED}its profiler ended the process"


def outcomes(job: Job, predictions: Path, step: Step) -> Iterator[Outcome]:
    """What came of the job, as it becomes known: each replaces the one before. The last one is complete.

    The predictions are written before the first. An exception becomes a status with its reason; one of the profiler,
    which is asked when all is measured, becomes a note.
    """
    outcome, feeds = _measured(job, predictions, step)
    if feeds is None or not any(row.name == job.runtime and row.profile for row in runtimes.backends()):
        yield outcome
        return
    yield _noted(outcome, UNFINISHED)
    step("profile")
    try:
        layers = runtimes.profile(job.artifact, feeds, job.runtime, job.device, job.threads)
        yield replace(outcome, arithmetic=executed(layers))
    except Exception as error:  # a library's own kinds among them
        traceback.print_exc()
        yield _noted(outcome, one_line(f"{NOT_PROFILED}{error}"))


def _noted(outcome: Outcome, note: str) -> Outcome:
    return replace(outcome, note="; ".join(filter(None, (outcome.note, note))))


def _measured(job: Job, predictions: Path, step: Step) -> tuple[Outcome, Arrays | None]:
    """The outcome but for the profile, and feeds for that, where there is something to profile."""
    try:
        return _work(job, predictions, step)
    except CheckFailedError as error:
        return Outcome("failed", one_line(error)), None
    except (BackendUnavailableError, _CannotRunError) as error:
        return Outcome("skipped", one_line(error)), None
    except RexportError as error:
        traceback.print_exc()
        return Outcome("error", one_line(error)), None
    except Exception as error:
        traceback.print_exc()
        return Outcome("error", one_line(f"{type(error).__name__}: {error}")), None


class _CannotRunError(Exception):
    """The runtime is there and does not take this file: nothing broke."""


def _open(job: Job) -> Runtime:
    try:
        return runtimes.open(job.artifact, job.runtime, job.device, job.threads, job.cuda_graphs)
    except CompatibilityError as error:
        raise _CannotRunError(str(error)) from error


def _work(job: Job, predictions: Path, step: Step) -> tuple[Outcome, Arrays]:
    step("open")
    baseline, watch = resident_peak_bytes(), Watch(job.device)
    runtime, load_s = timed(lambda: _open(job))
    with runtime:
        feeds = rotation(job, runtime)
        step("first call")
        _, first_s = timed(lambda: runtime.infer(feeds[0]))
        step("check")
        note = _check_outputs(runtime, job.batch, feeds)
        outcome = Outcome("ok", None, note, runtime.description, load_s, first_s, baseline_bytes=baseline)
        outcome = _timed(outcome, job, runtime, feeds, watch, step)
        broken: list[Unreadable] = []
        if job.evaluate:
            accuracy.save(_evaluate(job, runtime, broken, step), predictions)
    return replace(outcome, unreadable=tuple(one_line(image.label) for image in broken)), feeds[0]


def _timed(outcome: Outcome, job: Job, runtime: Runtime, feeds: Sequence[Arrays], watch: Watch, step: Step) -> Outcome:
    """The outcome with all that is timed, and how the GPU was meanwhile."""
    before = watch.look()
    step("latency")
    latency = _latency(runtime, feeds, job.plan)
    watch.look()
    device_peak_bytes = watch.peak_bytes()  # what is bound from here on is on the device once for each feed
    step("compute")
    compute, run_j = _compute(runtime, feeds, job.plan, watch)
    device = _device(runtime, feeds, replace(job.plan, max_samples=len(compute.samples_s)), step)
    after = watch.look()
    return replace(
        outcome,
        latency=latency,
        compute=compute,
        device=device,
        peak_bytes=resident_peak_bytes(),
        gpu_before=before,
        gpu_after=after,
        device_peak_bytes=device_peak_bytes,
        energy_per_image_j=None if run_j is None else run_j / job.batch,
    )


def resident_peak_bytes() -> int | None:
    """The largest resident memory of this process so far, or ``None`` where the system does not tell.

    The kernel's high-water mark of this very address space: ``ru_maxrss`` would count the parent's, from before the
    program was started.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _check_outputs(runtime: Runtime, batch: int, feeds: Sequence[Arrays]) -> str | None:
    """Compares with the artifact's test vectors. What a reader must be told, or ``None``.

    Raises:
        CheckFailedError: no parity, or an output that is not finite.
    """
    manifest = runtime.artifact.manifest
    if manifest is None or manifest.vectors is None:
        _check_finite(runtime, feeds[0])
        return "no test vectors: the outputs were only checked to be finite"
    vectors = runtime.artifact.vectors()
    tolerance = _tolerance(manifest)
    logits = logits_of(runtime, vectors.inputs, batch)
    difference = Comparison.of(logits, vectors.logits).relative_difference
    if not difference <= tolerance:
        raise CheckFailedError(
            f"no parity with its test vectors: relative difference {difference:.1e}, at most {tolerance:.1e} is allowed"
        )
    return None


def _tolerance(manifest: Manifest) -> float:
    """What parity allows the artifact's logits."""
    if manifest.parity is not None:
        return manifest.parity.tolerance
    told = None if manifest.engine is None else manifest.engine.tolerance
    return DEFAULT_TOLERANCE if told is None else told


def _check_finite(runtime: Runtime, feeds: Arrays) -> None:
    for name, values in runtime.infer(feeds).items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise CheckFailedError(f"output {name!r} is not finite")


class _Rotating:
    """A call that takes the feeds in turn and keeps its last outputs."""

    def __init__(self, runtime: Runtime, feeds: Sequence[Arrays]) -> None:
        self._infer = runtime.infer
        self._feeds = feeds
        self.position = -1
        self.outputs: Arrays = {}

    def __call__(self) -> None:
        self.position = (self.position + 1) % len(self._feeds)
        self.outputs = self._infer(self._feeds[self.position])


def _latency(runtime: Runtime, feeds: Sequence[Arrays], plan: Plan) -> Measurement:
    """Times ``infer``, then repeats its last call: a timed call must have given what an untimed one gives."""
    call = _Rotating(runtime, feeds)
    measurement = measure(call, plan)
    timed_outputs, position = call.outputs, call.position
    runtime.infer(feeds[position - 1])
    for name, values in runtime.infer(feeds[position]).items():
        slack = REPEAT_TOLERANCE * float(np.abs(values).max(initial=0))
        if not np.allclose(timed_outputs[name], values, rtol=0, atol=slack):
            raise CheckFailedError(f"output {name!r} of the last timed call is not what the same call gives afterwards")
    return _rounded(measurement)


def _compute(runtime: Runtime, feeds: Sequence[Arrays], plan: Plan, watch: Watch) -> tuple[Measurement, float | None]:
    """The runs on feeds that lie on the device, and the joules that a GPU used for one of them: the mean of these runs,
    the warm-up's too, and of as many after them as its counter needs."""
    call = _InTurn([runtime.bind(arrays) for arrays in feeds])
    measurement, spent_j = watch.spent(lambda: measure(call, plan), call)
    return _rounded(measurement), None if spent_j is None else spent_j / call.made


def _device(runtime: Runtime, feeds: Sequence[Arrays], plan: Plan, step: Step) -> Measurement | None:
    """The same runs by the device's own clock; ``None`` if it has none.

    As many at most as were timed by the host's clock: where the host takes longer to start a run than the device to do
    it, the device's durations alone would take for ever to add up.
    """
    calls = [call for arrays in feeds if (call := runtime.bind_timed(arrays)) is not None]
    if not calls:
        return None
    step("device")
    return _rounded(reported(_InTurn(calls), plan))


class _InTurn(Generic[T]):
    """A call that makes each of the calls in turn, and gives what it gave. ``made`` is how many it has made."""

    def __init__(self, calls: Sequence[Callable[[], T]]) -> None:
        self._calls = calls
        self.made = 0

    def __call__(self) -> T:
        call = self._calls[self.made % len(self._calls)]
        self.made += 1
        return call()


def _rounded(measurement: Measurement) -> Measurement:
    """To nanoseconds, which is what the clock tells."""
    return replace(
        measurement,
        warmup_s=tuple(round(sample, 9) for sample in measurement.warmup_s),
        samples_s=tuple(round(sample, 9) for sample in measurement.samples_s),
    )


def _evaluate(job: Job, runtime: Runtime, broken: list[Unreadable], step: Step) -> accuracy.Predictions:
    images_ahead = evaluation(job, runtime, broken)

    def reported() -> Batches:
        for indices, images in images_ahead.batches:
            step(f"accuracy {int(indices[0]):,} of {images_ahead.total:,}")
            yield indices, images

    return accuracy.predict(
        lambda images: logits_of(runtime, images, images_ahead.batch), reported(), images_ahead.targets
    )


def main(arguments: Sequence[str]) -> int:
    """Does the job of the file named first; its outcome goes into the file named second. Exit code 0 if it is there.

    What is known is written before the profiler runs, so that one that ends the process takes no number with it.
    """
    job_path, result_path, predictions_path = map(Path, arguments)
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def step(name: str) -> None:
        channel.write(name + "\n")

    job = schema.loads(Job, job_path.read_bytes())
    for outcome in outcomes(job, predictions_path, step):
        with files.write_atomically(result_path) as temporary:
            temporary.write_text(schema.dumps(outcome), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
