"""Findings on gradients: do they vanish or explode, plain and residual, and what does the ``+ 1`` bring.

The paper argues that plain networks with batch-norm do not fail for vanishing gradients (section 4.1). What is
compared is the gradient at the first block's input over that at the last's: how much it grows on its whole way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.probes.identity_gradient import GradientShares
from benchmarks.paper.probes.layer_gradients import InitialGradients, Norms, TrainedGradients
from benchmarks.paper.training.recipe import count_layers
from benchmarks.records.findings import Check, Findings, FindingsTable, Line, Outcome, Panel, Provenance, floats
from exporter.models.variants import Variant

HEALTHY = 100.0
"""A gradient that grows or shrinks by no more than this factor through all blocks counts as healthy."""

ROUNDING = 1e-12
"""Relative error up to which a sum of float64 numbers is right but for rounding."""

SAID_IDENTITY = "a block gives y = F(x) + x, so the gradient at x is the one at y times F'(x) + 1"
SAID_PRESENT = "with batch-norm, the gradients of plain nets do not vanish on their way back"
SAID_HEALTHY = "with batch-norm, the gradients of plain nets have healthy norms in training"
SAID_NORMALISED = "normalising layers keep the gradients of plain nets from vanishing and exploding at the beginning"
SAID_INITIALISED = "a normalised initialisation keeps the gradients of plain nets from vanishing and exploding"

NOTE_THEORY = (
    "That batch-norm makes the gradients of a network without shortcuts grow from layer to layer at initialisation, "
    "and that this is over after few steps of training, was found after the paper: Yang et al. 2019 (arXiv 1902.08129)."
)
NOTE_BARE = (
    "Without batch-norm, shortcut and branch add up, and the signal of a residual net about doubles its variance in "
    "each block, forward and back: He et al.'s initialisation is made for networks without shortcuts."
)


@dataclass(frozen=True)
class _Group:
    """The seeds of one network, initialised, with batch-norm or without."""

    variant: Variant
    normalised: bool
    seeds: tuple[Norms, ...]

    @property
    def growths(self) -> list[float]:
        """Of each seed."""
        return [growth(norms) for norms in self.seeds]

    @property
    def norm_text(self) -> str:
        """With batch-norm or without."""
        return f"{'with' if self.normalised else 'without'} batch-norm"


def growth(norms: Norms) -> float:
    """The gradient's norm at the first block's input over that at the last's: above 1 it grows on its way back."""
    return norms.input_norm[0] / norms.input_norm[-1]


def gradients_findings(
    initial: Sequence[InitialGradients],
    trained: Sequence[TrainedGradients],
    shares: Sequence[GradientShares],
    batch: str,
    provenance: Provenance,
) -> Findings:
    """What was measured, in pictures and verdicts; any of the three may be empty. ``batch`` is the batch's words."""
    groups = _group_initial(initial)
    normal, bare = ([group for group in groups if group.normalised == normalised] for normalised in (True, False))
    plain = [group for group in normal if not group.variant.residual]
    later = [one for one in trained if not one.variant.residual]
    begun = [one for one in later if one.iteration > 0]
    checks = [_identity_check(shares)] if shares else []
    if plain or later:
        checks.append(_present_check(plain, later))
    if begun:
        checks.append(_healthy_check(begun))
    checks += [
        _initial_check(said, some)
        for said, some in ((SAID_NORMALISED, normal), (SAID_INITIALISED, bare))
        if any(not group.variant.residual for group in some)
    ]
    notes = [
        f"Gradients are of the cross-entropy on {batch}, in float64, with each batch's own statistics in batch-norm."
    ]
    if plain:
        notes.append(NOTE_THEORY)
    if bare:
        notes.append(NOTE_BARE)
    if shares:
        notes.append(
            "Shares are projections on the gradient at a block's input and add up to one with the branch's; y is the "
            "sum in front of the block's last ReLU."
        )
    return Findings(
        experiment="gradients",
        title="Gradients by layer, and the + 1 of a shortcut",
        checks=tuple(checks),
        panels=(*_initial_panels(groups), *_build_training_panels(trained), *_share_panels(shares)),
        tables=_tables(groups, trained, shares),
        notes=tuple(notes),
        provenance=provenance,
    )


def _group_initial(initial: Sequence[InitialGradients]) -> list[_Group]:
    ordered = sorted(initial, key=lambda one: (not one.normalised, count_layers(one.variant), one.variant.residual))
    kinds = dict.fromkeys((one.variant, one.normalised) for one in ordered)
    return [
        _Group(*kind, tuple(one.norms for one in ordered if (one.variant, one.normalised) == kind)) for kind in kinds
    ]


