"""Findings on gradients: do they vanish or explode, plain and residual, and what does the ``+ 1`` bring.

The paper argues that plain networks with batch-norm do not fail for vanishing gradients (section 4.1). What is
compared is the gradient at the first block's input over that at the last's: how much it grows on its whole way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.paper.experiments.curves import layers_line, seeds_line
from benchmarks.paper.probes import GradientShares, InitialGradients, Norms, TrainedGradients
from benchmarks.paper.training.recipe import count_layers
from benchmarks.records.findings import Check, Findings, FindingsTable, Line, Panel, Provenance, floats
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
        return [norms.growth for norms in self.seeds]

    @property
    def norm_text(self) -> str:
        return f"{'with' if self.normalised else 'without'} batch-norm"


def gradients_findings(
    initial: Sequence[InitialGradients],
    trained: Sequence[TrainedGradients],
    shares: Sequence[GradientShares],
    batch: str,
    provenance: Provenance,
) -> Findings:
    """What was measured, in pictures and verdicts; any of the three may be empty. ``batch`` describes the batch."""
    ordered = sorted(initial, key=lambda one: (not one.normalised, count_layers(one.variant), one.variant.residual))
    groups = [
        _Group(*kind, tuple(one.norms for one in ordered if (one.variant, one.normalised) == kind))
        for kind in dict.fromkeys((one.variant, one.normalised) for one in ordered)
    ]
    has_plain = any(group.normalised and not group.variant.residual for group in groups)
    notes = limits(batch, has_plain, any(not group.normalised for group in groups), bool(shares))
    return Findings(
        experiment="gradients",
        title="Gradients by layer, and the + 1 of a shortcut",
        checks=tuple(_checks(groups, trained, shares)),
        panels=tuple(_panels(groups, trained, shares)),
        tables=tuple(table for table in _tables(groups, trained, shares) if table.rows),
        notes=tuple(note.sentence for note in notes),
        provenance=provenance,
    )


def limits(batch: str, plain: bool, bare: bool, shares: bool) -> Iterator[Reason]:
    """What a reader must know: of plain networks, of those without batch-norm, of shares, where there are any."""
    yield Reason(
        "gradients-of-one-batch",
        f"Gradients are of the cross-entropy on {batch}, in float64, with each batch's own statistics in batch-norm.",
    )
    if plain:
        yield Reason(
            "growth-by-batch-norm",
            "That batch-norm makes the gradients of a network without shortcuts grow from layer to layer at "
            "initialisation, and that this is over after few steps of training, was found after the paper: Yang et al. "
            "2019 (arXiv 1902.08129).",
        )
    if bare:
        yield Reason(
            "growth-by-shortcuts",
            "Without batch-norm, shortcut and branch add up, and the signal of a residual net about doubles its "
            "variance in each block, forward and back: He et al.'s initialisation is made for networks without "
            "shortcuts.",
        )
    if shares:
        yield Reason(
            "shares-are-projections",
            "Shares are projections on the gradient at a block's input and add up to one with the branch's; y is the "
            "sum in front of the block's last ReLU.",
        )


# Checks ---------------------------------------------------------------------------------------------------------------


def _checks(
    groups: Sequence[_Group], trained: Sequence[TrainedGradients], shares: Sequence[GradientShares]
) -> Iterator[Check]:
    """Verdicts on the plain nets; the residual ones are named beside them."""
    if shares:
        every = [share for one in shares for share in one.blocks]
        worst = max(share.error for share in every)
        parts = []
        for one in shares:
            median = 100 * np.median([share.shortcut for share in one.blocks])
            parts.append(f"{median:.0f} % in {one.name} ({len(one.blocks)} blocks)")
        measured = (
            f"largest relative error {worst:.2g} over {len(every)} blocks; share of the + 1 in the median block: "
            f"{'; '.join(parts)}"
        )
        yield _check(SAID_IDENTITY, "section 3.2, equation 1", measured, worst <= ROUNDING, trained=False)
    later = [one for one in trained if not one.variant.residual]
    begun = [one for one in later if one.iteration > 0]
    normal, bare = ([group for group in groups if group.normalised == normalised] for normalised in (True, False))
    plain = [group for group in normal if not group.variant.residual]
    if plain or later:
        parts = [f"at initialisation {_by_network(plain)}"] if plain else []
        parts += [f"in training {_by_point(later)}"] if later else []
        growths = [growth for group in plain for growth in group.growths] + [one.norms.growth for one in later]
        measured = f"growth of the gradient on its way back: {'; '.join(parts)}"
        yield _check(SAID_PRESENT, "section 4.1", measured, min(growths) >= 1 / HEALTHY, trained=not plain)
    if begun:
        measured = f"growth of the gradient on its way back: {_by_point(begun)}"
        yield _health_check(SAID_HEALTHY, "section 4.1", measured, [one.norms.growth for one in begun], trained=True)
    for claim, some in ((SAID_NORMALISED, normal), (SAID_INITIALISED, bare)):
        plain, residual = ([group for group in some if group.variant.residual == kind] for kind in (False, True))
        if plain:
            others = f"; for comparison {_by_network(residual)}" if residual else ""
            measured = f"growth of the gradient {plain[0].norm_text}: {_by_network(plain)}{others}"
            growths = [growth for group in plain for growth in group.growths]
            yield _health_check(claim, "section 1", measured, growths, trained=False)


def _check(claim: str, source: str, measured: str, holds: bool, *, trained: bool) -> Check:
    return Check(claim, source, measured, "confirmed" if holds else "contradicted", trained)


def _health_check(claim: str, source: str, measured: str, growths: Iterable[float], *, trained: bool) -> Check:
    healthy = all(1 / HEALTHY <= growth <= HEALTHY for growth in growths)
    return _check(
        claim, source, f"{measured}; healthy is a growth of 1/{HEALTHY:g} to {HEALTHY:g}", healthy, trained=trained
    )


def _by_point(trained: Sequence[TrainedGradients]) -> str:
    """The least and the greatest growth of each network; a table has each point."""
    networks: dict[str, list[TrainedGradients]] = {}
    for one in trained:
        networks.setdefault(one.variant.name, []).append(one)
    parts = []
    for name, points in networks.items():
        growths, iterations = ([point.norms.growth for point in points], [point.iteration for point in points])
        span = " to ".join(dict.fromkeys((_short(min(growths)), _short(max(growths)))))
        when = " to ".join(dict.fromkeys((f"{min(iterations):,}", f"{max(iterations):,}")))
        parts.append(f"{span} in {name} (iteration{'s' * (len(points) > 1)} {when})")
    return ", ".join(parts)


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


def _panels(
    groups: Sequence[_Group], trained: Sequence[TrainedGradients], shares: Sequence[GradientShares]
) -> Iterator[Panel]:
    """Weight gradients by layer at initialisation; what becomes of a gradient, by depth; weight gradients along
    training, a panel a network, a line a point; and the shares."""
    for norm_text in dict.fromkeys(group.norm_text for group in groups):
        lines = [
            layers_line(group.variant, np.array([norms.weight_rms for norms in group.seeds]), log=True)
            for group in groups
            if group.norm_text == norm_text
        ]
        yield _layers_panel(f"Weight gradients at initialisation, {norm_text}", lines)
    kinds: dict[tuple[str, str], list[_Group]] = {}
    for group in groups:
        kinds.setdefault((group.norm_text, group.variant.paper_word), []).append(group)
    if any(len(kind) > 1 for kind in kinds.values()):
        title = "Gradient at the first block over that at the last, at initialisation"
        lines = []
        for (norm_text, family), kind in kinds.items():
            depths = [count_layers(group.variant) for group in kind]
            seeds = min(len(group.seeds) for group in kind)  # those that every depth has
            growths, dashed = np.array([group.growths[:seeds] for group in kind]).T, family == "plain"
            lines.append(seeds_line(f"{norm_text}, {family}", norm_text, depths, growths, dashed=dashed, log=True))
        yield Panel(title, "layers", "ratio of norms", tuple(lines), y_scale="log")
    for variant in dict.fromkeys(one.variant for one in trained):
        points = [one for one in trained if one.variant == variant]
        lines = [_numbered_line(f"after {one.iteration:,} iterations", one.norms.weight_rms) for one in points]
        yield _layers_panel(f"Weight gradients in training, {variant.name}", lines)
    if shares:
        lines = [_numbered_line(one.name, [share.shortcut for share in one.blocks]) for one in shares]
        yield Panel("The + 1 in each block's gradient", "block with an identity shortcut", "share", tuple(lines))


def _layers_panel(title: str, lines: Sequence[Line]) -> Panel:
    return Panel(title, "layer", "root mean square", tuple(lines), y_scale="log")


def _numbered_line(label: str, y: Sequence[float]) -> Line:
    return Line(label, label, floats(range(1, len(y) + 1)), floats(y))


# Tables ---------------------------------------------------------------------------------------------------------------


def _tables(
    groups: Sequence[_Group], trained: Sequence[TrainedGradients], shares: Sequence[GradientShares]
) -> Iterator[FindingsTable]:
    at_start: dict[str, Callable[[_Group], str]] = {
        "network": lambda group: group.variant.name,
        "batch-norm": lambda group: "yes" if group.normalised else "no",
        "seeds": lambda group: str(len(group.seeds)),
        "first layer's weights": lambda group: _range([norms.weight_rms[0] for norms in group.seeds]),
        "last layer's weights": lambda group: _range([norms.weight_rms[-1] for norms in group.seeds]),
        "first block over last": lambda group: _range(group.growths),
    }
    yield FindingsTable.of("Gradients at initialisation: geometric mean [range] over seeds", groups, at_start)
    in_training: dict[str, Callable[[TrainedGradients], str]] = {
        "network": lambda one: one.variant.name,
        "iteration": lambda one: f"{one.iteration:,}",
        "first layer's weights": lambda one: _short(one.norms.weight_rms[0]),
        "last layer's weights": lambda one: _short(one.norms.weight_rms[-1]),
        "first block over last": lambda one: _short(one.norms.growth),
    }
    yield FindingsTable.of("Gradients in training", trained, in_training)
    of_shares: dict[str, Callable[[GradientShares], str]] = {
        "network": lambda one: one.name,
        "blocks": lambda one: str(len(one.blocks)),
        "+ 1: median": lambda one: f"{np.median([share.shortcut for share in one.blocks]):.2f}",
        "smallest": lambda one: f"{min(share.shortcut for share in one.blocks):.2f}",
        "largest": lambda one: f"{max(share.shortcut for share in one.blocks):.2f}",
        "cross term: median": lambda one: f"{np.median([share.cross for share in one.blocks]):+.2f}",
        "largest error": lambda one: f"{max(share.error for share in one.blocks):.2g}",
    }
    yield FindingsTable.of("Shares of the squared norm of the gradient at a block's input", shares, of_shares)
