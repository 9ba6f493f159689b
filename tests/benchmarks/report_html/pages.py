"""Pages to test with."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.analysis.figures import Figures
from benchmarks.records.findings import Findings
from benchmarks.report.document import report_document
from benchmarks.report_html.page import html


def page_of(rows: Sequence[Figures], title: str, complete: bool = True, findings: Sequence[Findings] = ()) -> str:
    """The page of a report."""
    return html(report_document(rows, findings, title, complete))