# Checks ---------------------------------------------------------------------------------------------------------------


def _identity_check(shares: Sequence[GradientShares]) -> Check:
    every = [share for one in shares for share in one.blocks]
    worst = max(share.error for share in every)
    parts = [
        f"{np.median([share.shortcut for share in one.blocks]):.0%} in {one.name} ({len(one.blocks)} blocks)"
        for one in shares
    ]
    found = (
        f"largest relative error {worst:.2g} over {len(every)} blocks; of the gradient in the median block the + 1 "
        f"brings {'; '.join(parts)}"
    )
    return Check(SAID_IDENTITY, "section 3.2, equation 1", found, _outcome(worst <= ROUNDING))


def _present_check(initial: Sequence[_Group], trained: Sequence[TrainedGradients]) -> Check:
    parts = [f"by {_by_network(initial)} at initialisation"] if initial else []
    if trained:
        parts.append(f"by {_by_point(trained)}")
    lowest = min([one for group in initial for one in group.growths] + [growth(one.norms) for one in trained])
    found = f"on its way back the gradient is multiplied {' and '.join(parts)}"
    return Check(SAID_PRESENT, "section 4.1", found, _outcome(lowest >= 1 / HEALTHY))


def _healthy_check(trained: Sequence[TrainedGradients]) -> Check:
    found = f"on its way back the gradient is multiplied by {_by_point(trained)}; the limit is {HEALTHY:g} times"
    return Check(SAID_HEALTHY, "section 4.1", found, _outcome(all(_is_healthy(growth(one.norms)) for one in trained)))


def _initial_check(said: str, groups: Sequence[_Group]) -> Check:
    """Of plain nets; what the residual ones do is told beside."""
    plain = [group for group in groups if not group.variant.residual]
    residual = [group for group in groups if group.variant.residual]
    beside = f", and beside them {_by_network(residual)}" if residual else ""
    found = f"{plain[0].norm_text} the gradient is multiplied on its way back by {_by_network(plain)}{beside}"
    healthy = all(_is_healthy(one) for group in plain for one in group.growths)
    return Check(said, "section 1", f"{found}; the limit is {HEALTHY:g} times", _outcome(healthy))


def _is_healthy(change: float) -> bool:
    return 1 / HEALTHY <= change <= HEALTHY


def _outcome(holds: bool) -> Outcome:
    return "confirmed" if holds else "contradicted"


def _by_point(trained: Sequence[TrainedGradients]) -> str:
    return ", ".join(
        f"{_short(growth(one.norms))} in {one.variant.name} after {one.iteration:,} iterations" for one in trained
    )


def _by_network(groups: Sequence[_Group]) -> str:
    return ", ".join(f"{_spread(group.growths)} in {group.variant.name}" for group in groups)


def _spread(values: Sequence[float]) -> str:
    """Geometric mean, and the range that the seeds span."""
    middle = _short(float(np.exp(np.mean(np.log(values)))))
    return middle if len(values) == 1 else f"{middle} [{_short(min(values))}–{_short(max(values))}]"


def _short(value: float) -> str:
    """Two digits; an exponent only where there would be many zeros."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if 100 <= rounded < 1e6 else f"{rounded:.2g}"


# Panels ---------------------------------------------------------------------------------------------------------------


def _initial_panels(groups: Sequence[_Group]) -> tuple[Panel, ...]:
    """Weight gradients by layer, with batch-norm and without; and what becomes of a gradient, by depth."""
    panels = [
        Panel(
            f"Weight gradients at initialisation, {words}",
            "layer",
            "root mean square",
            tuple(_layer_line(group) for group in groups if group.norm_text == words),
            y_scale="log",
        )
        for words in dict.fromkeys(group.norm_text for group in groups)
    ]
    kinds = dict.fromkeys((group.norm_text, group.variant.family) for group in groups)
    of_kinds = [[group for group in groups if (group.norm_text, group.variant.family) == kind] for kind in kinds]
    if any(len(group) > 1 for group in of_kinds):
        panels.append(
            Panel(
                "Gradient at the first block over that at the last, at initialisation",
                "layers",
                "ratio of norms",
                tuple(_depth_line(group) for group in of_kinds),
                y_scale="log",
            )
        )
    return tuple(panels)


def _layer_line(group: _Group) -> Line:
    family = f"{count_layers(group.variant)} layers"
    rms = np.array([norms.weight_rms for norms in group.seeds])
    return _plot_line(f"{family}, {group.variant.family}", family, range(1, rms.shape[1] + 1), rms, group.variant)


def _depth_line(groups: Sequence[_Group]) -> Line:
    first = groups[0]
    depths = [count_layers(group.variant) for group in groups]
    seeds = min(len(group.seeds) for group in groups)  # those that every depth has
    growths = np.array([group.growths[:seeds] for group in groups]).T
    return _plot_line(f"{first.norm_text}, {first.variant.family}", first.norm_text, depths, growths, first.variant)


def _plot_line(label: str, family: str, x: Sequence[float], values: NDArray[np.float64], variant: Variant) -> Line:
    """The geometric mean of the seeds' ``values`` (seeds, points), in the range that they span."""
    several = len(values) > 1
    return Line(
        label,
        family,
        floats(x),
        floats(np.exp(np.log(values).mean(axis=0)).tolist()),
        floats(values.min(axis=0).tolist()) if several else (),
        floats(values.max(axis=0).tolist()) if several else (),
        dashed=not variant.residual,
    )


