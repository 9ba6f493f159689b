"""What the models answered, as tables: class by class, pair by pair, and where the answers changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.accuracy import differences
from benchmarks.accuracy.differences import ClassShare, Confusion, Flips
from benchmarks.analysis.figures import Figures
from benchmarks.analysis.ranking import name
from benchmarks.format import ABSENT
from benchmarks.report.columns import Column, table
from exporter.document.blocks import Folded, Table


@dataclass(frozen=True)
class TableLimits:
    """How much is shown at most: of classes those that are answered worst, of pairs those that differ most clearly, of
    changed answers the most frequent."""

    classes: int = 40
    pairs: int = 40
    changes: int = 10


SHORT = TableLimits(classes=5, pairs=5, changes=3)


def tabulate_predictions(results: Sequence[Figures], most: TableLimits) -> Iterator[Folded]:
    """A table by class, one of the pairs of configurations whose answers differ, and one of changed answers for each
    configuration that has any. The results are of one network; the first batch of each counts.

    Raises:
        ArtifactError: the predictions of a result are damaged.
    """
    shown: dict[str, Figures] = {}
    for figures in results:
        if figures.result.predictions is not None:
            shown.setdefault(name(figures.result), figures)
    packed = {label: figures.result.predictions for label, figures in shown.items()}
    shares = {label: differences.per_class(each) for label, each in packed.items() if each is not None}
    if any(shares.values()):
        yield _by_class({label: found for label, found in shares.items() if found}, most.classes)
    yield from _by_pair(shown, most.pairs)
    reference = next((figures for figures in shown.values() if figures.is_reference), None)
    for label, figures in shown.items():
        if reference is not None and figures is not reference:
            yield from _tabulate_confusions(label, figures, reference, most.changes)


def _caption(summary: str, caption: str, found: Table) -> Folded:
    return Folded(summary, (replace(found, caption=caption),))


def _by_class(shares: Mapping[str, tuple[ClassShare, ...]], most: int) -> Folded:
    lookup = {label: {one.name: one for one in found} for label, found in shares.items()}
    first = next(iter(shares.values()))
    lowest = sorted(first, key=lambda one: one.right / one.images)[:most]
    kept = [one for one in first if one in lowest]

    def cell(label: str) -> Column[ClassShare]:
        return Column(f"{label}, %", lambda one: _share(lookup[label].get(one.name)))

    columns = (
        Column[ClassShare]("class", lambda one: one.name, left=True),
        Column[ClassShare]("images", lambda one: f"{one.images:,}"),
        *map(cell, shares),
    )
    left_out = f", the {len(kept)} worst of {len(first)} classes" if len(kept) < len(first) else ""
    caption = f"Share of each class's images that is answered rightly{left_out}; in brackets 95 % intervals (Wilson)"
    return _caption("accuracy by class", caption, table(columns, kept))


def _share(one: ClassShare | None) -> str:
    if one is None:
        return ABSENT
    return f"{100 * one.right / one.images:.1f} [{100 * one.interval[0]:.1f}–{100 * one.interval[1]:.1f}]"


@dataclass(frozen=True)
class _Pair:
    """Two configurations, and how the second one's answers differ from the first one's."""

    first: str
    second: str
    flips: Flips


def _by_pair(shown: Mapping[str, Figures], most: int) -> Iterator[Folded]:
    """Nothing where all answers are the same, or there is no truth."""
    seen = {
        label: (figures.result.predictions.asked, figures.predictions)
        for label, figures in shown.items()
        if figures.result.predictions is not None and figures.predictions is not None
    }
    found = [
        _Pair(one, other, differences.flips(second, first))
        for (one, (asked, first)), (other, (also_asked, second)) in itertools.combinations(seen.items(), 2)
        if asked == also_asked
    ]
    apart = [pair for pair in found if pair.flips.p_value is not None and pair.flips.better + pair.flips.worse]
    kept = sorted(apart, key=lambda pair: pair.flips.p_value or 0.0)[:most]
    if not kept:
        return
    columns = (
        Column[_Pair]("configuration", lambda pair: pair.first, left=True),
        Column[_Pair]("and", lambda pair: pair.second, left=True),
        Column[_Pair]("first alone right", lambda pair: f"{pair.flips.worse:,}"),
        Column[_Pair]("second alone right", lambda pair: f"{pair.flips.better:,}"),
        Column[_Pair]("p", lambda pair: f"{pair.flips.p_value:.2g}"),
    )
    left_out = f", the {len(kept)} clearest of {len(apart)} pairs" if len(kept) < len(apart) else ""
    caption = f"McNemar's exact test{left_out}; p is of each pair for itself, and of many some are small by chance"
    yield _caption("pairs whose answers differ", caption, table(columns, kept))


def _tabulate_confusions(label: str, figures: Figures, reference: Figures, most: int) -> Iterator[Folded]:
    now, before = figures.result.predictions, reference.result.predictions
    if now is None or before is None or now.asked != before.asked:
        return
    found = differences.count_confusions(now, before, most)
    if not found:
        return
    columns = (
        Column[Confusion]("true class", lambda one: one.true or ABSENT, left=True),
        Column[Confusion](f"{name(reference.result)} said", lambda one: one.before, left=True),
        Column[Confusion](f"{label} says", lambda one: one.now, left=True),
        Column[Confusion]("images", lambda one: f"{one.images:,}"),
    )
    yield _caption(
        f"answers that changed: {label}", f"The most frequent changes. {_flips(figures)}", table(columns, found)
    )


def _flips(figures: Figures) -> str:
    if figures.flips is None:
        return ""
    flips = figures.flips
    low, high = flips.real_share_interval
    words = (
        f"{flips.real} real flips ({100 * low:.2f}–{100 * high:.2f} % of all images) and {flips.near_ties} near ties"
    )
    if flips.p_value is None:
        return f"{words}."
    return f"{words}; {flips.better} alone right, {flips.worse} alone wrong, McNemar's exact p = {flips.p_value:.2g}."
