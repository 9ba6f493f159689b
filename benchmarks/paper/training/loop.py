"""Training runs under way: updates, points of the curve, checkpoints, and their end.

They run one after the other on a CPU, side by side on a GPU, which one alone leaves idle.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.format import roughly
from benchmarks.paper.training import run as runs
from benchmarks.paper.training.batches import Data, Feed
from benchmarks.paper.training.run import CurvePoint, FinalErrors, Run, RunIdentity, TrainingProgress, TrainingSegment
from benchmarks.paper.training.step import Arithmetic, Stepper
from benchmarks.paper.training.tensor_file import encode_tensors
from benchmarks.records.findings import write_record
from exporter.export_request import ExportListener
from exporter.models.resnet import build, initialise
from runtimes import codec, files
from runtimes.errors import ArtifactError, CheckFailedError

STRIDE = 10
"""Updates between two looks at the clock, and those whose training error decides whether the warm-up is over."""

CHECKPOINT_EVERY_S = 30.0
"""So much work is lost at the most by a kill, unless a command says otherwise."""

POINTS = 60
"""Points of a curve, about: evaluating more often would cost more than it shows."""

_TIMED = 20
"""Steps, and makings of a batch, that are timed at the most to know what share the input takes."""


@dataclass(frozen=True)
class TrainingJob:
    """A run to make, or to go on with, in a folder."""

    folder: Path
    identity: RunIdentity
    arithmetic: Arithmetic


@dataclass(frozen=True)
class Pace:
    """When runs are stopped, and how often they are kept, in seconds; and how many states of a network on its way are
    kept for good, spread evenly, beside one of the beginning."""

    stop_after_s: float | None = None
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    states: int = 0


class Training:
    """A run that is under way in a folder.

    ``advance`` does a little of it, so that several can take turns; ``finish`` ends it. Killed at any moment, the
    next ``Training`` of the same folder goes on from the last checkpoint and ends in the same bits, on a CPU with the
    same arithmetic, threads and versions; ``Run.sittings`` tells where these changed.
    """

    def __init__(self, job: TrainingJob, data: Data, pace: Pace) -> None:
        """Begins, or goes on. Raises ``RexportError`` if the folder holds another run or damaged files, or cannot be
        written."""
        identity, corpus = job.identity, data.corpus
        files.check_writable(job.folder)
        self.folder = job.folder
        self.data = data
        self.recipe = identity.recipe
        self._pace = pace
        if (job.folder / runs.RUN).exists():
            self.run = runs.open_run(job.folder)
            runs.check_same(job.folder, self.run.identity, identity)
        else:
            self.run = Run(identity, corpus.name, corpus.classes, corpus.counts, *data.moments, sittings=())
        self.points: list[CurvePoint] = []
        self.iteration = 0
        self._warm = identity.recipe.begins_warm(identity.variant)
        self._since = 0
        self._elapsed_s = self.run.elapsed_s
        self._started_s = self._kept_s = time.monotonic()
        if self.finished:
            self.points = list(runs.curve(job.folder))
            self.iteration = identity.recipe.iterations
            (job.folder / runs.CHECKPOINT).unlink(missing_ok=True)
            return
        model = build(identity.variant)
        initialise(model, identity.seed)  # before it moves: every device begins with the same numbers
        model = model.to(device=job.arithmetic.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        feed = Feed(data.train, identity.recipe.batch, identity.seed)
        self._stepper = Stepper(model, feed, identity.recipe, job.arithmetic)
        self._stepper.record()
        self._resume()
        if pace.states and self.iteration == 0:
            self._keep_state()

    @property
    def finished(self) -> bool:
        """Whether the weights are there."""
        return self.run.outcome is not None

    @property
    def complete(self) -> bool:
        """Whether all updates are made."""
        return self.iteration >= self.recipe.iterations

    @property
    def learning_rate(self) -> float:
        """The learning rate of the latest update."""
        return self._stepper.rate

    @property
    def _epoch_and_step(self) -> tuple[int, int]:
        return divmod(self.iteration, self._stepper.feed.steps)

    @property
    def _total_s(self) -> float:
        """Seconds of all processes that worked on the run."""
        return self._elapsed_s + (time.monotonic() - self._started_s)

    def advance(self) -> CurvePoint | None:
        """Up to ``STRIDE`` updates; a point of the curve if one is due. On a GPU the updates are only begun. Raises
        ``CheckFailedError`` if the loss is not finite any more."""
        feed, stepper = self._stepper.feed, self._stepper
        epoch, step = self._epoch_and_step
        if step == 0:
            with stepper.queue():
                feed.begin(epoch)
        end = min(step + STRIDE, feed.steps, step + self.recipe.iterations - self.iteration)
        before, wrong_before = self.iteration, self._wrong() if self._warm else 0.0
        for _ in range(step, end):
            stepper.set_rate(self.recipe.rate(self.iteration, self._warm))
            stepper.step()
            self.iteration += 1
            self._since += 1
        if self._warm:
            self._warm = (self._wrong() - wrong_before) / (end - step) >= self.recipe.warmup_error
        due = [iteration * self._pace.states // self.recipe.iterations for iteration in (before, self.iteration)]
        if due[0] < due[1]:
            self._keep_state()
        epoch, step = self._epoch_and_step
        at_point = step == 0 and epoch % max(1, round(self.recipe.iterations / feed.steps / POINTS)) == 0
        point = self._add_point() if at_point or self.complete else None
        if time.monotonic() - self._kept_s > self._pace.checkpoint_every_s and not self.complete:
            self.checkpoint()
        return point

    def _keep_state(self) -> None:
        (self.folder / runs.STATES).mkdir(exist_ok=True)
        with files.write_atomically(self.folder / runs.STATES / f"{self.iteration:07d}.safetensors") as temporary:
            temporary.write_bytes(encode_tensors(runs.model_state(self._stepper.state_on_host())))

    def _wrong(self) -> float:
        """The sum of the updates' training errors since the last point. Waits for the device."""
        with self._stepper.queue():
            return float(self._stepper.sums[1])

    def _means(self) -> tuple[float, float]:
        """Mean loss and error since the last point. Waits for the device. Raises ``CheckFailedError`` where the loss is
        not finite."""
        with self._stepper.queue():
            loss, wrong = (self._stepper.sums / max(1, self._since)).tolist()
        if not math.isfinite(loss):
            raise CheckFailedError(
                f"{self.run.identity.name}: the loss is not finite at iteration {self.iteration:,}",
                code="loss-not-finite",
                path=self.folder,
                hint="another seed, or fp32",
            )
        return loss, wrong

    def _add_point(self) -> CurvePoint:
        loss, train_error = self._means()
        point = CurvePoint(
            iteration=self.iteration,
            epoch=round(self.iteration / self._stepper.feed.steps, 4),
            learning_rate=self.learning_rate,
            loss=loss,
            train_error=train_error,
            validation_error=self._stepper.error(self.data.validation) if len(self.data.validation) else None,
            test_error=self._stepper.error(self.data.test),
            elapsed_s=round(self._total_s, 3),
        )
        self.points.append(point)
        with self._stepper.queue():
            self._stepper.sums.zero_()
        self._since = 0
        runs.write_curve(self.folder, self.points)
        return point

    def checkpoint(self) -> None:
        """Writes all that the run needs to go on. Waits for the device. Raises ``CheckFailedError`` if the loss is not
        finite any more; the checkpoint before stays."""
        self._means()
        progress = TrainingProgress(self.iteration, self._warm, self._since, self._total_s, tuple(self.points))
        metadata = {"identity": codec.dumps(self.run.identity), "progress": codec.dumps(progress)}
        with files.write_atomically(self.folder / runs.CHECKPOINT) as temporary:
            temporary.write_bytes(encode_tensors(self._stepper.state_on_host(), metadata))
        self._kept_s = time.monotonic()

    def _resume(self) -> None:
        """Goes to the last checkpoint, if there is one, and notes what computes from there on."""
        path = self.folder / runs.CHECKPOINT
        if path.exists():
            identity, progress, tensors = runs.read_checkpoint(path)
            runs.check_same(self.folder, identity, self.run.identity)
            unmatched = set(self._stepper.state()) ^ set(tensors)
            if unmatched:
                raise ArtifactError(
                    f"not a checkpoint of this network: {min(unmatched)!r} has no partner",
                    code="checkpoint-of-another-network",
                    path=path,
                )
            self._stepper.restore(tensors)
            self.iteration, self._warm, self._since = progress.iteration, progress.warm, progress.since
            self._elapsed_s = progress.elapsed_s
            self.points = list(progress.points)
        runs.write_curve(self.folder, self.points)
        arithmetic = self._stepper.arithmetic
        now = TrainingSegment(
            self.iteration, arithmetic, torch.get_num_threads(), runs.machine(arithmetic), runs.versions()
        )
        past = tuple(segment for segment in self.run.sittings if segment.since < self.iteration)
        segments = past if past and replace(now, since=past[-1].since) == past[-1] else (*past, now)
        if segments != self.run.sittings:
            self.run = replace(self.run, sittings=segments)
            write_record(self.run, self.folder / runs.RUN)
        with self._stepper.queue():
            self._stepper.feed.begin(*self._epoch_and_step)

    def finish(self) -> Run:
        """Evaluates the trained network and writes its weights and what came out; does nothing the second time."""
        if self.finished:
            return self.run
        train_error, last = self._stepper.error(self.data.train), self.points[-1]
        weights = runs.model_state(self._stepper.state_on_host())
        step_s, input_share = self._costs()
        with files.write_atomically(self.folder / runs.WEIGHTS) as temporary:
            origin = {"variant": self.run.identity.variant.name, "data": self.run.data}
            temporary.write_bytes(encode_tensors(weights, {**origin, "recipe": self.recipe.describe()}))
        self.run = replace(
            self.run,
            step_s=step_s,
            input_share=input_share,
            elapsed_s=round(self._total_s, 1),
            outcome=FinalErrors(train_error, last.validation_error, last.test_error),
        )
        write_record(self.run, self.folder / runs.RUN)
        (self.folder / runs.CHECKPOINT).unlink(missing_ok=True)
        return self.run

    def _costs(self) -> tuple[float, float]:
        """Seconds of an update, alone on the device, and the share of it that making the batch takes: on a GPU, where
        only the update is replayed as a graph, at the most. The network changes meanwhile and is then as before."""
        stepper, feed = self._stepper, self._stepper.feed
        with stepper.queue():
            before = {name: tensor.clone() for name, tensor in stepper.state().items()}
        times = max(1, min(_TIMED, self.recipe.iterations // _TIMED))
        step_s, input_s = (stepper.time_of(work, times) for work in (stepper.step, feed.next))
        stepper.restore(before)
        return step_s, input_s / step_s


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
    """Takes a stride of each in turn, and finishes each when it is complete. If one fails, the others are kept. Raises
    ``CheckFailedError`` if ``time.monotonic()`` is at ``end_s`` before the runs are complete, or a loss is not finite.
    """
    begun, first = time.monotonic(), sum(training.iteration for training in trainings)
    every = sum(training.recipe.iterations for training in trainings)
    while running := [training for training in trainings if not training.complete]:
        for training in running:
            name = training.run.identity.name
            try:
                point = training.advance()
            except CheckFailedError:
                _keep([other for other in running if other is not training])
                raise
            done = sum(training.iteration for training in trainings)
            left = f"{roughly((every - done) * (time.monotonic() - begun) / (done - first))} left"
            doing = f"{title}, {name}" if title else f"{len(running)} runs side by side"
            listener.step(doing)
            listener.progress(done / every, f"{done:,} of {every:,} iterations")
            if point is not None:
                validation = "" if point.validation_error is None else f", validation {point.validation_error:.2%}"
                listener.notice(
                    f"{name}: {point.iteration:,} of {training.recipe.iterations:,}, loss {point.loss:.4f}, "
                    f"error {point.train_error:.2%}{validation}, test {point.test_error:.2%}, {left}"
                )
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
