"""A document as a piece of HTML that stands in somebody else's page, as under a cell of a notebook."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.report.findings import FindingsPlots
from benchmarks.report.load import LoadPlots
from benchmarks.report.run import RunPlots
from benchmarks.report_html import svg
from benchmarks.report_html.page import format_blocks
from exporter.document.blocks import Block, Document, Folded, Section, Table, TableColumn
from runtimes.escaping import html_text as text

STYLE = """
.rexport table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.rexport caption { text-align: left; }
.rexport th, .rexport td { padding: 2px 8px; text-align: right; }
.rexport .left { text-align: left; }
.rexport .headline { font-weight: bold; }
.rexport .best td, .rexport .best th { font-weight: bold; }
.rexport .warning { color: #b45309; }
"""
"""What the notebook's own style sheet leaves open; it takes text and background from there."""


def html_fragment(document: Document) -> str:
    """The document's sections in one ``div``, with headlines, tables and remarks, and its summary at the end. All text
    in it is escaped. It has no plots, no script and nothing that is loaded from elsewhere."""
    tables = [table for section in document.sections for table in section.all_of(Table)]
    rows = [row.attributes for table in tables for row in table.rows if row.attributes]
    names = (list(dict.fromkeys(row[name] for row in rows)) for name in ("backend", "precision"))
    look = svg.choose_style(*names)
    parts: list[str] = []
    for section in document.sections:
        if not section.appendix:
            heading = [f"<h2>{text(section.title)}</h2>"] if section.title else []
            parts += [*heading, *format_blocks(_compact(section).blocks, "", look)]
    remarks = (f"<p>{text(remark.text)}</p>" for remark in document.summary.remarks)
    return "\n".join([f'<div class="rexport"><style>{STYLE}</style>', *parts, *remarks, "</div>"]) + "\n"


def _compact(section: Section) -> Section:
    return replace(section, blocks=tuple(map(_narrow, filter(_is_shown, section.blocks))))


def _is_shown(block: Block) -> bool:
    return not isinstance(block, RunPlots | LoadPlots | FindingsPlots)


def _narrow(block: Block) -> Block:
    if isinstance(block, Folded):
        return replace(block, blocks=tuple(map(_narrow, block.blocks)))
    if not isinstance(block, Table):
        return block
    narrow = block.narrow()  # without what only a page's style sheet and script can show
    return replace(narrow, columns=tuple(TableColumn(column.heading, column.left) for column in narrow.columns))
