"""A training run that is under way: updates, points of the curve, checkpoints, and its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from benchmarks.paper.training import run as runs
from benchmarks.paper.training.batches import DeviceImages, Feed, place_on_device
from benchmarks.paper.training.corpus import Corpus
from benchmarks.paper.training.recipe import Recipe
from benchmarks.paper.training.run import (
    CHECKPOINT,
    CURVE,
    RUN,
    STATES,
    WEIGHTS,
    CurvePoint,
    FinalErrors,
    Identity,
    Run,
    TrainingProgress,
    begin_segment,
)
from benchmarks.paper.training.step import Arithmetic, Stepper
from exporter.models.resnet import ResNet, build, initialise
from exporter.models.variants import Variant
from runtimes import codec, files
from runtimes.errors import ArtifactError, CheckFailedError

STRIDE = 10
"""Updates between two looks at the clock, and those whose training error decides whether the warm-up is over."""

CHECKPOINT_EVERY_S = 30.0
"""So much work is lost at the most by a kill, unless a command says otherwise."""

POINTS = 60
"""Of a curve, about: evaluating more often would cost more than it shows."""

_TIMED = 20
"""Steps, and makings of a batch, that are timed at the most to know what share the input takes."""


@dataclass(frozen=True)
class Pace:
    """When runs are stopped, and how often they are kept, in seconds; and how many states of a network on its way are
    kept for good, spread evenly, beside one of the beginning."""

    stop_after_s: float | None = None
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    states: int = 0

    def subtract(self, taken_s: float) -> Pace:
        """What is left of it after so many seconds."""
        return self if self.stop_after_s is None else replace(self, stop_after_s=self.stop_after_s - taken_s)


@dataclass(frozen=True, eq=False)
class Data:
    """A corpus on the device."""

    corpus: Corpus
    train: DeviceImages
    validation: DeviceImages
    test: DeviceImages


def on_device(corpus: Corpus, recipe: Recipe, variant: Variant, arithmetic: Arithmetic) -> Data:
    """The corpus's images where they are computed with, for networks of the variant's size and channels."""
    moments = moments_of(corpus, recipe)
    device = torch.device(arithmetic.device)
    train, validation, test = (
        place_on_device(
            part, device, size=variant.size[0], padding=recipe.padding, moments=moments, channels=variant.in_channels
        )
        for part in (corpus.train, corpus.validation, corpus.test)
    )
    return Data(corpus, train, validation, test)


def moments_of(corpus: Corpus, recipe: Recipe) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel: the recipe's, or those of the training images."""
    if recipe.mean is None or recipe.std is None:
        return corpus.moments()
    return recipe.mean, recipe.std


