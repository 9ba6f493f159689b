"""Trained networks looked into: what the commands give to the measurements, and the findings of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.paper.experiments import constructed_solution, curves, gradients
from benchmarks.paper.experiments.checkpoints import Moments, TestImages, TrainedNetwork, load_networks, provenance
from benchmarks.paper.experiments.study import fit_variant
from benchmarks.paper.probes import responses
from benchmarks.paper.probes.identity_gradient import GradientShares, identity_blocks, shortcut_shares
from benchmarks.paper.probes.layer_gradients import (
    InitialGradients,
    LossBatch,
    TrainedGradients,
    along_training,
    at_initialisation,
)
from benchmarks.paper.training.corpus import Source
from benchmarks.paper.training.recipe import count_layers
from benchmarks.paper.training.run import states_of
from benchmarks.records.findings import Findings
from exporter.models.variants import VARIANTS, Variant
from exporter.network import ExportListener
from runtimes.errors import UsageError

_BATCH_SEED = 0


def layer_responses(
    specs: Sequence[str], source: Source, moments: Moments, command: str, listener: ExportListener
) -> Findings:
    """The paper's Figure 7, of the networks that ``specs`` name, over all test images.

    Raises:
        RexportError: as ``networks.load_networks`` and ``responses.layer_responses``.
    """
    found, images = load_networks(source, specs, moments)
    measured = []
    for network in found:
        listener.step(f"{network.name}: {len(images):,} images")
        measured.append(responses.layer_responses(network.name, network.model, images.batches_for(network)))
    return responses.responses_findings(measured, provenance(images.name, {"test": len(images)}, found, command))


def layer_gradients(
    specs: Sequence[str],
    names: Sequence[str],
    seeds: int,
    count: int,
    source: Source,
    moments: Moments,
    command: str,
    listener: ExportListener,
) -> Findings:
    """Gradients of networks ``names`` as they are initialised, and of those that ``specs`` name as they are trained, on
    ``count`` test images.

    Raises:
        UsageError: a network that is named is not for images of ``source.size`` pixels.
        RexportError: as ``networks.load_networks`` and ``layergradients``.
    """
    found, images = load_networks(source, specs, moments)
    batch = _batch(images, count)
    initial: list[InitialGradients] = []
    for name in names:
        row = fit_variant(name, len(images.classes), source.size)
        for seed in range(seeds):
            listener.step(f"{name}, seed {seed}: gradients at initialisation")
            initial += at_initialisation(row, seed, batch)
    trained: list[TrainedGradients] = []
    shares: list[GradientShares] = []
    for network in found:
        listener.step(f"{network.name}: gradients")
        own = _batch(images, count, network)
        if network.folder is not None:
            trained += along_training(network.model.variant, _states(network, network.folder).items(), own)
        if identity_blocks(network.model.variant):
            shares.append(shortcut_shares(network.name, network.model, own))
    told = provenance(images.name, {"test": len(batch.targets)}, found, command)
    told = replace(told, seeds=tuple(sorted({*told.seeds, *range(seeds)})))
    return gradients.gradients_findings(initial, trained, shares, batch.description, told)


def _states(network: TrainedNetwork, folder: Path) -> dict[int, Mapping[str, Tensor]]:
    """By iteration: what the run kept on its way, and where it is now."""
    return {**dict(states_of(folder)), network.iteration: network.model.state_dict()}


def _batch(images: TestImages, count: int, network: TrainedNetwork | None = None) -> LossBatch:
    """So many test images, drawn by a shuffle that is always the same, as a network sees them, or as the first does."""
    own = next(iter(images.images.values())) if network is None else images.images[network.moments]
    count = min(count, len(own))
    chosen = torch.randperm(len(own), generator=torch.Generator().manual_seed(_BATCH_SEED))[:count]
    height, width = own.padded.shape[1:3]
    top, left = (torch.full_like(chosen, (length - own.size) // 2) for length in (height, width))
    pixels = own.crops(chosen, top, left, torch.zeros_like(chosen, dtype=torch.bool))
    return LossBatch(pixels, own.targets[chosen], f"{count} test images of {images.name}")


def examine_construction(
    specs: Sequence[str], source: Source, moments: Moments, command: str, listener: ExportListener
) -> Findings:
    """Deeper networks built from those that ``specs`` name; and whether training plain ones finds what is built.

    Each is built into the deepest of its kind among them, or into the next deeper variant if it is the deepest.

    Raises:
        UsageError: there is no deeper variant of a network's kind.
        RexportError: as ``networks.load_networks``, ``identity.deepen`` and ``curves.gather_runs``.
    """
    found, images = load_networks(source, specs, moments)
    built = []
    for network in found:
        deeper = _deeper(network.model.variant, [other.model.variant for other in found])
        listener.step(f"{network.name} as {deeper.name}: {len(images):,} images")
        model = constructed_solution.deepen(network.model, deeper)
        built.append(constructed_solution.compare_networks(network.model, model, images.batches_for(network)))
    told = provenance(images.name, {"test": len(images)}, found, command)
    return constructed_solution.identity_findings(built, _training(found), told)


def _deeper(variant: Variant, others: Sequence[Variant]) -> Variant:
    def is_deeper(row: Variant) -> bool:
        same = (variant.block, variant.widths, variant.stem, variant.residual)
        return same == (row.block, row.widths, row.stem, row.residual) and deeper_than(row)

    def deeper_than(row: Variant) -> bool:
        return all(more >= less for more, less in zip(row.depths, variant.depths, strict=True)) and (
            row.depths != variant.depths
        )

    given = sorted(filter(is_deeper, others), key=count_layers)
    known = sorted(filter(is_deeper, VARIANTS.values()), key=count_layers)
    chosen = next(iter((*reversed(given), *known)), None)
    if chosen is None:
        raise UsageError(f"no variant is {variant.name} with more blocks")
    return replace(variant, name=chosen.name, depths=chosen.depths, paper=chosen.paper)


def _training(found: Sequence[TrainedNetwork]) -> tuple[constructed_solution.Curve, constructed_solution.Curve] | None:
    """The curves of the shallowest and the deepest plain network that our own runs trained, if there are two."""
    folders: list[Path] = [
        network.folder for network in found if network.folder is not None and not network.model.variant.residual
    ]
    if not folders:
        return None
    groups = sorted(curves.gather_runs(folders, so_far=True), key=lambda one: count_layers(one.variant))
    if len(groups) < 2:
        return None
    shallower, deeper = (
        constructed_solution.Curve(
            one.label,
            tuple(float(point.iteration) for point in one.points[0]),
            tuple(tuple(point.train_error for point in points) for points in one.points),
            one.errors("train"),
            one.runs[0].images["train"],
            one.until,
        )
        for one in (groups[0], groups[-1])
    )
    return shallower, deeper
