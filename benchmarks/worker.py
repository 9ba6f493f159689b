"""One configuration in a process of its own: ``python -m benchmarks.worker JOB.json RESULT.json PREDICTIONS.npz``.

Denormal flags, thread pools, allocators and caches leak from one runtime to the next in one process, so each gets a
fresh one. The order is: open, check the outputs, time them, and only then measure accuracy. No parity, no number.

Standard output carries the steps, one a line, for the parent; what libraries print there goes to standard error.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

import runtimes
from benchmarks import accuracy
from benchmarks.feeds import Batches, as_input, evaluation, only_input, rotation
from benchmarks.job import Job, Outcome, one_line
from benchmarks.measure import Measurement, Plan, measure, timed
from exporter.parity import Comparison, logits_of
from runtimes import files, schema
from runtimes.errors import BackendUnavailableError, CheckFailedError, RexportError
from runtimes.protocol import Arrays

if TYPE_CHECKING:
    from exporter.data import Unreadable
    from runtimes import Runtime

Step: TypeAlias = Callable[[str], None]

DEFAULT_TOLERANCE = 1e-4
"""Of the relative difference, for an artifact whose manifest has test vectors and no parity record."""

REPEAT_TOLERANCE = 1e-3
"""Of the largest value: how far an output of a timed call may be from the same call afterwards."""


def outcome_of(job: Job, predictions: Path, step: Step) -> Outcome:
    """The job done, its predictions written; an exception becomes a status with its reason."""
    try:
        return _work(job, predictions, step)
    except CheckFailedError as error:
        return Outcome("failed", one_line(error))
    except BackendUnavailableError as error:
        return Outcome("skipped", one_line(error))
    except RexportError as error:
        traceback.print_exc()
        return Outcome("error", one_line(error))
    except Exception as error:
        traceback.print_exc()
        return Outcome("error", one_line(f"{type(error).__name__}: {error}"))


def _work(job: Job, predictions: Path, step: Step) -> Outcome:
    step("open")
    baseline = resident_peak_bytes()
    runtime, load_s = timed(lambda: runtimes.open(job.artifact, job.runtime, job.device, job.threads))
    with runtime:
        feeds = rotation(job, runtime)
        step("first call")
        _, first_s = timed(lambda: runtime.infer(feeds[0]))
        step("check")
        note = _check_outputs(runtime, job.batch, feeds)
        step("latency")
        latency = _latency(runtime, feeds, job.plan)
        step("compute")
        compute = _compute(runtime, feeds, job.plan)
        peak = resident_peak_bytes()
        broken: list[Unreadable] = []
        if job.evaluate:
            accuracy.save(_evaluate(job, runtime, broken, step), predictions)
    return Outcome(
        "ok",
        None,
        note,
        runtime.description,
        load_s,
        first_s,
        latency,
        compute,
        peak,
        baseline,
        tuple(one_line(image.label) for image in broken),
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
    tolerance = DEFAULT_TOLERANCE if manifest.parity is None else manifest.parity.tolerance
    logits = logits_of(runtime, vectors.inputs, batch)
    difference = Comparison.of(logits, vectors.logits).relative_difference
    if not difference <= tolerance:
        raise CheckFailedError(
            f"no parity with its test vectors: relative difference {difference:.1e}, at most {tolerance:.1e} is allowed"
        )
    return None


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


def _compute(runtime: Runtime, feeds: Sequence[Arrays], plan: Plan) -> Measurement:
    calls = [runtime.bind(arrays) for arrays in feeds]
    position = -1

    def call() -> None:
        nonlocal position
        position = (position + 1) % len(calls)
        calls[position]()

    return _rounded(measure(call, plan))


def _rounded(measurement: Measurement) -> Measurement:
    """To nanoseconds, which is what the clock tells."""
    return replace(
        measurement,
        warmup_s=tuple(round(sample, 9) for sample in measurement.warmup_s),
        samples_s=tuple(round(sample, 9) for sample in measurement.samples_s),
    )


def _evaluate(job: Job, runtime: Runtime, broken: list[Unreadable], step: Step) -> accuracy.Predictions:
    spec, images_ahead = only_input(runtime), evaluation(job, runtime, broken)

    def reported() -> Batches:
        for indices, images in images_ahead.batches:
            step(f"accuracy {int(indices[0]):,} of {images_ahead.total:,}")
            yield indices, images

    return accuracy.predict(
        lambda images: logits_of(runtime, as_input(spec, images), images_ahead.batch), reported(), images_ahead.targets
    )


def main(arguments: Sequence[str]) -> int:
    """Does the job of the file named first; its outcome goes into the file named second. Exit code 0 if it is there."""
    job_path, result_path, predictions_path = map(Path, arguments)
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def step(name: str) -> None:
        channel.write(name + "\n")

    job = schema.loads(Job, job_path.read_bytes())
    outcome = outcome_of(job, predictions_path, step)
    with files.write_atomically(result_path) as temporary:
        temporary.write_text(schema.dumps(outcome), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
