"""Findings on gradients: do they vanish or explode, plain and residual, and what does the ``+ 1`` bring.

The paper argues that plain networks with batch-norm do not fail for vanishing gradients (section 4.1). What is
compared is the gradient at the first block's input over that at the last's: how much it grows on its whole way back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.paper.experiments.seeds import layers_line, line_by_number, seeds_line
from benchmarks.paper.probes.gradients import GradientShares, InitialGradients, Norms, TrainedGradients
from benchmarks.paper.training.recipe import count_layers
from benchmarks.records.findings import Check, Findings, FindingsTable, Line, Panel, Provenance
from exporter.models.variants import Variant
from runtimes.errors import Reason

HEALTHY = 100.0
"""A gradient that grows or shrinks by no more than this factor through all blocks counts as healthy."""

ROUNDING = 1e-12
"""Relative error up to which a sum of float64 numbers is right but for rounding."""

SAID_IDENTITY = "a block gives y = F(x) + x, so the gradient at x is the one at y times F'(x) + 1"
SAID_PRESENT = "with batch-norm, the gradients of plain nets do not vanish on their way back"
SAID_HEALTHY = "with batch-norm, the gradients of plain nets have healthy norms in training"
SAID_NORMALISED = "normalising layers keep the gradients of plain nets from vanishing and exploding at the beginning"
SAID_INITIALISED = "a normalised initialisation keeps the gradients of plain nets from vanishing and exploding"


@dataclass(frozen=True)
class _Group:
    """The seeds of one network, initialised, with batch-norm or without."""

    variant: Variant
    normalised: bool
    seeds: tuple[Norms, ...]

    @property
    def growths(self) -> list[float]:
        return [growth(norms) for norms in self.seeds]

    @property
    def norm_text(self) -> str:
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
    """What was measured, in pictures and verdicts; any of the three may be empty. ``batch`` describes the batch."""
    groups = _group_initial(initial)
    normal, bare = ([group for group in groups if group.normalised == normalised] for normalised in (True, False))
    plain = [group for group in normal if not group.variant.residual]
    later = [one for one in trained if not one.variant.residual]
    begun = [one for one in later if one.iteration > 0]
    checks = [_identity_check(shares)] if shares else []
    if plain or later:
        checks.append(_present_check(plain, later))
    if begun:
        measured = f"on its way back the gradient is multiplied by {_by_point(begun)}; the limit is {HEALTHY:g} times"
        checks.append(
            _check(SAID_HEALTHY, "section 4.1", measured, all(_is_healthy(growth(one.norms)) for one in begun))
        )
    checks += [
        _initial_check(claim, some)
        for claim, some in ((SAID_NORMALISED, normal), (SAID_INITIALISED, bare))
        if any(not group.variant.residual for group in some)
    ]
    tables = [_initial_table(groups), _training_table(trained), _share_table(shares)]
    return Findings(
        experiment="gradients",
        title="Gradients by layer, and the + 1 of a shortcut",
        checks=tuple(checks),
        panels=(*_initial_panels(groups), *_training_panels(trained), *_share_panels(shares)),
        tables=tuple(table for table in tables if table.rows),
        notes=tuple(note.sentence for note in limits(batch, bool(plain), bool(bare), bool(shares))),
        provenance=provenance,
    )


def limits(batch: str, plain: bool, bare: bool, shares: bool) -> list[Reason]:
    """What a reader must know: of plain networks, of those without batch-norm, of shares, where there are any."""
    notes = [
        Reason(
            "gradients-of-one-batch",
            f"Gradients are of the cross-entropy on {batch}, in float64, with each batch's own statistics in "
            "batch-norm.",
        )
    ]
    if plain:
        notes.append(
            Reason(
                "growth-by-batch-norm",
                "That batch-norm makes the gradients of a network without shortcuts grow from layer to layer at "
                "initialisation, and that this is over after few steps of training, was found after the paper: Yang et "
                "al. 2019 (arXiv 1902.08129).",
            )
        )
    if bare:
        notes.append(
            Reason(
                "growth-by-shortcuts",
                "Without batch-norm, shortcut and branch add up, and the signal of a residual net about doubles its "
                "variance in each block, forward and back: He et al.'s initialisation is made for networks without "
                "shortcuts.",
            )
        )
    if shares:
        notes.append(
            Reason(
                "shares-are-projections",
                "Shares are projections on the gradient at a block's input and add up to one with the branch's; y is "
                "the sum in front of the block's last ReLU.",
            )
        )
    return notes


def _group_initial(initial: Sequence[InitialGradients]) -> list[_Group]:
    ordered = sorted(initial, key=lambda one: (not one.normalised, count_layers(one.variant), one.variant.residual))
    kinds = dict.fromkeys((one.variant, one.normalised) for one in ordered)
    return [
        _Group(*kind, tuple(one.norms for one in ordered if (one.variant, one.normalised) == kind)) for kind in kinds
    ]


# Checks ---------------------------------------------------------------------------------------------------------------


def _check(claim: str, source: str, measured: str, holds: bool) -> Check:
    return Check(claim, source, measured, "confirmed" if holds else "contradicted")


def _identity_check(shares: Sequence[GradientShares]) -> Check:
    every = [share for one in shares for share in one.blocks]
    worst = max(share.error for share in every)
    parts = [
        f"{np.median([share.shortcut for share in one.blocks]):.0%} in {one.name} ({len(one.blocks)} blocks)"
        for one in shares
    ]
    measured = (
        f"largest relative error {worst:.2g} over {len(every)} blocks; of the gradient in the median block the + 1 "
        f"brings {'; '.join(parts)}"
    )
    return _check(SAID_IDENTITY, "section 3.2, equation 1", measured, worst <= ROUNDING)


def _present_check(initial: Sequence[_Group], trained: Sequence[TrainedGradients]) -> Check:
    parts = [f"by {_by_network(initial)} at initialisation"] if initial else []
    if trained:
        parts.append(f"by {_by_point(trained)}")
    growths = [value for group in initial for value in group.growths] + [growth(one.norms) for one in trained]
    measured = f"on its way back the gradient is multiplied {' and '.join(parts)}"
    return _check(SAID_PRESENT, "section 4.1", measured, min(growths) >= 1 / HEALTHY)


def _initial_check(claim: str, groups: Sequence[_Group]) -> Check:
    """A verdict on the plain nets; the residual ones are named beside them."""
    plain = [group for group in groups if not group.variant.residual]
    residual = [group for group in groups if group.variant.residual]
    others = f", and beside them {_by_network(residual)}" if residual else ""
    measured = (
        f"{plain[0].norm_text} the gradient is multiplied on its way back by {_by_network(plain)}{others}; the limit "
        f"is {HEALTHY:g} times"
    )
    return _check(claim, "section 1", measured, all(_is_healthy(one) for group in plain for one in group.growths))


def _is_healthy(change: float) -> bool:
    return 1 / HEALTHY <= change <= HEALTHY


def _by_point(trained: Sequence[TrainedGradients]) -> str:
    return ", ".join(
        f"{_short(growth(one.norms))} in {one.variant.name} after {one.iteration:,} iterations" for one in trained
    )


def _by_network(groups: Sequence[_Group]) -> str:
    return ", ".join(f"{_range(group.growths)} in {group.variant.name}" for group in groups)


def _range(values: Sequence[float]) -> str:
    """Geometric mean, and the range that the seeds span."""
    middle = _short(float(np.exp(np.mean(np.log(values)))))
    return middle if len(values) == 1 else f"{middle} [{_short(min(values))}–{_short(max(values))}]"


def _short(value: float) -> str:
    """Two digits; an exponent only where there would be many zeros."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if 100 <= rounded < 1e6 else f"{rounded:.2g}"