class Training:
    """A run that is under way in a folder.

    ``advance`` does a little of it, so that several can take turns; ``finish`` ends it. Killed at any moment, the
    next ``Training`` of the same folder goes on from the last checkpoint and ends in the same bits, on a CPU with the
    same arithmetic, threads and versions; ``Run.sittings`` tells where these changed.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        arithmetic: Arithmetic,
        data: Data,
        pace: Pace,
    ) -> None:
        """Begins, or goes on.

        Raises:
            UsageError: the folder holds another run.
            ArtifactError: its files are damaged.
            ResourceError: the folder cannot be written.
        """
        files.check_writable(folder)
        self.folder = folder
        self.data = data
        self._pace = pace
        self.run = runs.begin_run(folder, _new(identity, data.corpus, arithmetic))
        self.points: list[CurvePoint] = []
        self.iteration = 0
        self._warm = identity.recipe.begins_warm(identity.variant)
        self._since = 0
        self._elapsed_s = self.run.elapsed_s
        self._started_s = self._kept_s = time.monotonic()
        if self.finished:
            self.points = list(runs.curve(folder))
            self.iteration = identity.recipe.iterations
            (folder / CHECKPOINT).unlink(missing_ok=True)
            return
        model = build(identity.variant).to(device=arithmetic.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        initialise_on_host(model, identity.seed)
        model.train()
        feed = Feed(data.train, identity.recipe.batch, identity.seed)
        self._stepper = Stepper(model, feed, identity.recipe, arithmetic)
        self._stepper.record()
        self._resume()
        if pace.states and self.iteration == 0:
            self._keep_state()

    @property
    def recipe(self) -> Recipe:
        """Of the run."""
        return self.run.identity.recipe

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
        """Of the latest update."""
        return self._stepper.rate

    @property
    def elapsed_s(self) -> float:
        """Of all sittings, in seconds."""
        return self._elapsed_s + (time.monotonic() - self._started_s)

    def advance(self) -> CurvePoint | None:
        """Up to ``STRIDE`` updates; a point of the curve if one is due. On a GPU the updates are only begun.

        Raises:
            CheckFailedError: the loss is not finite any more.
            ResourceError: the checkpoint cannot be written.
        """
        feed, stepper = self._stepper.feed, self._stepper
        epoch, step = divmod(self.iteration, feed.steps)
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
        if self._pace.states and self._count_kept(before) < self._count_kept(self.iteration):
            self._keep_state()
        point = self._point() if self._point_is_due() else None
        if time.monotonic() - self._kept_s > self._pace.checkpoint_every_s and not self.complete:
            self.checkpoint()
        return point

    def _count_kept(self, iteration: int) -> int:
        """How many of the states on the way are kept when the run has come to an iteration."""
        return iteration * self._pace.states // self.recipe.iterations

    def _keep_state(self) -> None:
        with self._stepper.queue():
            weights = _on_host(self._stepper.model)
        (self.folder / STATES).mkdir(exist_ok=True)
        with files.write_atomically(self.folder / STATES / f"{self.iteration:07d}.safetensors") as temporary:
            temporary.write_bytes(save(weights))

    def _point_is_due(self) -> bool:
        if self.complete:
            return True
        epoch, step = divmod(self.iteration, self._stepper.feed.steps)
        epochs = self.recipe.iterations / self._stepper.feed.steps
        return step == 0 and epoch % max(1, round(epochs / POINTS)) == 0

    def _wrong(self) -> float:
        """The sum of the updates' training errors since the last point. Waits for the device."""
        with self._stepper.queue():
            return float(self._stepper.sums[1])

    def _sums(self) -> tuple[float, float]:
        """Mean loss and error since the last point. Waits for the device.

        Raises:
            CheckFailedError: the loss is not finite.
        """
        with self._stepper.queue():
            loss, wrong = (self._stepper.sums / max(1, self._since)).tolist()
        if not math.isfinite(loss):
            raise CheckFailedError(
                f"{self.run.identity.name}: the loss is not finite at iteration {self.iteration:,}",
                path=self.folder,
                hint="another seed, or fp32",
            )
        return loss, wrong

    def _point(self) -> CurvePoint:
        loss, train_error = self._sums()
        validation = self._stepper.error(self.data.validation) if len(self.data.validation) else None
        point = CurvePoint(
            self.iteration,
            round(self.iteration / self._stepper.feed.steps, 4),
            self.learning_rate,
            loss,
            train_error,
            validation,
            self._stepper.error(self.data.test),
            round(self.elapsed_s, 3),
        )
        self.points.append(point)
        with self._stepper.queue():
            self._stepper.sums.zero_()
        self._since = 0
        runs.put_curve(self.folder / CURVE, self.points)
        return point

    def checkpoint(self) -> None:
        """Writes all that the run needs to go on. Waits for the device.

        Raises:
            CheckFailedError: the loss is not finite any more; the checkpoint before stays.
            ResourceError: as ``write_atomically``.
        """
        self._sums()
        with self._stepper.queue():
            tensors = {name: tensor.contiguous().cpu() for name, tensor in self._stepper.state().items()}
        progress = TrainingProgress(self.iteration, self._warm, self._since, self.elapsed_s, tuple(self.points))
        metadata = {"identity": codec.dumps(self.run.identity), "progress": codec.dumps(progress)}
        with files.write_atomically(self.folder / CHECKPOINT) as temporary:
            temporary.write_bytes(save(tensors, metadata))
        self._kept_s = time.monotonic()

    def _resume(self) -> None:
        """From the last checkpoint, if there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            runs.put_curve(self.folder / CURVE, self.points)
            self._note_sitting()
            return
        identity, progress, tensors = runs.read_checkpoint(path)
        runs.check_same(self.folder, identity, self.run.identity)
        missing = set(self._stepper.state()) ^ set(tensors)
        if missing:
            raise ArtifactError(f"not a checkpoint of this network: {sorted(missing)[0]!r} has no partner", path=path)
        self._stepper.restore(tensors)
        self.iteration, self._warm, self._since = progress.iteration, progress.warm, progress.since
        self._elapsed_s = progress.elapsed_s
        self.points = list(progress.points)
        runs.put_curve(self.folder / CURVE, self.points)
        self._note_sitting()
        epoch, step = divmod(self.iteration, self._stepper.feed.steps)
        with self._stepper.queue():
            self._stepper.feed.begin(epoch, step)

    def _note_sitting(self) -> None:
        """Records what computes from here on, if it is not what computed so far."""
        now = begin_segment(self.iteration, self._stepper.arithmetic)
        kept = tuple(one for one in self.run.sittings if one.since < self.iteration)
        if not kept or replace(now, since=kept[-1].since) != kept[-1]:
            kept = (*kept, now)
        if kept != self.run.sittings:
            self.run = replace(self.run, sittings=kept)
            runs.put(self.folder / RUN, self.run)

    def finish(self) -> Run:
        """Evaluates the trained network and writes its weights and what came out; does nothing the second time.

        Raises:
            ResourceError: as ``write_atomically``.
        """
        if self.finished:
            return self.run
        train_error = self._stepper.error(self.data.train)
        last = self.points[-1]
        with self._stepper.queue():
            weights = _on_host(self._stepper.model)
        step_s, input_share = self._costs()
        with files.write_atomically(self.folder / WEIGHTS) as temporary:
            about = {"variant": self.run.identity.variant.name, "data": self.run.data, "recipe": self.recipe.describe()}
            temporary.write_bytes(save(weights, about))
        self.run = replace(
            self.run,
            step_s=step_s,
            input_share=input_share,
            elapsed_s=round(self.elapsed_s, 1),
            outcome=FinalErrors(train_error, last.validation_error, last.test_error),
        )
        runs.put(self.folder / RUN, self.run)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return self.run

    def _costs(self) -> tuple[float, float]:
        """Seconds of an update, alone on the device, and the share of it that making the batch takes: on a GPU, where
        only the update is replayed as a graph, at the most. The network changes meanwhile and is then as before."""
        stepper, feed = self._stepper, self._stepper.feed
        with stepper.queue():
            before = {name: tensor.clone() for name, tensor in stepper.state().items()}
        times = max(1, min(_TIMED, self.recipe.iterations // _TIMED))

        def rewind_before(work: Callable[[], object]) -> Callable[[], None]:
            def run_rewound() -> None:
                feed.rewind()
                work()

            return run_rewound

        step_s, input_s = (stepper.time_of(rewind_before(work), times) for work in (stepper.step, feed.next))
        stepper.restore(before)
        return step_s, input_s / step_s


def _new(identity: Identity, corpus: Corpus, arithmetic: Arithmetic) -> Run:
    """The record of a run that begins now."""
    mean, std = moments_of(corpus, identity.recipe)
    return Run(identity, corpus.name, corpus.classes, corpus.counts, mean, std, (begin_segment(0, arithmetic),))


def initialise_on_host(model: ResNet, seed: int) -> None:
    """Draws the initial weights as ``exporter.models.resnet.initialise`` does, wherever the model lies: the same
    numbers."""
    drawn = build(model.variant)
    initialise(drawn, seed)
    model.load_state_dict(drawn.state_dict())


def _on_host(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
