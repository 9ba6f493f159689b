"""Findings on the strength of layers: residual nets against plain ones, and deeper nets against shallower ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.format import times
from benchmarks.paper.experiments.curves import judge_larger, layers_line
from benchmarks.paper.probes import Responses
from benchmarks.paper.training.recipe import count_layers
from benchmarks.records import findings
from benchmarks.records.findings import Check, Findings, FindingsTable, Outcome, Panel, Provenance, floats
from exporter.models.variants import kind
from exporter.proportions import Interval
from runtimes.errors import Reason

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 10_000
"""Resamples of the bootstrap."""

SAID_PLAIN = "residual nets respond less strongly than their plain counterparts"
SAID_DEEPER = "the more layers a residual net has, the less each of them changes the signal"


# Comparing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratio:
    """One network's responses over another's: the estimate, and its 95 % bootstrap interval over layers."""

    value: float
    interval: Interval

    @property
    def smaller(self) -> Outcome:
        """Whether the first network's are smaller: undecided where the interval holds 1."""
        return judge_larger(1 - self.interval[1], 1 - self.interval[0])


def median_ratio(responses: Sequence[float], references: Sequence[float]) -> Ratio:
    """Median of the ratios layer by layer, of networks with the same layers; pairs of layers are resampled."""
    ratios = np.asarray(responses) / np.maximum(references, sys.float_info.min)
    return _bootstrap(lambda indices: np.median(ratios[indices], axis=1), len(ratios))


def ratio_of_medians(responses: Sequence[float], references: Sequence[float]) -> Ratio:
    """Median over median, of networks with any number of layers; each network's layers are resampled by themselves."""
    ours, theirs = np.asarray(responses), np.maximum(references, sys.float_info.min)
    random = np.random.default_rng(1)

    def ratios(indices: NDArray[np.int64]) -> Floats:
        others = random.integers(len(theirs), size=(len(indices), len(theirs)))
        resampled: Floats = np.median(ours[indices], axis=1) / np.median(theirs[others], axis=1)
        return resampled

    return Ratio(float(np.median(ours) / np.median(theirs)), _bootstrap(ratios, len(ours)).interval)


def _bootstrap(estimate: Callable[[NDArray[np.int64]], Floats], n: int) -> Ratio:
    """The estimate of all n, and the middle 95 % of those of resamples; it takes indices (resamples, n)."""
    indices = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    low, high = np.quantile(estimate(indices), (0.025, 0.975))
    return Ratio(float(estimate(np.arange(n)[None])[0]), (float(low), float(high)))


# Findings -------------------------------------------------------------------------------------------------------------

Pair: TypeAlias = tuple[Responses, Responses]


def responses_findings(measured: Sequence[Responses], provenance: Provenance) -> Findings:
    """Figure 7 from what was measured, in any order and of whatever networks there are.

    Networks of one variant, as of several seeds, are one line with a band, and are averaged layer by layer for the
    verdicts.
    """
    ordered = sorted(measured, key=lambda one: (count_layers(one.variant), one.variant.residual, one.name))
    groups = [[one for one in ordered if one.variant == row] for row in dict.fromkeys(one.variant for one in ordered)]
    pooled = []
    for group in groups:
        name = group[0].name if len(group) == 1 else group[0].variant.name
        pooled.append(replace(group[0], name=name, std=floats(np.mean([one.std for one in group], axis=0))))
    counterparts, steps = _pair(pooled)
    checks = []
    if counterparts:
        quantity = "median ratio of a layer's response to its plain counterpart's"
        checks.append(_check(SAID_PLAIN, quantity, median_ratio, counterparts))
    if steps:
        quantity = "ratio of the deeper network's median response to the shallower's"
        checks.append(_check(SAID_DEEPER, quantity, ratio_of_medians, steps))
    values = [(group[0].variant, np.array([one.std for one in group])) for group in groups]
    in_order = tuple(layers_line(variant, std) for variant, std in values)
    descending = tuple(layers_line(variant, -np.sort(-std, axis=1)) for variant, std in values)
    y_label, by_size = "standard deviation", "Layers sorted by magnitude"
    return Findings(
        experiment="responses",
        title="Layer responses: what each layer adds to the signal",
        checks=tuple(checks),
        panels=(
            Panel("Layers in order", "layer", y_label, in_order, source="Figure 7, top"),
            Panel(by_size, "layer, strongest first", y_label, descending, source="Figure 7, bottom"),
        ),
        tables=(_table(ordered),),
        notes=tuple(note.sentence for note in limits(counterparts, steps)),
        provenance=provenance,
    )


def limits(counterparts: Sequence[Pair], steps: Sequence[Pair]) -> Iterator[Reason]:
    """What a reader must know of the comparisons, and which there are not."""
    yield Reason(
        "layers-not-independent",
        "The intervals take a network's layers for independent draws, which they are not quite, and speak of these "
        "networks alone: another training may differ by more.",
    )
    if not counterparts:
        yield Reason(
            "no-plain-counterpart",
            "No plain network beside a residual one of the same layers was given: they are not compared.",
        )
    if not steps:
        yield Reason(
            "no-deeper-counterpart",
            "No two residual networks that differ in depth alone were given: depths are not compared.",
        )


def _pair(pooled: Sequence[Responses]) -> tuple[list[Pair], list[Pair]]:
    """Residual networks and the plain ones of the same layers; deeper and next shallower residual networks of one kind.
    The responses come in order of depth."""
    residual, plain = ([one for one in pooled if one.variant.residual == given] for given in (True, False))
    counterparts = [
        (one, other)
        for one, other in product(residual, plain)
        if one.variant.depths == other.variant.depths and kind(one.variant) == kind(other.variant)
    ]
    steps = [
        (deeper, shallower)
        for common in dict.fromkeys(kind(one.variant) for one in residual)
        for shallower, deeper in pairwise(one for one in residual if kind(one.variant) == common)
        if count_layers(deeper.variant) > count_layers(shallower.variant)
    ]
    return counterparts, steps


def _check(claim: str, quantity: str, estimate: Callable[..., Ratio], pairs: Sequence[Pair]) -> Check:
    """Whether the first network of each pair has the smaller responses."""
    ratios = [estimate(first.std, other.std) for first, other in pairs]
    parts = []
    for ratio, pair in zip(ratios, pairs, strict=True):
        layers = " and ".join(dict.fromkeys(str(len(network.std)) for network in pair))
        names = " over ".join(network.name for network in pair)
        parts.append(f"{times(ratio.value, ratio.interval)} of {names} ({layers} layers)")
    outcome = findings.combine_outcomes(ratio.smaller for ratio in ratios)
    return Check(claim, "section 4.2, Figure 7", f"{quantity}: {', '.join(parts)}", outcome)


def _table(measured: Sequence[Responses]) -> FindingsTable:
    columns: dict[str, Callable[[Responses], str]] = {
        "network": lambda one: one.name,
        "layers": lambda one: str(len(one.std)),
        "images": lambda one: f"{one.images:,}",
        "mean": lambda one: f"{np.mean(one.std):.3f}",
        "median": lambda one: f"{np.median(one.std):.3f}",
        "smallest": lambda one: f"{min(one.std):.3f}",
        "largest": lambda one: f"{max(one.std):.3f}",
    }
    caption = "Standard deviation of the layers' responses, after batch-norm and before ReLU and addition"
    return FindingsTable.of(caption, measured, columns)
