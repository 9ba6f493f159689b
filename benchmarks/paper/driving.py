"""Training runs to their end: one after the other on a CPU, side by side on a GPU, which one alone leaves idle."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.numerals import roughly
from benchmarks.paper.runs import Identity, Point, Run
from benchmarks.paper.stepping import Arithmetic
from benchmarks.paper.training import CHECKPOINT_EVERY_S, Data, Training
from exporter.network import Listener
from runtimes.errors import CheckFailedError


@dataclass(frozen=True)
class Pace:
    """When runs are stopped, and how often they are kept, in seconds; and how many states of a network on its way are
    kept for good."""

    stop_after_s: float | None = None
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    states: int = 0

    def less(self, taken_s: float) -> Pace:
        """What is left of it after so many seconds."""
        return self if self.stop_after_s is None else replace(self, stop_after_s=self.stop_after_s - taken_s)


@dataclass(frozen=True)
class Job:
    """A run to make, or to go on with, in a folder."""

    folder: Path
    identity: Identity
    arithmetic: Arithmetic


def drive(jobs: Sequence[Job], data: Data, listener: Listener, pace: Pace) -> list[Run]:
    """Trains them all; runs that are finished already are taken as they are. Blocks for as long as that takes.

    Raises:
        CheckFailedError: the time is over before the runs are; each has written its checkpoint.
        RexportError: as ``Training``.
    """
    clock = _Clock(pace)
    if any(job.arithmetic.device == "cuda" for job in jobs):
        return _side_by_side(jobs, data, listener, clock)
    return [_alone(job, data, listener, clock, f"run {number} of {len(jobs)}") for number, job in enumerate(jobs, 1)]


class _Clock:
    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._end_s = math.inf if pace.stop_after_s is None else time.monotonic() + pace.stop_after_s

    @property
    def over(self) -> bool:
        return time.monotonic() > self._end_s


def _alone(job: Job, data: Data, listener: Listener, clock: _Clock, place: str) -> Run:
    training = Training(
        job.folder, job.identity, job.arithmetic, data, clock.pace.checkpoint_every_s, clock.pace.states
    )
    begun, first = time.monotonic(), training.iteration
    while not training.complete:
        point = training.advance()
        rate = (training.iteration - first) / (time.monotonic() - begun)
        left = f"{roughly((training.recipe.iterations - training.iteration) / rate)} left"
        listener.step(f"{place}, {job.identity.name}: {training.iteration:,} of {training.recipe.iterations:,}, {left}")
        if point is not None:
            listener.notice(f"{job.identity.name}: {_said(point, training)}, {left}")
        if clock.over:
            _stop([training])
    return training.finish()


def _side_by_side(jobs: Sequence[Job], data: Data, listener: Listener, clock: _Clock) -> list[Run]:
    trainings = [
        Training(job.folder, job.identity, job.arithmetic, data, clock.pace.checkpoint_every_s, clock.pace.states)
        for job in jobs
    ]
    begun, first = time.monotonic(), sum(training.iteration for training in trainings)
    while running := [training for training in trainings if not training.complete]:
        for training in running:
            point = training.advance()
            if point is not None:
                listener.notice(f"{training.run.identity.name}: {_said(point, training)}")
        done = sum(training.iteration for training in trainings)
        every = sum(training.recipe.iterations for training in trainings)
        left = roughly((every - done) * (time.monotonic() - begun) / max(1, done - first))
        listener.step(f"{len(running)} runs side by side: {done:,} of {every:,} iterations, {left} left")
        if clock.over:
            _stop(running)
    return [training.finish() for training in trainings]


def _stop(running: Sequence[Training]) -> None:
    for training in running:
        training.checkpoint()
    left = ", ".join(f"{training.run.identity.name} at {training.iteration:,}" for training in running)
    raise CheckFailedError(f"the time is over: {left}", hint="the same command goes on from there")


def _said(point: Point, training: Training) -> str:
    validation = "" if point.validation_error is None else f", validation {point.validation_error:.2%}"
    return (
        f"{point.iteration:,} of {training.recipe.iterations:,}, loss {point.loss:.4f}, "
        f"error {point.train_error:.2%}{validation}, test {point.test_error:.2%}"
    )