# Panels ---------------------------------------------------------------------------------------------------------------


def _layers_panel(title: str, lines: Sequence[Line]) -> Panel:
    return Panel(title, "layer", "root mean square", tuple(lines), y_scale="log")


def _initial_panels(groups: Sequence[_Group]) -> list[Panel]:
    """Weight gradients by layer, with batch-norm and without; and what becomes of a gradient, by depth."""
    panels = [
        _layers_panel(
            f"Weight gradients at initialisation, {norm_text}",
            [
                layers_line(group.variant, np.array([norms.weight_rms for norms in group.seeds]), log=True)
                for group in groups
                if group.norm_text == norm_text
            ],
        )
        for norm_text in dict.fromkeys(group.norm_text for group in groups)
    ]
    kinds = dict.fromkeys((group.norm_text, group.variant.family) for group in groups)
    of_kinds = [[group for group in groups if (group.norm_text, group.variant.family) == kind] for kind in kinds]
    if any(len(group) > 1 for group in of_kinds):
        title = "Gradient at the first block over that at the last, at initialisation"
        lines = tuple(map(_depth_line, of_kinds))
        panels.append(Panel(title, "layers", "ratio of norms", lines, y_scale="log"))
    return panels


def _depth_line(groups: Sequence[_Group]) -> Line:
    variant, norm_text = groups[0].variant, groups[0].norm_text
    depths = [count_layers(group.variant) for group in groups]
    seeds = min(len(group.seeds) for group in groups)  # those that every depth has
    growths = np.array([group.growths[:seeds] for group in groups]).T
    label, dashed = f"{norm_text}, {variant.family}", not variant.residual
    return seeds_line(label, norm_text, depths, growths, dashed=dashed, log=True)


