"""Findings in words: outcome, claims, plots, tables, and what they rest on."""

from __future__ import annotations

import re
from collections import Counter

from benchmarks.format import ABSENT
from benchmarks.records.findings import Findings, FindingsTable, Outcome, Provenance
from benchmarks.report.plots import FindingsPlots
from exporter.document.blocks import (
    Command,
    Definitions,
    Document,
    Remark,
    Section,
    Sentence,
    Table,
    TableColumn,
    TableRow,
    Verdict,
)

_SEEN: dict[Outcome, str] = {"confirmed": "seen", "contradicted": "contradicted", "undecided": "left undecided"}
_NUMBER = re.compile(r"[-+−±]?[.\d]")


def findings_document(findings: Findings) -> Document:
    """What one experiment found."""
    return Document("rbench paper", (section(findings),))


def section(findings: Findings) -> Section:
    """All that there is of one experiment."""
    provenance = findings.provenance
    blocks = (
        Sentence(headline(findings), "headline", findings.outcome),
        Sentence(describe_provenance(provenance), "aside"),
        *(Verdict(check.outcome, check.said, check.source, check.found) for check in findings.checks),
        FindingsPlots(findings),
        *map(table, findings.tables),
        *([Command(provenance.command)] if provenance.command else ()),
        *map(Remark, findings.notes),
        Definitions(tuple(rests_on(provenance))),
    )
    return Section(findings.title, blocks, "what this rests on")


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


def table(found: FindingsTable) -> Table:
    """The table with the side of each column: what is no number stands at the left. The paper's numbers have columns of
    their own."""
    columns = zip(*found.rows, strict=True) if found.rows else [()] * len(found.headings)
    sides = [all(map(_numeric, cells)) for cells in columns]
    heads = (
        TableColumn(heading, place == 0 or not right, foreign=heading.lower().startswith("paper"))
        for place, (heading, right) in enumerate(zip(found.headings, sides, strict=True))
    )
    return Table(tuple(heads), tuple(map(TableRow, found.rows)), found.caption)


def _numeric(cell: str) -> bool:
    return cell in ("", ABSENT) or _NUMBER.match(cell) is not None
