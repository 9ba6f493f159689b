"""Trained networks to look into: those of our own runs, and files of weights of anybody's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.paper.experiments.curves import now
from benchmarks.paper.experiments.study import fit_variant
from benchmarks.paper.training.batches import DeviceImages, place_on_device
from benchmarks.paper.training.corpus import Source, load_test
from benchmarks.paper.training.recipe import PAPER
from benchmarks.paper.training.run import RUN, Run, machine, open_run, state_of, versions
from benchmarks.paper.training.step import Arithmetic
from benchmarks.records.findings import Provenance
from exporter.models.resnet import ResNet, build
from exporter.weights import sources as weights
from runtimes.errors import ModelMismatchError, UsageError, quote

Moments = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET_MOMENTS: Moments = (weights.IMAGENET_PREPROCESSING.mean, weights.IMAGENET_PREPROCESSING.std)
"""What a file's network is taken to have seen, where nothing else is said: most published CIFAR nets did too."""

SEEN_AT_A_TIME = 500

CHANNELS = 3
"""Of every network that is trained or looked into here; greys stand in each."""


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained network in evaluation mode.

    Attributes:
        name: for people; of several seeds, or of a run that is not finished, it says so.
        moments: mean and standard deviation by channel that its images are normalised with.
        run: where it comes from, if that is one of our runs; ``folder`` then holds it, and ``iteration`` is where it
            had come to.
    """

    name: str
    model: ResNet
    moments: Moments
    run: Run | None = None
    folder: Path | None = None
    iteration: int = 0


@dataclass(frozen=True, eq=False)
class TestImages:
    """Test images for networks that may want them normalised in different ways."""

    name: str
    classes: tuple[str, ...]
    images: dict[Moments, DeviceImages]

    def batches_for(self, network: TrainedNetwork) -> Iterator[Tensor]:
        """The images as the network sees them: (n, c, h, w), some at a time."""
        for images, _ in self.images[network.moments].crop_centres():
            yield from torch.split(images, SEEN_AT_A_TIME)

    def __len__(self) -> int:
        return len(next(iter(self.images.values())))


def networks(specs: Sequence[str], classes: Sequence[str], size: int, moments: Moments) -> tuple[TrainedNetwork, ...]:
    """What each spec names: the folder of a run, or ``VARIANT=FILE``, whose images are normalised with ``moments``.

    Raises:
        UsageError: neither.
        ModelMismatchError: weights of another network; a run on other ``classes`` or on images of another ``size``.
        RexportError: as ``weights.from_file`` and ``runs.open_run``.
    """
    found = tuple(_network(spec, classes, size, moments) for spec in specs)
    names = [network.name for network in found]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UsageError(f"{repeated} is named twice")
    return found


def _network(spec: str, classes: Sequence[str], size: int, moments: Moments) -> TrainedNetwork:
    if (Path(spec) / RUN).is_file():
        return _load_run(Path(spec), classes, size)
    name, equals, file = spec.partition("=")
    if not equals or not file:
        hint = "a folder of rbench paper train, or VARIANT=FILE, as resnet20=weights.safetensors"
        raise UsageError(f"{quote(spec)!r} is no training run", hint=hint)
    row = fit_variant(name, len(classes), size)
    model = build(row)
    model.load_state_dict(weights.from_file(file, row, lambda _: None).state)
    return TrainedNetwork(f"{name}, {Path(file).name}", model, moments)


def _load_run(folder: Path, classes: Sequence[str], size: int) -> TrainedNetwork:
    run = open_run(folder)
    if run.classes != tuple(classes):
        what = f"trained on the classes {quote(', '.join(run.classes))}, not {quote(', '.join(classes))}"
        raise ModelMismatchError(what, path=folder, hint="--data names the data that it was trained on")
    if run.identity.variant.size != (size, size):
        trained = run.identity.variant.size[0]
        raise ModelMismatchError(f"trained on {trained} pixels, not {size}", path=folder, hint=f"--size {trained}")
    iteration, state = state_of(folder)
    model = build(run.identity.variant)
    model.load_state_dict(state)
    whole = run.identity.recipe.iterations
    name = run.identity.name if iteration == whole else f"{run.identity.name}, at {iteration:,} of {whole:,}"
    return TrainedNetwork(name, model, (run.mean, run.std), run, folder, iteration)


def load_networks(
    source: Source, specs: Sequence[str], moments: Moments
) -> tuple[tuple[TrainedNetwork, ...], TestImages]:
    """The networks, and the test images for them: of every normalisation that one of them wants, cut from the middle.

    Raises:
        RexportError: as ``networks`` and ``corpus.load_test``.
    """
    name, classes, test = load_test(source)
    found = networks(specs, classes, source.size, moments)
    images = {
        wanted: place_on_device(
            test, torch.device("cpu"), size=source.size, padding=PAPER.padding, moments=wanted, channels=CHANNELS
        )
        for wanted in dict.fromkeys([one.moments for one in found] or [moments])
    }
    return found, TestImages(name, classes, images)


def provenance(data: str, images: dict[str, int], found: Sequence[TrainedNetwork], command: str) -> Provenance:
    """Of measurements on these networks, by this process."""
    runs = [network.run for network in found if network.run is not None]
    recipes = dict.fromkeys(run.identity.recipe for run in runs)
    stopped = [one.iteration for one in found if one.run and one.iteration < one.run.identity.recipe.iterations]
    scales = {recipe.scale for recipe in recipes}
    return Provenance(
        data,
        images,
        tuple(sorted({run.identity.seed for run in runs})),
        scales.pop() if len(scales) == 1 else None,
        "; ".join(recipe.describe() for recipe in recipes),
        machine(Arithmetic()),
        versions(),
        command,
        now(),
        min(stopped, default=None),
    )
