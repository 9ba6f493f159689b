"""Findings as sections of the page: what the paper says and what was found, plots, tables, and what it all rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.records.findings import Check, Findings
from benchmarks.report import findings as view
from benchmarks.report_html import findings_plots, svg, tables


def section(findings: Findings, place: str) -> Iterator[str]:
    """All that there is of one experiment, as the section ``place`` of the page. All text is escaped."""
    yield f'<section id="{place}"><h2>{escape(findings.title)}</h2>'
    yield f'<p class="headline" data-outcome="{findings.outcome}">{escape(view.headline(findings))}</p>'
    yield f'<p class="sub">{escape(view.describe_provenance(findings.provenance))}</p>'
    if findings.checks:
        yield _checks(findings.checks)
    yield svg.figures(lambda: findings_plots.plots(findings, place))
    for found in findings.tables:
        theirs = [number for number, heading in enumerate(found.headings) if view.is_papers(heading)]
        yield tables.format_headed_table(view.table(found), found.caption, theirs)
    yield tables.remarks(findings.notes)
    yield tables.definitions(view.rests_on(findings.provenance))
    if findings.provenance.command:
        yield tables.command(findings.provenance.command)
    yield "</section>"


def _checks(checks: Sequence[Check]) -> str:
    headings = ("outcome", "the paper says", "where", "found")
    cells = [(check.outcome, check.said, check.source, check.found) for check in checks]
    return tables.sentences(headings, cells, "The paper's claims, and what was found")
