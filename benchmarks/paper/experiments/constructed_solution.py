"""A deeper network built from a shallower one and identity layers: the solution that must exist (section 1).

It has the shallower network's outputs, so the deeper one need not train worse. That it exists is checked on outputs;
that training does not come upon it in plain networks is read off training curves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.paper.experiments.seeds import difference, judge_difference, spread
from benchmarks.records.findings import Check, Findings, FindingsTable, Line, Mark, Panel, Provenance, floats
from exporter.models.resnet import BasicBlock, Bottleneck, ResNet, build, initialise
from exporter.models.variants import Variant
from runtimes.errors import ArtifactError, UsageError

ROUNDING = 1e-4
"""Of the largest logit: a difference beneath it is float32's rounding through many layers, not another function."""

SAID_RESIDUAL = "a deeper residual net exists that computes what a shallower one does: the added branches are zero"
SAID_PLAIN = "a deeper plain net exists that computes what a shallower one does: the added layers copy their input"
SAID_SOLVER = "training a deeper plain net does not come upon that solution: its training error ends higher"


# Building -------------------------------------------------------------------------------------------------------------


def deepen(model: ResNet, variant: Variant, seed: int = 0) -> ResNet:
    """A network of the deeper ``variant`` that computes what ``model`` does, in evaluation mode, on its device.

    Each stage begins with copies of the shallower stage's blocks. A residual block that is added ends in a batch-norm
    of weight and bias zero, so that relu(0 + x) = x, as x comes out of a ReLU; its convolutions are drawn from
    ``seed``. A plain one is two convolutions by a centred delta, each with a batch-norm that multiplies by one:
    variance + epsilon is 1 exactly, where a weight of sqrt(1 + epsilon) would hope that two roundings cancel.

    It is an identity with the running statistics; a batch's own, which training uses, would scale what they get.

    Raises:
        UsageError: the variant is not the model's but for more blocks; or its added blocks can be no identity.
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
                _silence(block)
            else:
                _pass_through(block)
    return deeper


def _check(shallower: Variant, deeper: Variant) -> None:
    what = f"{deeper.name} cannot be built from {shallower.name} and identity layers"
    if replace(shallower, name="", depths=(), paper=deeper.paper) != replace(deeper, name="", depths=()):
        raise UsageError(f"{what}: they differ in more than depth", hint="take a variant of the same kind")
    pairs = list(zip(shallower.depths, deeper.depths, strict=False))
    if len(shallower.depths) != len(deeper.depths) or any(have > want for have, want in pairs):
        raise UsageError(f"{what}: its stages have {deeper.depths} blocks, the other's {shallower.depths}")
    if deeper.residual and deeper.shortcut == "C":
        raise UsageError(f"{what}: with shortcut C every block is projected", hint="take shortcut A or B")
    if not deeper.residual and deeper.block == "bottleneck":
        raise UsageError(f"{what}: a plain bottleneck is narrower than what it would have to copy")


def _silence(block: nn.Module) -> None:
    """Makes the residual block's branch zero."""
    assert isinstance(block, (BasicBlock, Bottleneck))
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def _pass_through(block: nn.Module) -> None:
    """Makes the plain block copy what is not negative."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            assert module.running_var is not None
            module.running_var.fill_(1 - module.eps)


# Comparing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConstructionResult:
    """How the outputs of a built network compare with those of the one it was built from, over ``images``.

    Attributes:
        shallower, deeper: the variants' names.
        residual: what kind both are.
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
    models = shallower, deeper
    modes = [model.training for model in models]
    images = differing = 0
    difference = largest = 0.0
    try:
        for model in models:
            model.eval()
        for batch in batches:
            wanted, given = (_logits(model, batch) for model in models)
            images += len(batch)
            differing += int((wanted.view(np.int32) != given.view(np.int32)).any(axis=1).sum())
            difference = max(difference, float(np.abs(wanted - given).max()))
            largest = max(largest, float(np.abs(wanted).max()))
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
    if not images:
        raise UsageError("outputs are compared on at least one image")
    names = shallower.variant.name, deeper.variant.name
    return ConstructionResult(*names, shallower.variant.residual, images, differing, difference, largest)


