"""Training runs to their end: one after the other on a CPU, side by side on a GPU, which one alone leaves idle."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.format import roughly
from benchmarks.paper.training.loop import Data, Pace, Training
from benchmarks.paper.training.run import CurvePoint, Identity, Run
from benchmarks.paper.training.step import Arithmetic
from exporter.network import ExportListener
from runtimes.errors import CheckFailedError


@dataclass(frozen=True)
class TrainingJob:
    """A run to make, or to go on with, in a folder."""

    folder: Path
    identity: Identity
    arithmetic: Arithmetic


def drive(jobs: Sequence[TrainingJob], data: Data, listener: ExportListener, pace: Pace) -> list[Run]:
    """Trains them all; runs that are finished already are taken as they are. Blocks for as long as that takes.

    Raises:
        CheckFailedError: the time is over before the runs are; each has written its checkpoint.
        RexportError: as ``Training``.
    """
    if any(job.arithmetic.device == "cuda" for job in jobs):
        return _side_by_side(jobs, data, listener, pace)
    begun_s = time.monotonic()
    return [
        _alone(job, data, listener, pace.subtract(time.monotonic() - begun_s), f"run {number} of {len(jobs)}")
        for number, job in enumerate(jobs, 1)
    ]


class _Clock:
    def __init__(self, pace: Pace) -> None:
        self._end_s = math.inf if pace.stop_after_s is None else time.monotonic() + pace.stop_after_s

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._end_s


def _begin_training(job: TrainingJob, data: Data, pace: Pace) -> Training:
    return Training(job.folder, job.identity, job.arithmetic, data, pace)


def _alone(job: TrainingJob, data: Data, listener: ExportListener, pace: Pace, place: str) -> Run:
    training, clock = _begin_training(job, data, pace), _Clock(pace)
    begun, first = time.monotonic(), training.iteration
    while not training.complete:
        point = training.advance()
        rate = (training.iteration - first) / (time.monotonic() - begun)
        left = f"{roughly((training.recipe.iterations - training.iteration) / rate)} left"
        listener.step(f"{place}, {job.identity.name}: {training.iteration:,} of {training.recipe.iterations:,}, {left}")
        if point is not None:
            listener.notice(f"{job.identity.name}: {_format_point(point, training)}, {left}")
        if clock.is_over and not training.complete:
            _stop([training])
    return training.finish()


def _side_by_side(jobs: Sequence[TrainingJob], data: Data, listener: ExportListener, pace: Pace) -> list[Run]:
    """Takes a stride of each in turn, and finishes each when it is complete. If one fails, the others are kept."""
    clock = _Clock(pace)
    trainings = [_begin_training(job, data, pace) for job in jobs]
    begun, first = time.monotonic(), sum(training.iteration for training in trainings)
    every = sum(training.recipe.iterations for training in trainings)
    while running := [training for training in trainings if not training.complete]:
        done = sum(training.iteration for training in trainings)
        left = f"{roughly((every - done) * (time.monotonic() - begun) / max(1, done - first))} left"
        listener.step(f"{len(running)} runs side by side: {done:,} of {every:,} iterations, {left}")
        for training in running:
            try:
                point = training.advance()
            except CheckFailedError:
                _keep(other for other in running if other is not training and not other.complete)
                raise
            if point is not None:
                listener.notice(f"{training.run.identity.name}: {_format_point(point, training)}, {left}")
            if training.complete:
                training.finish()
        if clock.is_over:
            _stop([training for training in running if not training.complete])
    return [training.finish() for training in trainings]


def _keep(trainings: Iterable[Training]) -> None:
    for training in trainings:
        training.checkpoint()


def _stop(running: Sequence[Training]) -> None:
    """Leaves with checkpoints written, if anything is left to do."""
    _keep(running)
    if running:
        left = ", ".join(f"{training.run.identity.name} at {training.iteration:,}" for training in running)
        raise CheckFailedError(f"the time is over: {left}", hint="the same command goes on from there")


def _format_point(point: CurvePoint, training: Training) -> str:
    validation = "" if point.validation_error is None else f", validation {point.validation_error:.2%}"
    return (
        f"{point.iteration:,} of {training.recipe.iterations:,}, loss {point.loss:.4f}, "
        f"error {point.train_error:.2%}{validation}, test {point.test_error:.2%}"
    )
