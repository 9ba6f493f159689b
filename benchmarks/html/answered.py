"""What the models answered, class by class, and where the answers changed, as tables of a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks import answers
from benchmarks.answers import ClassShare
from benchmarks.headline import name
from benchmarks.html import tables
from benchmarks.numerals import ABSENT
from benchmarks.report import Column, table
from benchmarks.results import Row
from benchmarks.rows import is_reference

MOST_CLASSES = 40
"""In a table: of more, those that are answered worst."""


def sections(rows: Sequence[Row]) -> Iterator[str]:
    """A table by class, and one of changed answers for each configuration that has any; folded.

    Raises:
        ArtifactError: the answers in a row are damaged.
    """
    shown: dict[str, Row] = {}
    for row in rows:
        if row.answers is not None:
            shown.setdefault(name(row), row)  # the first batch of each
    shares = {label: answers.per_class(row.answers) for label, row in shown.items() if row.answers is not None}
    if any(shares.values()):
        yield tables.folded("accuracy by class", _by_class({k: v for k, v in shares.items() if v}))
    reference = next((row for row in shown.values() if is_reference(row.runtime, row.precision)), None)
    if reference is None:
        return
    for label, row in shown.items():
        if row is not reference and (changed := _changed(label, row, reference)):
            yield tables.folded(f"answers that changed: {label}", changed)


def _by_class(shares: dict[str, tuple[ClassShare, ...]]) -> str:
    lookup = {label: {one.name: one for one in found} for label, found in shares.items()}
    first = next(iter(shares.values()))
    lowest = sorted(first, key=lambda one: one.right / one.images)[:MOST_CLASSES]
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
    return tables.plain_table(table(columns, kept), caption)


def _share(one: ClassShare | None) -> str:
    if one is None:
        return ABSENT
    return f"{100 * one.right / one.images:.1f} [{100 * one.interval[0]:.1f}–{100 * one.interval[1]:.1f}]"


def _changed(label: str, row: Row, reference: Row) -> str:
    if row.answers is None or reference.answers is None or row.answers.asked != reference.answers.asked:
        return ""
    found = answers.confusions_changed(row.answers, reference.answers)
    if not found:
        return ""
    columns = (
        Column[answers.Confusion]("true class", lambda one: one.true or ABSENT, left=True),
        Column[answers.Confusion](f"{name(reference)} said", lambda one: one.before, left=True),
        Column[answers.Confusion](f"{label} says", lambda one: one.now, left=True),
        Column[answers.Confusion]("images", lambda one: f"{one.images:,}"),
    )
    return tables.plain_table(table(columns, found), f"The most frequent changes. {_flips(row)}")


def _flips(row: Row) -> str:
    if row.flips is None:
        return ""
    flips = row.flips
    low, high = flips.real_share_interval
    told = f"{flips.real} real flips ({100 * low:.2f}–{100 * high:.2f} % of all images) and {flips.near_ties} near ties"
    if flips.p_value is None:
        return f"{told}."
    return f"{told}; {flips.better} alone right, {flips.worse} alone wrong, McNemar's exact p = {flips.p_value:.2g}."
