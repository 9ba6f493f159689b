"""Findings in words: outcome, claims, plots, tables, and what they rest on."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from benchmarks.format import ABSENT
from benchmarks.records.findings import Findings, FindingsTable, Outcome, Provenance
from exporter.document import blocks
from exporter.document.blocks import Block, Document, Section, Sentence, Table, TableColumn

_SEEN: dict[Outcome, str] = {"confirmed": "seen", "contradicted": "contradicted", "undecided": "left undecided"}
_NUMBER = re.compile(r"[-+−±]?[.\d]")


@dataclass(frozen=True)
class FindingsPlots(Block):
    """What a page draws of an experiment: its panels."""

    findings: Findings


def findings_document(findings: Findings) -> Document:
    """What one experiment found."""
    return Document("rbench paper", (section(findings),))


def section(findings: Findings) -> Section:
    """All that there is of one experiment."""
    provenance = findings.provenance
    shown = (
        Sentence(headline(findings), "headline", findings.outcome),
        Sentence(describe_provenance(provenance), "aside"),
        *(blocks.Verdict(check.outcome, check.said, check.source, check.found) for check in findings.checks),
        FindingsPlots(findings),
        *map(table, findings.tables),
        *([blocks.Command(provenance.command)] if provenance.command else ()),
        *map(blocks.Remark, findings.notes),
        blocks.Definitions(tuple(rests_on(provenance))),
    )
    return Section(findings.title, shown, "what this rests on")


def headline(findings: Findings) -> str:
    """What came of it, in two sentences."""
    counts = Counter(check.outcome for check in findings.checks)
    told = ", ".join(f"{counts[outcome]} {word}" for outcome, word in _SEEN.items() if counts[outcome])
    return f"{findings.outcome.capitalize()}. The paper's claims: {told or 'none was checked'}."


def describe_provenance(provenance: Provenance) -> str:
    """What the findings rest on, in a line: data, images, seeds and the length of the schedule."""
    numbers = ", ".join(map(str, provenance.seeds))
    seeds = f"seed{'s' if len(provenance.seeds) > 1 else ''} {numbers}" if numbers else ""
    return " · ".join(filter(None, (provenance.data, images(provenance), seeds, schedule(provenance))))


def images(provenance: Provenance) -> str:
    """How many, by part; nothing where there are none."""
    counts = ", ".join(f"{count:,} {part}" for part, count in provenance.images.items())
    return f"{counts} images" if counts else ""


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
    columns = list(zip(*found.rows, strict=True)) or [()] * len(found.headings)
    heads = []
    for place, (heading, cells) in enumerate(zip(found.headings, columns, strict=True)):
        numeric = all(cell in ("", ABSENT) or _NUMBER.match(cell) for cell in cells)
        heads.append(TableColumn(heading, place == 0 or not numeric, foreign=heading.lower().startswith("paper")))
    return Table(tuple(heads), tuple(map(blocks.TableRow, found.rows)), found.caption)
