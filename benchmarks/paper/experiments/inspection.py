"""Trained networks looked into: what the commands give to the measurements, and the findings of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.paper.experiments import constructed_solution, curves, gradients, responses
from benchmarks.paper.experiments.checkpoints import TestImages, TrainedNetwork, load_networks, provenance
from benchmarks.paper.experiments.curves import Curves
from benchmarks.paper.experiments.study import fit_variant
from benchmarks.paper.probes import responses as probe
from benchmarks.paper.probes.gradients import (
    GradientShares,
    InitialGradients,
    LossBatch,
    TrainedGradients,
    along_training,
    at_initialisation,
    identity_blocks,
    shortcut_shares,
)
from benchmarks.paper.training.corpus import Moments, Source
from benchmarks.paper.training.recipe import count_layers
from benchmarks.paper.training.run import states_of
from benchmarks.records.findings import Findings
from exporter.models.variants import VARIANTS, Variant
from exporter.network import ExportListener
from runtimes.errors import UsageError

_BATCH_SEED = 0


@dataclass(frozen=True)
class Inspection:
    """What all inspections have: test images, the moments of networks in files, the command that was typed, and who
    hears of each step."""

    source: Source
    moments: Moments
    command: str
    listener: ExportListener

    def load(self, specs: Sequence[str]) -> tuple[tuple[TrainedNetwork, ...], TestImages]:
        """The networks that ``specs`` name, and the images for them. Raises as ``load_networks``."""
        return load_networks(self.source, specs, self.moments)


def layer_responses(specs: Sequence[str], inspection: Inspection) -> Findings:
    """The paper's Figure 7, of the networks that ``specs`` name, over all test images.

    Raises:
        RexportError: a network cannot be loaded or measured.
    """
    networks, images = inspection.load(specs)
    measured = []
    for network in networks:
        inspection.listener.step(f"{network.name}: {len(images):,} images")
        measured.append(probe.layer_responses(network.name, network.model, images.batches_for(network)))
    return responses.responses_findings(measured, provenance(images.name, len(images), networks, inspection.command))


@dataclass(frozen=True)
class InitialNetworks:
    """Networks to look into as they are initialised: their variants' names, seeds of each; and the size of the batch
    that all gradients are taken on, trained networks' too."""

    names: Sequence[str]
    seeds: int
    images: int


def layer_gradients(specs: Sequence[str], fresh: InitialNetworks, inspection: Inspection) -> Findings:
    """Gradients of ``fresh`` networks as they are initialised, and of those that ``specs`` name as they are trained.

    Raises:
        UsageError: a fresh network is not for images of that size.
        RexportError: a network cannot be loaded or measured.
    """
    networks, images = inspection.load(specs)
    batch = draw_batch(images, fresh.images)
    initial: list[InitialGradients] = []
    for name in fresh.names:
        row = fit_variant(name, len(images.classes), inspection.source.size)
        for seed in range(fresh.seeds):
            inspection.listener.step(f"{name}, seed {seed}: gradients at initialisation")
            initial += at_initialisation(row, seed, batch)
    trained: list[TrainedGradients] = []
    shares: list[GradientShares] = []
    for network in networks:
        inspection.listener.step(f"{network.name}: gradients")
        own = draw_batch(images, fresh.images, network)
        if network.folder is not None:
            states = {**dict(states_of(network.folder)), network.iteration: network.model.state_dict()}
            trained += along_training(network.variant, states.items(), own)
        if identity_blocks(network.variant):
            shares.append(shortcut_shares(network.name, network.model, own))
    origin = provenance(images.name, len(batch.targets), networks, inspection.command)
    origin = replace(origin, seeds=tuple(sorted({*origin.seeds, *range(fresh.seeds)})))
    return gradients.gradients_findings(initial, trained, shares, batch.description, origin)


def draw_batch(images: TestImages, count: int, network: TrainedNetwork | None = None) -> LossBatch:
    """So many test images, drawn by a shuffle that is always the same, as a network sees them, or as the first does."""
    own = next(iter(images.images.values())) if network is None else images.images[network.moments]
    count = min(count, len(own))
    chosen = torch.randperm(len(own), generator=torch.Generator().manual_seed(_BATCH_SEED))[:count]
    return LossBatch(own.crop_centre(chosen), own.targets[chosen], f"{count} test images of {images.name}")


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
    origin = provenance(images.name, len(images), networks, inspection.command)
    return constructed_solution.identity_findings(built, _plain_training(networks), origin)


def _deeper(variant: Variant, others: Sequence[Variant]) -> Variant:
    def is_deeper(row: Variant) -> bool:
        same = (variant.block, variant.widths, variant.stem, variant.residual)
        if same != (row.block, row.widths, row.stem, row.residual) or row.depths == variant.depths:
            return False
        return all(more >= less for more, less in zip(row.depths, variant.depths, strict=True))

    given = sorted(filter(is_deeper, others), key=count_layers)
    known = sorted(filter(is_deeper, VARIANTS.values()), key=count_layers)
    chosen = next(iter((*reversed(given), *known)), None)
    if chosen is None:
        raise UsageError(f"no variant is {variant.name} with more blocks", code="no-deeper-variant")
    return replace(variant, name=chosen.name, depths=chosen.depths, paper=chosen.paper)


def _plain_training(networks: Sequence[TrainedNetwork]) -> tuple[Curves, Curves] | None:
    """The curves of the shallowest and the deepest plain network that our own runs trained, if there are two."""
    folders = [network.folder for network in networks if network.folder is not None and not network.variant.residual]
    groups = curves.gather_runs(folders, so_far=True) if folders else []
    groups.sort(key=lambda one: count_layers(one.variant))
    return (groups[0], groups[-1]) if len(groups) > 1 else None
