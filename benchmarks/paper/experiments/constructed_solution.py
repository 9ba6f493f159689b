"""A deeper network built from a shallower one and identity layers: the solution that must exist (section 1).

It has the shallower network's outputs, so the deeper one need not train worse. That it exists is checked on outputs;
that training does not come upon it in plain networks is read off training curves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.paper.experiments.curves import Curves, check_larger, note_single_seed, spread
from benchmarks.paper.training.step import evaluation_mode
from benchmarks.records.findings import Check, Findings, FindingsTable, Mark, Panel, Provenance
from exporter.models.resnet import ResNet, build, initialise
from exporter.models.variants import Variant
from runtimes.errors import ArtifactError, Reason, UsageError

ROUNDING = 1e-4
"""Share of the largest logit: a smaller difference is float32's rounding through many layers, no other function."""

SAID_RESIDUAL = "a deeper residual net exists that computes what a shallower one does: the added branches are zero"
SAID_PLAIN = "a deeper plain net exists that computes what a shallower one does: the added layers copy their input"
SAID_SOLVER = "training a deeper plain net does not find that solution: its training error ends higher"


# Building -------------------------------------------------------------------------------------------------------------


def deepen(model: ResNet, variant: Variant, seed: int = 0) -> ResNet:
    """A network of the deeper ``variant`` that computes what ``model`` does, in evaluation mode, on its device.

    Each stage begins with copies of the shallower stage's blocks. A residual block that is added ends in a batch-norm
    of weight and bias zero, so that relu(0 + x) = x, as x comes out of a ReLU; its convolutions are drawn from
    ``seed``. A plain one is two convolutions by a centred delta, each with a batch-norm that multiplies by one:
    variance + epsilon is 1 exactly, where a weight of sqrt(1 + epsilon) would hope that two roundings cancel.

    It is an identity with the running statistics; a batch's own, which training uses, would scale what they get.

    Raises ``UsageError`` if the variant is not the model's but for more blocks, or its added blocks can be no identity.
    """
    _check(model.variant, variant)
    deeper = build(variant)
    initialise(deeper, seed)
    deeper.to(model.fc.weight)
    state = deeper.state_dict()
    for name, tensor in model.state_dict().items():
        state[name].copy_(tensor)
    for stage, (have, want) in enumerate(zip(model.variant.depths, variant.depths, strict=True), start=1):
        for index in range(have, want):
            block = deeper.get_submodule(f"layer{stage}.{index}")
            if variant.residual:
                last = block.get_submodule("bn3" if variant.block == "bottleneck" else "bn2")
                for parameter in last.parameters():
                    nn.init.zeros_(parameter)
                continue
            for module in block.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.dirac_(module.weight)
                elif isinstance(module, nn.BatchNorm2d):
                    module.reset_parameters()
                    assert module.running_var is not None
                    module.running_var.fill_(1 - module.eps)
    return deeper


def _check(shallower: Variant, deeper: Variant) -> None:
    what = f"{deeper.name} cannot be built from {shallower.name} and identity layers"
    if replace(shallower, name="", depths=(), paper=deeper.paper) != replace(deeper, name="", depths=()):
        hint = "take a variant of the same kind"
        raise UsageError(f"{what}: they differ in more than depth", code="deepen-other-kind", hint=hint)
    pairs = list(zip(shallower.depths, deeper.depths, strict=False))
    if len(shallower.depths) != len(deeper.depths) or any(have > want for have, want in pairs):
        raise UsageError(
            f"{what}: its stages have {deeper.depths} blocks, the other's {shallower.depths}", code="deepen-shallower"
        )
    if deeper.residual and deeper.shortcut == "C":
        hint = "take shortcut A or B"
        raise UsageError(f"{what}: with shortcut C every block is projected", code="deepen-projected", hint=hint)
    if not deeper.residual and deeper.block == "bottleneck":
        raise UsageError(
            f"{what}: a plain bottleneck is narrower than what it would have to copy", code="deepen-plain-bottleneck"
        )


# Comparing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConstructionResult:
    """How the outputs of a built network compare with those of the one it was built from, over ``images``.

    Attributes:
        differing: images of which any logit differs in any bit.
        difference: largest between two logits.
        largest: the shallower network's largest logit by size.
    """

    shallower: str
    deeper: str
    residual: bool
    images: int
    differing: int
    difference: float
    largest: float


def compare_networks(shallower: ResNet, deeper: ResNet, batches: Iterable[torch.Tensor]) -> ConstructionResult:
    """Both networks' logits on all images of the ``batches``, each (n, c, h, w), as they are used after training.

    Raises:
        UsageError: there are no images.
        ArtifactError: a logit is not finite.
    """
    images = differing = 0
    difference = largest = 0.0
    with evaluation_mode(shallower, deeper), torch.inference_mode():
        for batch in batches:
            logits: list[NDArray[np.float32]] = []
            for model in (shallower, deeper):
                logits.append(model(batch.to(model.fc.weight.device)).float().cpu().numpy())
                if not np.isfinite(logits[-1]).all():
                    name = model.variant.name
                    raise ArtifactError(
                        f"the logits of {name} are not finite with these weights", code="variant-logits-not-finite"
                    )
            wanted, given = logits
            images += len(batch)
            differing += int((wanted.view(np.int32) != given.view(np.int32)).any(axis=1).sum())
            difference = max(difference, float(np.abs(wanted - given).max()))
            largest = max(largest, float(np.abs(wanted).max()))
    if not images:
        raise UsageError("outputs are compared on at least one image", code="comparison-without-images")
    names = shallower.variant.name, deeper.variant.name
    return ConstructionResult(*names, shallower.variant.residual, images, differing, difference, largest)


