"""A training run that is under way: updates, points of the curve, checkpoints, and its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from benchmarks.paper.training import run as runs
from benchmarks.paper.training.batches import DeviceImages, Feed, place_on_device
from benchmarks.paper.training.corpus import Corpus, Moments
from benchmarks.paper.training.recipe import Recipe
from benchmarks.paper.training.run import CurvePoint, FinalErrors, Run, RunIdentity, TrainingProgress
from benchmarks.paper.training.step import Arithmetic, Stepper
from benchmarks.records.findings import write_record
from exporter.models.resnet import build, initialise
from exporter.models.variants import Variant
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

    def subtract(self, elapsed_s: float) -> Pace:
        """The pace for the time that is left after so many seconds."""
        return self if self.stop_after_s is None else replace(self, stop_after_s=self.stop_after_s - elapsed_s)


@dataclass(frozen=True, eq=False)
class Data:
    """A corpus on the device, and the moments that its images are normalised with."""

    corpus: Corpus
    moments: Moments
    train: DeviceImages
    validation: DeviceImages
    test: DeviceImages


def on_device(corpus: Corpus, recipe: Recipe, variant: Variant, arithmetic: Arithmetic) -> Data:
    """The corpus's images where they are computed with, for networks of the variant's size and channels.

    They are normalised with the recipe's moments, or with those of the training images.
    """
    moments = corpus.moments() if recipe.mean is None or recipe.std is None else (recipe.mean, recipe.std)
    device, size, channels = torch.device(arithmetic.device), variant.size[0], variant.in_channels
    train, validation, test = (
        place_on_device(part, device, size=size, padding=recipe.padding, moments=moments, channels=channels)
        for part in (corpus.train, corpus.validation, corpus.test)
    )
    return Data(corpus, moments, train, validation, test)


class Training:
    """A run that is under way in a folder.

    ``advance`` does a little of it, so that several can take turns; ``finish`` ends it. Killed at any moment, the
    next ``Training`` of the same folder goes on from the last checkpoint and ends in the same bits, on a CPU with the
    same arithmetic, threads and versions; ``Run.sittings`` tells where these changed.
    """

    def __init__(self, job: TrainingJob, data: Data, pace: Pace) -> None:
        """Begins, or goes on.

        Raises:
            RexportError: the folder holds another run or damaged files, or cannot be written.
        """
        identity, arithmetic, corpus = job.identity, job.arithmetic, data.corpus
        files.check_writable(job.folder)
        self.folder = job.folder
        self.data = data
        self.recipe = identity.recipe
        self._pace = pace
        segments = (runs.begin_segment(0, arithmetic),)
        new = Run(identity, corpus.name, corpus.classes, corpus.counts, *data.moments, segments)
        self.run = runs.begin_run(job.folder, new)
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
        model = model.to(device=arithmetic.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        feed = Feed(data.train, identity.recipe.batch, identity.seed)
        self._stepper = Stepper(model, feed, identity.recipe, arithmetic)
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
        """Up to ``STRIDE`` updates; a point of the curve if one is due. On a GPU the updates are only begun.

        Raises:
            CheckFailedError: the loss is not finite any more.
        """
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
            temporary.write_bytes(save(self._weights()))

    def _weights(self) -> dict[str, Tensor]:
        """The network's state dict on the host. Waits for the device."""
        with self._stepper.queue():
            state = self._stepper.model.state_dict()
            return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

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
        """Writes all that the run needs to go on. Waits for the device.

        Raises:
            CheckFailedError: the loss is not finite any more; the checkpoint before stays.
        """
        self._means()
        with self._stepper.queue():
            tensors = {name: tensor.contiguous().cpu() for name, tensor in self._stepper.state().items()}
        progress = TrainingProgress(self.iteration, self._warm, self._since, self._total_s, tuple(self.points))
        metadata = {"identity": codec.dumps(self.run.identity), "progress": codec.dumps(progress)}
        with files.write_atomically(self.folder / runs.CHECKPOINT) as temporary:
            temporary.write_bytes(save(tensors, metadata))
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
        segments = self.run.continue_at(runs.begin_segment(self.iteration, self._stepper.arithmetic))
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
        weights = self._weights()
        step_s, input_share = self._costs()
        with files.write_atomically(self.folder / runs.WEIGHTS) as temporary:
            origin = {"variant": self.run.identity.variant.name, "data": self.run.data}
            temporary.write_bytes(save(weights, {**origin, "recipe": self.recipe.describe()}))
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

        def run_at_start(work: Callable[[], object]) -> None:
            feed.rewind()
            work()

        step_s, input_s = (stepper.time_of(partial(run_at_start, work), times) for work in (stepper.step, feed.next))
        stepper.restore(before)
        return step_s, input_s / step_s
