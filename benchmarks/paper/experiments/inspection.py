"""Trained networks looked into, our own runs' and files of weights of anybody's: what is measured, and its findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.paper import probes
from benchmarks.paper.experiments import constructed_solution
from benchmarks.paper.experiments.curves import gather_runs, now
from benchmarks.paper.experiments.gradients import gradients_findings
from benchmarks.paper.experiments.responses import responses_findings
from benchmarks.paper.experiments.study import fit_variant
from benchmarks.paper.training.batches import DeviceImages, place_on_device
from benchmarks.paper.training.corpus import Moments, Source, load_test
from benchmarks.paper.training.recipe import PAPER, count_layers
from benchmarks.paper.training.run import RUN, Run, machine, open_run, state_of, states_of, versions
from benchmarks.paper.training.step import Arithmetic
from benchmarks.records.findings import Findings, Provenance
from exporter.export_request import ExportListener
from exporter.models.memory import require_gradient_memory
from exporter.models.resnet import ResNet, build
from exporter.models.variants import VARIANTS, Variant, kind
from exporter.weights import sources as weights
from runtimes.errors import ModelMismatchError, UsageError, quote

IMAGENET_MOMENTS: Moments = (weights.IMAGENET_PREPROCESSING.mean, weights.IMAGENET_PREPROCESSING.std)
"""The normalisation of a file's network by default, as of most published CIFAR nets."""

BATCH = 500

GRADIENT_IMAGES = 64
"""The number of images that gradients are taken on by default, at most."""

CHANNELS = 3
"""The input channels of every network here; a grey stands in each."""

_BATCH_SEED = 0


# Networks and images --------------------------------------------------------------------------------------------------


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

    def draw_batch(self, count: int, network: TrainedNetwork | None = None) -> probes.LossBatch:
        """So many images, drawn by a shuffle that is always the same, as a network sees them, or as the first does.

        Raises:
            UsageError: there are fewer than ``count``.
        """
        own = next(iter(self.images.values())) if network is None else self.images[network.moments]
        if count > len(own):
            raise UsageError(
                f"{quote(self.name)} has {len(own):,} test images, not {count:,}",
                code="images-too-many",
                hint=f"--images {len(own)}",
            )
        chosen = torch.randperm(len(own), generator=torch.Generator().manual_seed(_BATCH_SEED))[:count]
        description = f"{count} test images of {self.name}"
        return probes.LossBatch(own.crop_centre(chosen), own.targets[chosen], description)

    def __len__(self) -> int:
        return len(next(iter(self.images.values())))


@dataclass(frozen=True)
class Inspection:
    """What all inspections have: test images, the moments of networks in files, the command that was typed, and who
    hears of each step."""

    source: Source
    moments: Moments
    command: str
    listener: ExportListener

    def load(self, specs: Sequence[str]) -> tuple[tuple[TrainedNetwork, ...], TestImages]:
        """The networks that ``specs`` name, and the test images for them: of every normalisation that one of them
        wants, cut from the middle. Raises as ``load_networks`` and ``corpus.load_test``."""
        name, classes, test = load_test(self.source)
        size, host = self.source.size, torch.device("cpu")
        networks = load_networks(specs, classes, size, self.moments)
        wanted = dict.fromkeys([network.moments for network in networks] or [self.moments])
        images = {
            moments: place_on_device(test, host, size=size, padding=PAPER.padding, moments=moments, channels=CHANNELS)
            for moments in wanted
        }
        return networks, TestImages(name, classes, images)

    def provenance(self, data: str, images: int, measured: Sequence[TrainedNetwork]) -> Provenance:
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
            command=self.command,
            time=now(),
            until=min((reached for run, reached in runs if reached < run.identity.recipe.iterations), default=None),
        )


def load_networks(
    specs: Sequence[str], classes: tuple[str, ...], size: int, moments: Moments
) -> tuple[TrainedNetwork, ...]:
    """What each spec names: the folder of a run, or ``VARIANT=FILE``, whose images are normalised with ``moments``.

    Raises:
        UsageError: neither.
        ModelMismatchError: weights of another network; a run on other ``classes`` or on images of another ``size``.
        RexportError: a file cannot be read.
    """
    loaded: dict[str, TrainedNetwork] = {}
    for spec in specs:
        if (Path(spec) / RUN).is_file():
            network = _load_run(Path(spec), classes, size)
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
    identity, trained, whole = run.identity, run.identity.variant.size[0], run.identity.recipe.iterations
    if run.classes != classes:
        raise ModelMismatchError(
            f"trained on the classes {quote(', '.join(run.classes))}, not {quote(', '.join(classes))}",
            code="trained-on-other-classes",
            path=folder,
            hint="--data names the data that it was trained on",
        )
    if trained != size:
        hint = f"--size {trained}"
        raise ModelMismatchError(
            f"trained on {trained} pixels, not {size}", code="trained-on-other-size", path=folder, hint=hint
        )
    iteration, state = state_of(folder)
    model = build(identity.variant)
    model.load_state_dict(state)
    name = identity.name if iteration == whole else f"{identity.name}, at {iteration:,} of {whole:,}"
    return TrainedNetwork(name, model, (run.mean, run.std), run, folder, iteration)