def _training_panels(trained: Sequence[TrainedGradients]) -> list[Panel]:
    """Weight gradients by layer along training: a panel a network, a line a point."""
    return [
        _layers_panel(
            f"Weight gradients in training, {variant.name}",
            [
                line_by_number(f"after {one.iteration:,} iterations", one.norms.weight_rms)
                for one in trained
                if one.variant == variant
            ],
        )
        for variant in dict.fromkeys(one.variant for one in trained)
    ]


def _share_panels(shares: Sequence[GradientShares]) -> list[Panel]:
    if not shares:
        return []
    lines = tuple(line_by_number(one.name, [share.shortcut for share in one.blocks]) for one in shares)
    return [Panel("The + 1 in each block's gradient", "block with an identity shortcut", "share", lines)]


# Tables ---------------------------------------------------------------------------------------------------------------


def _initial_table(groups: Sequence[_Group]) -> FindingsTable:
    columns: dict[str, Callable[[_Group], str]] = {
        "network": lambda group: group.variant.name,
        "batch-norm": lambda group: "yes" if group.normalised else "no",
        "seeds": lambda group: str(len(group.seeds)),
        "first layer's weights": lambda group: _range([norms.weight_rms[0] for norms in group.seeds]),
        "last layer's weights": lambda group: _range([norms.weight_rms[-1] for norms in group.seeds]),
        "first block over last": lambda group: _range(group.growths),
    }
    return FindingsTable.of("Gradients at initialisation: geometric mean [range] over seeds", groups, columns)


def _training_table(trained: Sequence[TrainedGradients]) -> FindingsTable:
    columns: dict[str, Callable[[TrainedGradients], str]] = {
        "network": lambda one: one.variant.name,
        "iteration": lambda one: f"{one.iteration:,}",
        "first layer's weights": lambda one: _short(one.norms.weight_rms[0]),
        "last layer's weights": lambda one: _short(one.norms.weight_rms[-1]),
        "first block over last": lambda one: _short(growth(one.norms)),
    }
    return FindingsTable.of("Gradients in training", trained, columns)


def _share_table(shares: Sequence[GradientShares]) -> FindingsTable:
    columns: dict[str, Callable[[GradientShares], str]] = {
        "network": lambda one: one.name,
        "blocks": lambda one: str(len(one.blocks)),
        "+ 1: median": lambda one: f"{np.median([share.shortcut for share in one.blocks]):.2f}",
        "smallest": lambda one: f"{min(share.shortcut for share in one.blocks):.2f}",
        "largest": lambda one: f"{max(share.shortcut for share in one.blocks):.2f}",
        "cross term: median": lambda one: f"{np.median([share.cross for share in one.blocks]):+.2f}",
        "largest error": lambda one: f"{max(share.error for share in one.blocks):.2g}",
    }
    return FindingsTable.of("Shares of the squared norm of the gradient at a block's input", shares, columns)