def _logits(model: ResNet, images: torch.Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(images.to(model.fc.weight.device)).float().cpu().numpy()
    if not np.isfinite(logits).all():
        raise ArtifactError(f"the logits of {model.variant.name} are not finite with these weights")
    return logits


# Findings -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """The training of one network, a seed or several.

    Attributes:
        label: names the network, as "plain56".
        iterations: (points,).
        train_error: for each seed a fraction at each of the ``iterations``.
        final: for each seed the finished network's error on the training images, in evaluation mode; a fraction. Of
            runs that were stopped, the curve's last.
        images: how many training images there are.
        until: the iteration that the runs were stopped at; ``None`` if they are finished.
    """

    label: str
    iterations: tuple[float, ...]
    train_error: tuple[tuple[float, ...], ...]
    final: tuple[float, ...]
    images: int
    until: int | None = None


def identity_findings(
    constructed: Sequence[ConstructionResult], training: tuple[Curve, Curve] | None, provenance: Provenance
) -> Findings:
    """What the comparisons show; and whether training found the built solution, of which the level is known.

    ``training`` is a plain network's and that of a deeper one. As a built network gives the outputs of the shallower
    one that it is built from, its training error is the shallower one's.
    """
    checks = []
    for residual, said in ((True, SAID_RESIDUAL), (False, SAID_PLAIN)):
        of_kind = [one for one in constructed if one.residual == residual]
        if of_kind:
            checks.append(_construction_check(said, of_kind))
    notes = [
        "Built networks are identities with batch-norm's running statistics, as after training; a batch's own, as in "
        "training, would scale what an added layer gives on."
    ]
    if training is None:
        notes.append("No plain networks were trained: whether training finds the built solution is left open.")
    else:
        checks.append(_solver_check(*training))
        until = training[0].until
        notes.append(
            "Levels and verdict are of the finished networks in evaluation mode without augmentation; the curves are "
            "of the updates' own images."
            if until is None
            else f"The runs were stopped: levels and verdict are of the updates' own images at iteration {until:,}."
        )
        if min(len(curve.final) for curve in training) < 2:
            notes.append(
                "One seed of a network: the interval covers the images alone, not what another seed would give."
            )
    return Findings(
        experiment="identity",
        title="The solution by construction: a deeper net that does what a shallower one does",
        checks=tuple(checks),
        panels=() if training is None else (_panel(*training),),
        tables=(_table(constructed), *(() if training is None else (_finals(*training),))),
        notes=tuple(notes),
        provenance=provenance,
    )


def _construction_check(said: str, constructed: Sequence[ConstructionResult]) -> Check:
    parts = [
        f"{one.deeper} from {one.shallower}: largest difference {one.difference:.3g} over {one.images:,} images, "
        + (f"{one.differing:,} of them not equal to the bit" if one.differing else "all equal to the bit")
        for one in constructed
    ]
    same = all(one.differing == 0 if one.residual else one.difference <= ROUNDING * one.largest for one in constructed)
    return Check(said, "section 1", "; ".join(parts), "confirmed" if same else "contradicted")


def _solver_check(shallower: Curve, deeper: Curve) -> Check:
    found = difference(deeper.final, shallower.final, deeper.images)
    words = (
        f"training error {spread(deeper.final)} % of {deeper.label} as trained against {spread(shallower.final)} % of "
        f"{deeper.label} as built from {shallower.label}: {found.in_points()}"
    )
    return Check(SAID_SOLVER, "section 1, Figure 1", words, judge_difference(found))


def _panel(shallower: Curve, deeper: Curve) -> Panel:
    level = 100 * float(np.mean(shallower.final))
    return Panel(
        "Training, and the level of the built solution",
        "iteration",
        "training error, %",
        tuple(_plot_line(curve) for curve in (shallower, deeper)),
        (Mark(f"{deeper.label} built from {shallower.label}", shallower.label, level),),
        source="Figure 1, left",
    )


def _plot_line(curve: Curve) -> Line:
    errors = 100 * np.array(curve.train_error)
    several = len(errors) > 1
    return Line(
        curve.label,
        curve.label,
        floats(curve.iterations),
        floats(errors.mean(axis=0).tolist()),
        floats(errors.min(axis=0).tolist()) if several else (),
        floats(errors.max(axis=0).tolist()) if several else (),
    )


def _table(constructed: Sequence[ConstructionResult]) -> FindingsTable:
    return FindingsTable(
        "Outputs of the built network beside those of the network that it was built from",
        ("built", "from", "images", "not equal to the bit", "largest difference", "largest logit"),
        tuple(
            (
                one.deeper,
                one.shallower,
                f"{one.images:,}",
                f"{one.differing:,}",
                f"{one.difference:.3g}",
                f"{one.largest:.3g}",
            )
            for one in constructed
        ),
    )


def _finals(shallower: Curve, deeper: Curve) -> FindingsTable:
    return FindingsTable(
        "Error of the plain networks on their training images"
        + (", finished and in evaluation mode" if shallower.until is None else f" at iteration {shallower.until:,}"),
        ("network", "seeds", "training %", f"{deeper.label} built from {shallower.label}: training %"),
        (
            (shallower.label, str(len(shallower.final)), spread(shallower.final), "–"),
            (deeper.label, str(len(deeper.final)), spread(deeper.final), spread(shallower.final)),
        ),
    )
