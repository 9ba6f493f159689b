"""A training run on disk: begun, gone on with, finished; and what it leaves.

``run.json``               what it is a run of, and at its end what came out
``curve.jsonl``            a line for each point of the curve
``checkpoint.safetensors`` all that a run needs to go on, to the bit; removed at the end
``weights.safetensors``    the trained network, which ``rexport onnx --weights`` takes
``states/``                the network on its way, where that was asked for: ``ITERATION.safetensors``
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from benchmarks.environment import environment
from benchmarks.paper.corpus import Corpus
from benchmarks.paper.feeding import Feed, Images, placed
from benchmarks.paper.recipe import Recipe
from benchmarks.paper.stepping import Arithmetic, Stepper
from exporter import checkpoint
from exporter.resnet import build, initialise
from exporter.variants import Variant
from runtimes import files, schema
from runtimes.errors import ArtifactError, CheckFailedError, IntegrityError, UsageError

RUN, CURVE, CHECKPOINT, WEIGHTS = "run.json", "curve.jsonl", "checkpoint.safetensors", "weights.safetensors"
STATES = "states"
SCHEMA_VERSION = 1

STRIDE = 10
"""Steps between two looks at the clock, at the warm-up and at the loss."""

CHECKPOINT_EVERY_S = 30.0
"""So much work is lost at the most by a kill, unless a command says otherwise."""

POINTS = 60
"""Of a curve, about: evaluating more often would cost more than it shows."""

FILE_LIMIT_BYTES = 64 << 20

_TIMED = 20
"""Steps, and makings of a batch, that are timed at the most to know what share the input takes."""

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Identity:
    """What makes a run the same run: all that decides its weights but for what rounding does to them.

    Attributes:
        variant: with the data's classes and the size that it was trained at.
        corpus: SHA-256 of images and targets.
    """

    variant: Variant
    recipe: Recipe
    seed: int
    corpus: str


@dataclass(frozen=True)
class Sitting:
    """What computed the updates from an iteration on. A run that is left and gone on with under the same one ends in
    the same bits on a CPU; under another it is the same mathematics, rounded otherwise.

    Attributes:
        threads: of PyTorch, which sums in another order with other ones.
        machine: processor or GPU.
        versions: of Python and PyTorch.
    """

    since: int
    arithmetic: Arithmetic
    threads: int
    machine: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Point:
    """Of a curve. Errors are top-1 fractions; ``train_error`` and ``loss`` are means over the updates since the point
    before, on augmented images, as the network was then; the others are of all images in evaluation mode."""

    iteration: int
    epoch: float
    learning_rate: float
    loss: float
    train_error: float
    validation_error: float | None
    test_error: float
    elapsed_s: float


@dataclass(frozen=True)
class Outcome:
    """Errors of the finished network in evaluation mode, without augmentation; top-1 fractions."""

    train_error: float
    validation_error: float | None
    test_error: float


@dataclass(frozen=True)
class Run:
    """What ``run.json`` holds.

    Attributes:
        data, classes, images: of the corpus: its name, its classes, its images by part.
        mean, std: that the network was trained with, one a channel, as shares of 255.
        sittings: what computed it, in order; one where it is all the same.
        step_s: of one update while training; ``None`` before that was measured.
        input_share: of that, what making the batch takes.
        elapsed_s: of training and evaluating, all sittings together.
        outcome: ``None`` until the run is finished.
    """

    identity: Identity
    data: str
    classes: tuple[str, ...]
    images: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sittings: tuple[Sitting, ...]
    step_s: float | None = None
    input_share: float | None = None
    elapsed_s: float = 0.0
    outcome: Outcome | None = None
    run: int = SCHEMA_VERSION

    @property
    def name(self) -> str:
        """For messages: network and seed."""
        return f"{self.identity.variant.name}, seed {self.identity.seed}"


@dataclass(frozen=True)
class _Progress:
    """The part of a checkpoint that is no tensor."""

    iteration: int
    warm: bool
    since: int
    elapsed_s: float
    points: tuple[Point, ...]


@dataclass(frozen=True, eq=False)
class Data:
    """A corpus on the device."""

    corpus: Corpus
    train: Images
    validation: Images
    test: Images


def on_device(corpus: Corpus, recipe: Recipe, variant: Variant, arithmetic: Arithmetic) -> Data:
    """The corpus's images where they are computed with, for networks of the variant's size and channels."""
    moments = moments_of(corpus, recipe)
    device = torch.device(arithmetic.device)
    train, validation, test = (
        placed(
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
        checkpoint_every_s: float = CHECKPOINT_EVERY_S,
        states: int = 0,
    ) -> None:
        """Begins, or goes on. ``states`` are kept on the way, spread evenly, and one of the beginning.

        Raises:
            UsageError: the folder holds another run.
            ArtifactError: its files are damaged.
            ResourceError: the folder cannot be written.
        """
        files.check_writable(folder)
        self.folder = folder
        self.data = data
        self._checkpoint_every_s = checkpoint_every_s
        self._states = states
        self.run = _begun(folder, identity, data.corpus, sitting(0, arithmetic))
        self.points: list[Point] = []
        self.iteration = 0
        self._warm = identity.recipe.begins_warm(identity.variant)
        self._since = 0
        self._elapsed_s = self.run.elapsed_s
        self._started_s = self._kept_s = time.monotonic()
        if self.finished:
            self.points = list(curve(folder))
            self.iteration = identity.recipe.iterations
            (folder / CHECKPOINT).unlink(missing_ok=True)
            return
        model = build(identity.variant).to(device=arithmetic.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        initialise_on_host(model, identity.seed)
        model.train()
        feed = Feed(data.train, identity.recipe.batch, identity.seed)
        self._stepper = Stepper(model, feed, identity.recipe, arithmetic)
        self._stepper.record()
        self._go_on()
        if states and self.iteration == 0:
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
    def elapsed_s(self) -> float:
        """Of all sittings, in seconds."""
        return self._elapsed_s + (time.monotonic() - self._started_s)

    def advance(self) -> Point | None:
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
        before = self.iteration
        for _ in range(step, end):
            stepper.set_rate(self.recipe.rate(self.iteration, self._warm))
            stepper.step()
            self.iteration += 1
            self._since += 1
        if self._warm:
            self._warm = self._mean_error() >= self.recipe.warmup_error
        if self._states and self._kept_by(before) < self._kept_by(self.iteration):
            self._keep_state()
        point = self._point() if self._point_is_due() else None
        if time.monotonic() - self._kept_s > self._checkpoint_every_s and not self.complete:
            self.checkpoint()
        return point

    def _kept_by(self, iteration: int) -> int:
        """How many of the states on the way are kept when the run has come to an iteration."""
        return iteration * self._states // self.recipe.iterations

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

    def _mean_error(self) -> float:
        return self._sums()[1]

    def _sums(self) -> tuple[float, float]:
        """Mean loss and error since the last point. Waits for the device.

        Raises:
            CheckFailedError: the loss is not finite.
        """
        with self._stepper.queue():
            loss, wrong = (self._stepper.sums / max(1, self._since)).tolist()
        if not math.isfinite(loss):
            raise CheckFailedError(
                f"{self.run.name}: the loss is not finite at iteration {self.iteration:,}",
                path=self.folder,
                hint="another seed, or fp32",
            )
        return loss, wrong

    def _point(self) -> Point:
        loss, train_error = self._sums()
        validation = self._stepper.error(self.data.validation) if len(self.data.validation) else None
        point = Point(
            self.iteration,
            round(self.iteration / self._stepper.feed.steps, 4),
            self.recipe.rate(self.iteration - 1, self._warm),
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
        _put_lines(self.folder / CURVE, self.points)
        return point

    def checkpoint(self) -> None:
        """Writes all that the run needs to go on. Waits for the device.

        Raises:
            ResourceError: as ``write_atomically``.
        """
        with self._stepper.queue():
            tensors = {name: tensor.contiguous().cpu() for name, tensor in self._stepper.state().items()}
        progress = _Progress(self.iteration, self._warm, self._since, self.elapsed_s, tuple(self.points))
        metadata = {"identity": schema.dumps(self.run.identity), "progress": schema.dumps(progress)}
        with files.write_atomically(self.folder / CHECKPOINT) as temporary:
            temporary.write_bytes(save(tensors, metadata))
        self._kept_s = time.monotonic()

    def _go_on(self) -> None:
        """From the last checkpoint, if there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            _put_lines(self.folder / CURVE, self.points)
            return
        identity, progress, tensors = _kept(path)
        _check_same(self.folder, identity, self.run.identity)
        missing = set(self._stepper.state()) ^ set(tensors)
        if missing:
            raise ArtifactError(f"not a checkpoint of this network: {sorted(missing)[0]!r} has no partner", path=path)
        self._stepper.restore(tensors)
        self.iteration, self._warm, self._since = progress.iteration, progress.warm, progress.since
        self._elapsed_s = progress.elapsed_s
        self.points = list(progress.points)
        _put_lines(self.folder / CURVE, self.points)
        self._note_sitting()
        epoch, step = divmod(self.iteration, self._stepper.feed.steps)
        with self._stepper.queue():
            self._stepper.feed.begin(epoch, step)

    def _note_sitting(self) -> None:
        """Records what computes from here on, if it is not what computed so far."""
        now = sitting(self.iteration, self._stepper.arithmetic)
        kept = tuple(one for one in self.run.sittings if one.since < max(1, self.iteration))
        if replace(now, since=kept[-1].since) != kept[-1]:
            kept = (*kept, now)
        if kept != self.run.sittings:
            self.run = replace(self.run, sittings=kept)
            _put(self.folder / RUN, self.run)

    def finish(self) -> Run:
        """Evaluates the trained network and writes its weights and what came out; does nothing the second time.

        Raises:
            ResourceError: as ``write_atomically``.
        """
        if self.finished:
            return self.run
        train_error = self._stepper.error(self.data.train)
        last = self.points[-1]
        step_s, input_share = self._costs()
        weights = _on_host(self._stepper.model)
        with files.write_atomically(self.folder / WEIGHTS) as temporary:
            temporary.write_bytes(save(weights, {"variant": self.run.identity.variant.name, "data": self.run.data}))
        self.run = replace(
            self.run,
            step_s=step_s,
            input_share=input_share,
            elapsed_s=round(self.elapsed_s, 1),
            outcome=Outcome(train_error, last.validation_error, last.test_error),
        )
        _put(self.folder / RUN, self.run)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return self.run

    def _costs(self) -> tuple[float, float]:
        """Seconds of an update, and the share of it that making the batch takes. The network changes meanwhile."""
        stepper, feed = self._stepper, self._stepper.feed
        before = {name: tensor.clone() for name, tensor in stepper.state().items()}
        times = max(1, min(_TIMED, self.recipe.iterations // _TIMED))

        def of_the_first(work: Callable[[], object]) -> Callable[[], None]:
            def timed() -> None:
                feed.rewind()
                work()

            return timed

        step_s, input_s = (stepper.time_of(of_the_first(work), times) for work in (stepper.step, feed.next))
        stepper.restore(before)
        return step_s, input_s / step_s


def initialise_on_host(model: torch.nn.Module, seed: int) -> None:
    """Draws the initial weights as ``exporter.resnet.initialise`` does, wherever the model lies: the same numbers."""
    from exporter.resnet import ResNet

    assert isinstance(model, ResNet)
    drawn = build(model.variant)
    initialise(drawn, seed)
    model.load_state_dict(drawn.state_dict())


def _on_host(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def opened(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        ResourceError: there is none.
        ArtifactError: its record is damaged.
    """
    path = folder / RUN
    try:
        return schema.loads(Run, files.read_bounded(path, FILE_LIMIT_BYTES))
    except ArtifactError as error:
        raise ArtifactError(error.what, path=path, hint="rbench paper train makes such a folder") from error


def state_of(folder: Path) -> tuple[int, dict[str, Tensor]]:
    """The iteration that a run has come to, and its network's state dict there: of its end, or of its checkpoint.

    Raises:
        ResourceError: it has neither.
        IntegrityError: the checkpoint is damaged.
        RexportError: as ``checkpoint.read``.
    """
    run = opened(folder)
    if run.outcome is not None or not (folder / CHECKPOINT).exists():
        return run.identity.recipe.iterations, checkpoint.read(folder / WEIGHTS)
    _, progress, tensors = _kept(folder / CHECKPOINT)
    prefix = "model."
    return progress.iteration, {
        name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }


def states_of(folder: Path) -> tuple[tuple[int, dict[str, Tensor]], ...]:
    """What a run kept of its network on the way: iterations and state dicts, in order.

    Raises:
        RexportError: as ``checkpoint.read``.
    """
    found = sorted((folder / STATES).glob("*.safetensors"))
    return tuple((int(path.stem), checkpoint.read(path)) for path in found)


def curve(folder: Path) -> tuple[Point, ...]:
    """The points of the run's curve so far.

    Raises:
        ResourceError: there is none.
        ArtifactError: a line is damaged.
    """
    path = folder / CURVE
    lines = files.read_bounded(path, FILE_LIMIT_BYTES).splitlines()
    try:
        return tuple(schema.loads(Point, line) for line in lines)
    except ArtifactError as error:
        raise ArtifactError(error.what, path=path) from error


def _begun(folder: Path, identity: Identity, corpus: Corpus, first: Sitting) -> Run:
    """The record of the run, written if it begins."""
    path = folder / RUN
    if path.exists():
        found = opened(folder)
        _check_same(folder, found.identity, identity)
        return found
    run = Run(identity, corpus.name, corpus.classes, corpus.counts, *moments_of(corpus, identity.recipe), (first,))
    _put(path, run)
    return run


def sitting(since: int, arithmetic: Arithmetic) -> Sitting:
    """Of this process."""
    return Sitting(since, arithmetic, torch.get_num_threads(), machine(arithmetic), versions())


def machine(arithmetic: Arithmetic) -> str:
    """What computes, in words."""
    if arithmetic.device == "cuda":
        return torch.cuda.get_device_name()
    about = environment()
    amx = ", AMX" if any(name.startswith("amx") for name in about.instruction_sets) else ""
    return f"{about.cpu}{amx}"


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def _check_same(folder: Path, found: Identity, wanted: Identity) -> None:
    """Refuses to go on with another run.

    Raises:
        UsageError: they differ; the message names in what.
    """
    differing = [
        f"{field.name} {_short(getattr(found, field.name))}, not {_short(getattr(wanted, field.name))}"
        for field in dataclasses.fields(Identity)
        if getattr(found, field.name) != getattr(wanted, field.name)
    ]
    if differing:
        raise UsageError(
            f"it holds another run: {'; '.join(differing)}", path=folder, hint="name a new folder, or the same options"
        )


def _short(value: object) -> str:
    if isinstance(value, Variant):
        return f"{value.name} ({value.classes} classes, shortcut {value.shortcut})"
    if isinstance(value, Recipe):
        return f"{value.name} of {value.iterations:,} iterations"
    text = str(value)
    return text if len(text) < 20 else f"{text[:12]}…"


def _kept(path: Path) -> tuple[Identity, _Progress, dict[str, Tensor]]:
    """What a checkpoint holds.

    Raises:
        IntegrityError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        identity = schema.loads(Identity, metadata.get("identity", ""))
        return identity, schema.loads(_Progress, metadata.get("progress", "")), tensors
    except (SafetensorError, ArtifactError) as error:
        raise IntegrityError(f"a damaged checkpoint: {error}", path=path, hint="remove it to begin again") from error


def _put(path: Path, record: object) -> None:
    with files.write_atomically(path) as temporary:
        temporary.write_text(schema.dumps(record, indent=1) + "\n", encoding="utf-8")


def _put_lines(path: Path, records: list[Point]) -> None:
    with files.write_atomically(path) as temporary:
        temporary.write_text("".join(f"{json.dumps(schema.encode(record))}\n" for record in records), encoding="utf-8")