# Measurements ---------------------------------------------------------------------------------------------------------


def layer_responses(specs: Sequence[str], inspection: Inspection) -> Findings:
    """The paper's Figure 7, of the networks that ``specs`` name, over all test images. Raises ``RexportError`` if a
    network cannot be loaded or measured."""
    networks, images = inspection.load(specs)
    measured = []
    for network in networks:
        inspection.listener.step(f"{network.name}: {len(images):,} images")
        measured.append(probes.layer_responses(network.name, network.model, images.batches_for(network)))
    return responses_findings(measured, inspection.provenance(images.name, len(images), networks))


def layer_gradients(
    specs: Sequence[str], names: Sequence[str], seeds: int, count: int | None, inspection: Inspection
) -> Findings:
    """Gradients of the variants of those ``names`` as they are initialised, ``seeds`` of each, and of the networks that
    ``specs`` name as they are trained; all on a batch of ``count`` images. ``None`` means ``GRADIENT_IMAGES``, or all
    test images if there are fewer.

    Raises:
        UsageError: a variant is not for images of that size, or there are fewer images.
        ResourceError: there is less memory than the gradients need.
        RexportError: a network cannot be loaded or measured.
    """
    networks, images = inspection.load(specs)
    count = min(GRADIENT_IMAGES, len(images)) if count is None else count
    batch = images.draw_batch(count)
    rows = [fit_variant(name, len(images.classes), inspection.source.size) for name in names]
    for row in (*rows, *(network.variant for network in networks)):
        require_gradient_memory(row, count)
    initial: list[probes.InitialGradients] = []
    for name, row in zip(names, rows, strict=True):
        for seed in range(seeds):
            inspection.listener.step(f"{name}, seed {seed}: gradients at initialisation")
            initial += probes.at_initialisation(row, seed, batch)
    trained: list[probes.TrainedGradients] = []
    shares: list[probes.GradientShares] = []
    for network in networks:
        inspection.listener.step(f"{network.name}: gradients")
        own = images.draw_batch(count, network)
        if network.folder is not None:
            states = {**dict(states_of(network.folder)), network.iteration: network.model.state_dict()}
            trained += probes.along_training(network.variant, states.items(), own)
        if probes.identity_blocks(network.variant):
            shares.append(probes.shortcut_shares(network.name, network.model, own))
    origin = inspection.provenance(images.name, len(batch.targets), networks)
    origin = replace(origin, seeds=tuple(sorted({*origin.seeds, *range(seeds)})))
    return gradients_findings(initial, trained, shares, batch.description, origin)


def examine_construction(specs: Sequence[str], inspection: Inspection) -> Findings:
    """Deeper networks built from those that ``specs`` name; and whether training plain ones finds what is built.

    Each is built into the deepest of its kind among them, or into the next deeper variant if it is the deepest.

    Raises:
        UsageError: there is no deeper variant of a network's kind.
        RexportError: a network cannot be loaded or compared, or a run's curve not be read.
    """
    networks, images = inspection.load(specs)
    built = []
    for network in networks:
        deeper = _deeper(network.variant, [other.variant for other in networks])
        inspection.listener.step(f"{network.name} as {deeper.name}: {len(images):,} images")
        model = constructed_solution.deepen(network.model, deeper)
        built.append(constructed_solution.compare_networks(network.model, model, images.batches_for(network)))
    folders = [network.folder for network in networks if network.folder is not None and not network.variant.residual]
    plain = gather_runs(folders, so_far=True) if folders else []
    plain.sort(key=lambda one: count_layers(one.variant))
    training = (plain[0], plain[-1]) if len(plain) > 1 else None
    origin = inspection.provenance(images.name, len(images), networks)
    return constructed_solution.identity_findings(built, training, origin)


def _deeper(variant: Variant, others: Sequence[Variant]) -> Variant:
    def is_deeper(row: Variant) -> bool:
        same = (kind(variant), variant.residual) == (kind(row), row.residual)
        if not same or row.depths == variant.depths:
            return False
        return all(more >= less for more, less in zip(row.depths, variant.depths, strict=True))

    given = sorted(filter(is_deeper, others), key=count_layers)
    known = sorted(filter(is_deeper, VARIANTS.values()), key=count_layers)
    if not given and not known:
        raise UsageError(f"no variant is {variant.name} with more blocks", code="no-deeper-variant")
    chosen = given[-1] if given else known[0]
    return replace(variant, name=chosen.name, depths=chosen.depths, paper=chosen.paper)
