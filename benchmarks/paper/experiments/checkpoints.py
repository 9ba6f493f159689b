"""Trained networks to look into: those of our own runs, and files of weights of anybody's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.paper.experiments.curves import now
from benchmarks.paper.experiments.study import fit_variant
from benchmarks.paper.training.batches import DeviceImages, place_on_device
from benchmarks.paper.training.corpus import Moments, Source, load_test
from benchmarks.paper.training.recipe import PAPER
from benchmarks.paper.training.run import RUN, Run, machine, open_run, state_of, versions
from benchmarks.paper.training.step import Arithmetic
from benchmarks.records.findings import Provenance
from exporter.models.resnet import ResNet, build
from exporter.models.variants import Variant
from exporter.weights import sources as weights
from runtimes.errors import ModelMismatchError, UsageError, quote

IMAGENET_MOMENTS: Moments = (weights.IMAGENET_PREPROCESSING.mean, weights.IMAGENET_PREPROCESSING.std)
"""The normalisation of a file's network by default, as of most published CIFAR nets."""

BATCH = 500

CHANNELS = 3
"""The input channels of every network here; a grey stands in each."""


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

    @property
    def variant(self) -> Variant:
        """The network's row."""
        return self.model.variant


@dataclass(frozen=True, eq=False)
class TestImages:
    """Test images for networks that may want them normalised in different ways."""

    name: str
    classes: tuple[str, ...]
    images: dict[Moments, DeviceImages]

    def batches_for(self, network: TrainedNetwork) -> Iterator[Tensor]:
        """The images as the network sees them: (n, c, h, w), some at a time."""
        for images, _ in self.images[network.moments].crop_centres():
            yield from torch.split(images, BATCH)

    def __len__(self) -> int:
        return len(next(iter(self.images.values())))


def networks(specs: Sequence[str], classes: Sequence[str], size: int, moments: Moments) -> tuple[TrainedNetwork, ...]:
    """What each spec names: the folder of a run, or ``VARIANT=FILE``, whose images are normalised with ``moments``.

    Raises:
        UsageError: neither.
        ModelMismatchError: weights of another network; a run on other ``classes`` or on images of another ``size``.
        RexportError: a file cannot be read.
    """
    loaded: dict[str, TrainedNetwork] = {}
    for spec in specs:
        if (Path(spec) / RUN).is_file():
            network = _load_run(Path(spec), tuple(classes), size)
        else:
            network = _load_file(spec, len(classes), size, moments)
        if network.name in loaded:
            raise UsageError(f"{network.name} is named twice", code="network-named-twice")
        loaded[network.name] = network
    return tuple(loaded.values())


def _load_file(spec: str, classes: int, size: int, moments: Moments) -> TrainedNetwork:
    name, _, file = spec.partition("=")
    if not file:
        hint = "a folder of rbench paper train, or VARIANT=FILE, as resnet20=weights.safetensors"
        raise UsageError(f"{quote(spec)!r} is no training run", code="no-training-run", hint=hint)
    row = fit_variant(name, classes, size)
    model = build(row)
    model.load_state_dict(weights.from_file(file, row, lambda _: None).state)
    return TrainedNetwork(f"{name}, {Path(file).name}", model, moments)


def _load_run(folder: Path, classes: tuple[str, ...], size: int) -> TrainedNetwork:
    run = open_run(folder)
    if run.classes != classes:
        raise ModelMismatchError(
            f"trained on the classes {quote(', '.join(run.classes))}, not {quote(', '.join(classes))}",
            code="trained-on-other-classes",
            path=folder,
            hint="--data names the data that it was trained on",
        )
    trained = run.identity.variant.size[0]
    if trained != size:
        raise ModelMismatchError(
            f"trained on {trained} pixels, not {size}",
            code="trained-on-other-size",
            path=folder,
            hint=f"--size {trained}",
        )
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
    Raises as ``networks`` and ``corpus.load_test``."""
    name, classes, test = load_test(source)
    loaded = networks(specs, classes, source.size, moments)
    on_host = partial(
        place_on_device, test, torch.device("cpu"), size=source.size, padding=PAPER.padding, channels=CHANNELS
    )
    wanted = dict.fromkeys([network.moments for network in loaded] or [moments])
    return loaded, TestImages(name, classes, {one: on_host(moments=one) for one in wanted})


def provenance(data: str, images: int, measured: Sequence[TrainedNetwork], command: str) -> Provenance:
    """What measurements on so many test images rest on, if this process makes them on these networks."""
    runs = [(network.run, network.iteration) for network in measured if network.run is not None]
    recipes = dict.fromkeys(run.identity.recipe for run, _ in runs)
    scales = {recipe.scale for recipe in recipes}
    return Provenance(
        data=data,
        images={"test": images},
        seeds=tuple(sorted({run.identity.seed for run, _ in runs})),
        scale=scales.pop() if len(scales) == 1 else None,
        recipe="; ".join(recipe.describe() for recipe in recipes),
        machine=machine(Arithmetic()),
        versions=versions(),
        command=command,
        time=now(),
        until=min((reached for run, reached in runs if reached < run.identity.recipe.iterations), default=None),
    )