# Findings -------------------------------------------------------------------------------------------------------------


def identity_findings(
    constructed: Sequence[ConstructionResult], training: tuple[Curves, Curves] | None, provenance: Provenance
) -> Findings:
    """What the comparisons show; and whether training found the built solution, of which the level is known.

    ``training`` holds a plain network and a deeper one. As a built network gives the outputs of the shallower one that
    it is built from, its training error is the shallower one's.
    """
    checks = []
    for residual, claim in ((True, SAID_RESIDUAL), (False, SAID_PLAIN)):
        of_kind = [result for result in constructed if result.residual == residual]
        if of_kind:
            checks.append(_construction_check(claim, of_kind))
    panels = []
    if training is not None:
        shallower, deeper = training
        built = f"{deeper.label} built from {shallower.label}"
        labels = f"{deeper.label} as trained", f"{deeper.label} as built from {shallower.label}"
        checks.append(check_larger(deeper, shallower, "train", SAID_SOLVER, "section 1, Figure 1", labels))
        lines = tuple(curves.line(curves.label, "train") for curves in training)
        level = Mark(built, shallower.label, 100 * float(np.mean(shallower.errors("train"))))
        title, y_label = "Training, and the level of the built solution", "training error, %"
        panels.append(Panel(title, "iteration", y_label, lines, (level,), source="Figure 1, left"))
    return Findings(
        experiment="identity",
        title="The solution by construction: a deeper net that does what a shallower one does",
        checks=tuple(checks),
        panels=tuple(panels),
        tables=tuple(_tables(constructed, training)),
        notes=tuple(note.sentence for note in limits(training)),
        provenance=provenance,
    )


def limits(training: tuple[Curves, Curves] | None) -> Iterator[Reason]:
    """What a reader must know of the comparisons, and of the training runs."""
    yield Reason(
        "identity-by-running-statistics",
        "Built networks are identities with batch-norm's running statistics, as after training; a batch's own, as in "
        "training, would scale what an added layer gives on.",
    )
    if training is None:
        yield Reason(
            "no-plain-runs",
            "No plain networks were trained: whether training finds the built solution is left open.",
        )
        return
    until = training[0].until
    if until is None:
        yield Reason(
            "levels-of-finished-networks",
            "Levels and verdict are of the finished networks in evaluation mode without augmentation; the curves are "
            "of the updates' own images.",
        )
    else:
        yield Reason(
            "levels-of-stopped-runs",
            f"The runs were stopped: levels and verdict are of the updates' own images at iteration {until:,}.",
        )
    if min(len(curves.runs) for curves in training) < 2:
        yield note_single_seed()


def _construction_check(claim: str, constructed: Sequence[ConstructionResult]) -> Check:
    parts = [
        f"{one.deeper} from {one.shallower}: largest difference {one.difference:.3g} over {one.images:,} images, "
        + (f"{one.differing:,} with different bits" if one.differing else "all bits equal")
        for one in constructed
    ]
    same = all(one.differing == 0 if one.residual else one.difference <= ROUNDING * one.largest for one in constructed)
    return Check(claim, "section 1", "; ".join(parts), "confirmed" if same else "contradicted", trained=False)


def _tables(
    constructed: Sequence[ConstructionResult], training: tuple[Curves, Curves] | None
) -> Iterator[FindingsTable]:
    outputs: dict[str, Callable[[ConstructionResult], str]] = {
        "built": lambda one: one.deeper,
        "from": lambda one: one.shallower,
        "images": lambda one: f"{one.images:,}",
        "images with different bits": lambda one: f"{one.differing:,}",
        "largest difference": lambda one: f"{one.difference:.3g}",
        "largest logit": lambda one: f"{one.largest:.3g}",
    }
    caption = "Outputs of the built network against those of its source"
    yield FindingsTable.of(caption, constructed, outputs)
    if training is None:
        return
    shallower, deeper = training
    errors: dict[str, Callable[[Curves], str]] = {
        "network": lambda curves: curves.label,
        "seeds": lambda curves: str(len(curves.runs)),
        "training %": lambda curves: spread(curves.errors("train")),
        f"{deeper.label} built from {shallower.label}: training %": lambda curves: (
            spread(shallower.errors("train")) if curves is deeper else "–"
        ),
    }
    until = shallower.until
    when = ", finished and in evaluation mode" if until is None else f" at iteration {until:,}"
    yield FindingsTable.of(f"Error of the plain networks on their training images{when}", training, errors)
