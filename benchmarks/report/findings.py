"""Findings in words: outcome, claims, plots, tables, method and machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.format import ABSENT, count
from benchmarks.records.findings import CONCLUSIVE_SHARE, Findings, FindingsTable, Outcome, Provenance
from exporter.document import blocks
from exporter.document.blocks import Block, Document, Section, Sentence, Table, TableColumn

_WORDS: dict[Outcome, str] = {
    "confirmed": "reproduced",
    "contradicted": "contradicted",
    "undecided": "inconclusive",
}
"""Outcomes in the words that people read."""

_NUMBER = re.compile(r"[-+−±]?[.\d]")


@dataclass(frozen=True)
class FindingsPlots(Block):
    """The panels of an experiment, which a page draws."""

    findings: Findings


def findings_document(findings: Findings) -> Document:
    """What one experiment found."""
    return Document("rbench paper", (section(findings),))


def section(findings: Findings) -> Section:
    """All that there is of one experiment."""
    provenance = findings.provenance
    shown = (
        Sentence(headline(findings), "headline", _WORDS[findings.outcome] if findings.checks else ""),
        Sentence(describe_provenance(provenance), "aside"),
        *(
            blocks.Verdict(_WORDS[findings.outcome_of(check)], check.said, check.source, check.found)
            for check in findings.checks
        ),
        FindingsPlots(findings),
        *map(table, findings.tables),
        *([blocks.Command(provenance.command)] if provenance.command else ()),
        *map(blocks.Remark, findings.notes),
        blocks.Definitions(tuple(rests_on(provenance))),
    )
    return Section(findings.title, shown, "method and machine")


def headline(findings: Findings) -> str:
    """How many of the paper's claims the experiment reproduced, in one sentence."""
    experiment = findings.experiment.capitalize()
    if not findings.checks:
        return f"{experiment}: no claim was checked"
    reason = ""
    if findings.too_short and any(check.trained for check in findings.checks):
        share, least = findings.provenance.share or 0, CONCLUSIVE_SHARE
        reason = (
            f": training covers {100 * share:.3g} % of the paper's schedule, and at least {100 * least:g} % is needed"
        )
    return f"{experiment}: {_count_claims([findings])}{reason}"


def overall_headline(experiments: Sequence[Findings]) -> str:
    """The same of several experiments together."""
    return f"{_count_claims(experiments)}, in {len(experiments)} experiments"


def _count_claims(experiments: Sequence[Findings]) -> str:
    counts = Counter(_WORDS[one.outcome_of(check)] for one in experiments for check in one.checks)
    total = counts.total()
    others = "".join(f", {number} {word}" for word, number in counts.items() if word != _WORDS["confirmed"])
    return f"{counts[_WORDS['confirmed']]} of {count(total, 'claim')} reproduced{others}"


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
    """The length of the training, as a share of the paper's schedule."""
    if provenance.scale is None:
        return "schedules of several lengths" if provenance.recipe else "no training"
    part = (
        "the paper's schedule" if provenance.scale == 1 else f"{100 * provenance.scale:.3g} % of the paper's schedule"
    )
    return part if provenance.until is None else f"{part}, stopped at iteration {provenance.until:,}"


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
    """The table with the side of each column: numbers stand at the right."""
    columns = list(zip(*found.rows, strict=True)) or [()] * len(found.headings)
    heads = []
    for place, (heading, cells) in enumerate(zip(found.headings, columns, strict=True)):
        numeric = all(cell in ("", ABSENT) or _NUMBER.match(cell) for cell in cells)
        heads.append(TableColumn(heading, place == 0 or not numeric))
    return Table(tuple(heads), tuple(map(blocks.TableRow, found.rows)), found.caption)
