"""Training runs to their end: one after the other on a CPU, side by side on a GPU, which one alone leaves idle."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from benchmarks.format import roughly
from benchmarks.paper.training.loop import Data, Pace, Training, TrainingJob
from benchmarks.paper.training.run import CurvePoint, Run
from exporter.network import ExportListener
from runtimes.errors import CheckFailedError


def drive(jobs: Sequence[TrainingJob], data: Data, listener: ExportListener, pace: Pace) -> list[Run]:
    """Trains them all; runs that are finished already are taken as they are. Blocks for as long as that takes.

    Raises:
        CheckFailedError: the time is over before the runs are; each has written its checkpoint.
        RexportError: a run cannot begin or go on; see ``Training``.
    """
    end_s = math.inf if pace.stop_after_s is None else time.monotonic() + pace.stop_after_s
    if any(job.arithmetic.device == "cuda" for job in jobs):
        return take_turns([Training(job, data, pace) for job in jobs], listener, end_s)
    return [
        run
        for number, job in enumerate(jobs, 1)
        for run in take_turns([Training(job, data, pace)], listener, end_s, f"run {number} of {len(jobs)}")
    ]


def take_turns(trainings: Sequence[Training], listener: ExportListener, end_s: float, title: str = "") -> list[Run]:
    """Takes a stride of each in turn, and finishes each when it is complete. If one fails, the others are kept.

    Raises:
        CheckFailedError: ``time.monotonic()`` is at ``end_s`` before the runs are complete, or a loss is not finite.
    """
    begun, first = time.monotonic(), sum(training.iteration for training in trainings)
    every = sum(training.recipe.iterations for training in trainings)
    while running := [training for training in trainings if not training.complete]:
        for training in running:
            try:
                point = training.advance()
            except CheckFailedError:
                _keep([other for other in running if other is not training])
                raise
            done = sum(training.iteration for training in trainings)
            left = f"{roughly((every - done) * (time.monotonic() - begun) / (done - first))} left"
            doing = f"{title}, {training.run.identity.name}" if title else f"{len(running)} runs side by side"
            listener.step(f"{doing}: {done:,} of {every:,} iterations, {left}")
            if point is not None:
                listener.notice(f"{training.run.identity.name}: {_format_point(point, training)}, {left}")
            if training.complete:
                training.finish()
        unfinished = [training for training in running if not training.complete]
        if time.monotonic() > end_s and unfinished:
            _keep(unfinished)
            reached = ", ".join(f"{training.run.identity.name} at {training.iteration:,}" for training in unfinished)
            hint = "the same command goes on from there"
            raise CheckFailedError(f"the time is over: {reached}", code="training-time-over", hint=hint)
    return [training.finish() for training in trainings]


def _keep(trainings: Sequence[Training]) -> None:
    for training in trainings:
        if not training.complete:
            training.checkpoint()


def _format_point(point: CurvePoint, training: Training) -> str:
    validation = "" if point.validation_error is None else f", validation {point.validation_error:.2%}"
    return (
        f"{point.iteration:,} of {training.recipe.iterations:,}, loss {point.loss:.4f}, "
        f"error {point.train_error:.2%}{validation}, test {point.test_error:.2%}"
    )
