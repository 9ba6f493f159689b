"""Findings in words: for the terminal, and the pieces that the page and the Markdown say alike."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest

from benchmarks.format import ABSENT
from benchmarks.records.findings import Check, Findings, FindingsTable, Outcome, Provenance
from benchmarks.report import columns as report_columns

WIDTH = 100
NARROWEST = 8
"""Columns that a column of a table keeps when there is too little room."""

_SEEN: dict[Outcome, str] = {"confirmed": "seen", "contradicted": "contradicted", "undecided": "left undecided"}
_NUMBER = re.compile(r"[-+−±]?[.\d]")


def format_findings(findings: Findings) -> list[str]:
    """For a terminal or a pipe, of 100 columns at most: title, outcome, checks, tables, notes and what it rests on."""
    said = [*_wrap(findings.title), *_wrap(headline(findings)), *_wrap(describe_provenance(findings.provenance))]
    for check in findings.checks:
        said += ["", *_check(check)]
    for found in findings.tables:
        said += ["", *_wrap(found.caption), "", *_table(table(found))]
    if findings.notes:
        said += ["", *(line for note in findings.notes for line in _wrap(f"- {note}", "  "))]
    return said


def headline(findings: Findings) -> str:
    """What came of it, in two sentences."""
    counts = Counter(check.outcome for check in findings.checks)
    told = ", ".join(f"{counts[outcome]} {word}" for outcome, word in _SEEN.items() if counts[outcome])
    return f"{findings.outcome.capitalize()}. The paper's claims: {told or 'none was checked'}."


def describe_provenance(provenance: Provenance) -> str:
    """What the findings rest on, in a line: data, images, seeds and the length of the schedule."""
    seeds = ", ".join(map(str, provenance.seeds))
    parts = (
        provenance.data,
        images(provenance),
        f"seed{'s' if len(provenance.seeds) > 1 else ''} {seeds}" if seeds else "",
        schedule(provenance),
    )
    return " · ".join(filter(None, parts))


def images(provenance: Provenance) -> str:
    """How many, by part; nothing where there are none."""
    return ", ".join(f"{count:,} {part}" for part, count in provenance.images.items()) + (
        " images" if provenance.images else ""
    )


def schedule(provenance: Provenance) -> str:
    """How much of the paper's was run."""
    if provenance.scale is None:
        return "schedules of several lengths" if provenance.recipe else "nothing was trained"
    part = "" if provenance.scale == 1 else f"{provenance.scale:.3g} of "
    if provenance.until is not None:
        return f"up to iteration {provenance.until:,} of {part}the paper's schedule"
    return f"{part}the paper's schedule" if part else "the paper's whole schedule"


def rests_on(provenance: Provenance) -> list[tuple[str, str]]:
    """Names and what they are, but for the command; what there is nothing to say of is left out."""
    pairs = (
        ("data", provenance.data),
        ("images", images(provenance)),
        ("seeds", ", ".join(map(str, provenance.seeds))),
        ("schedule", schedule(provenance)),
        ("recipe", provenance.recipe),
        ("machine", provenance.machine),
        ("versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())),
        ("time", provenance.time),
    )
    return [(name, words) for name, words in pairs if words]


def table(found: FindingsTable) -> report_columns.Table:
    """The table with the side of each column: what is no number stands at the left."""
    columns = zip(*found.rows, strict=True) if found.rows else [()] * len(found.headings)
    sides = [all(map(_numeric, cells)) for cells in columns]
    headings = (
        (name, place == 0 or not right) for place, (name, right) in enumerate(zip(found.headings, sides, strict=True))
    )
    return report_columns.Table(tuple(headings), found.rows)


def is_papers(heading: str) -> bool:
    """Whether the column holds the paper's numbers."""
    return heading.lower().startswith("paper")


def _numeric(cell: str) -> bool:
    return cell in ("", ABSENT) or _NUMBER.match(cell) is not None


def _check(check: Check) -> Iterator[str]:
    source = f" ({check.source})" if check.source else ""
    yield from _wrap(f"{check.outcome:14}{check.said}{source}", " " * 14)
    yield from _wrap(f"{'':14}found: {check.found}", " " * 14)


def _table(found: report_columns.Table) -> Iterator[str]:
    """Aligned; cells wrap where the whole is too wide."""
    lefts = [left for _, left in found.headings]
    rows = [tuple(map(_plain, row)) for row in ((name for name, _ in found.headings), *found.cells)]
    widths = _fit_widths([max(map(len, column)) for column in zip(*rows, strict=True)])
    for place, row in enumerate(rows):
        cells = (textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=True))
        for line in zip_longest(*cells, fillvalue=""):
            aligned = zip(line, widths, lefts, strict=True)
            yield "  ".join(f"{text:{'<' if left else '>'}{width}}" for text, width, left in aligned).rstrip()
        if place == 0:
            yield "  ".join("-" * width for width in widths)


def _fit_widths(widths: list[int]) -> list[int]:
    """The same, or the widest made narrower until all have room side by side."""
    widths = [max(1, width) for width in widths]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _wrap(text: str, indent: str = "") -> list[str]:
    start = text[: len(text) - len(text.lstrip())]
    return textwrap.wrap(start + _plain(text), WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _plain(text: str) -> str:
    """In one line, without what moves a terminal's cursor; runs of spaces stay, as they align."""
    return "".join(character if character.isprintable() else " " for character in text).strip()