def _build_training_panels(trained: Sequence[TrainedGradients]) -> tuple[Panel, ...]:
    """Weight gradients by layer along training: a panel a network, a line a point."""
    return tuple(
        Panel(
            f"Weight gradients in training, {variant.name}",
            "layer",
            "root mean square",
            tuple(
                Line(
                    f"after {one.iteration:,} iterations",
                    f"after {one.iteration:,} iterations",
                    floats(range(1, len(one.norms.weight_rms) + 1)),
                    one.norms.weight_rms,
                )
                for one in trained
                if one.variant == variant
            ),
            y_scale="log",
        )
        for variant in dict.fromkeys(one.variant for one in trained)
    )


def _share_panels(shares: Sequence[GradientShares]) -> tuple[Panel, ...]:
    if not shares:
        return ()
    lines = tuple(
        Line(
            one.name,
            one.name,
            floats(range(1, len(one.blocks) + 1)),
            floats([share.shortcut for share in one.blocks]),
        )
        for one in shares
    )
    return (Panel("The + 1 in each block's gradient", "block with an identity shortcut", "share", lines),)


# Tables ---------------------------------------------------------------------------------------------------------------


def _tables(
    groups: Sequence[_Group], trained: Sequence[TrainedGradients], shares: Sequence[GradientShares]
) -> tuple[FindingsTable, ...]:
    tables = []
    if groups:
        tables.append(_initial_table(groups))
    if trained:
        tables.append(_build_training_table(trained))
    if shares:
        tables.append(_share_table(shares))
    return tuple(tables)


def _initial_table(groups: Sequence[_Group]) -> FindingsTable:
    return FindingsTable(
        "Gradients at initialisation: geometric mean [range] over seeds",
        ("network", "batch-norm", "seeds", "first layer's weights", "last layer's weights", "first block over last"),
        tuple(
            (
                group.variant.name,
                "yes" if group.normalised else "no",
                str(len(group.seeds)),
                _spread([norms.weight_rms[0] for norms in group.seeds]),
                _spread([norms.weight_rms[-1] for norms in group.seeds]),
                _spread(group.growths),
            )
            for group in groups
        ),
    )


def _build_training_table(trained: Sequence[TrainedGradients]) -> FindingsTable:
    return FindingsTable(
        "Gradients in training",
        ("network", "iteration", "first layer's weights", "last layer's weights", "first block over last"),
        tuple(
            (
                one.variant.name,
                f"{one.iteration:,}",
                _short(one.norms.weight_rms[0]),
                _short(one.norms.weight_rms[-1]),
                _short(growth(one.norms)),
            )
            for one in trained
        ),
    )


def _share_table(shares: Sequence[GradientShares]) -> FindingsTable:
    return FindingsTable(
        "Shares of the squared norm of the gradient at a block's input",
        ("network", "blocks", "+ 1: median", "smallest", "largest", "cross term: median", "largest error"),
        tuple(
            (
                one.name,
                str(len(one.blocks)),
                *(f"{of([share.shortcut for share in one.blocks]):.2f}" for of in (np.median, min, max)),
                f"{np.median([share.cross for share in one.blocks]):+.2f}",
                f"{max(share.error for share in one.blocks):.2g}",
            )
            for one in shares
        ),
    )
