"""What is in a document, for tests: tables as dictionaries, remarks, and the lines of a terminal."""

from __future__ import annotations

import re

from exporter.document.blocks import Document, Kind, Remark, Section, Table
from exporter.document.terminal import as_text


def lines(table: Table) -> list[dict[str, str]]:
    """Each row's cells by their headings; of two alike headings the last."""
    return [dict(zip(table.headings, cells, strict=True)) for cells in table.cells]


def tables(section: Section) -> list[Table]:
    """As a terminal shows them."""
    return [table.narrow() for table in section.all_of(Table)]


def remarks(section: Section, *kinds: Kind) -> list[str]:
    """The texts of all remarks, or of those of these kinds."""
    return [remark.text for remark in section.all_of(Remark) if not kinds or remark.kind in kinds]


def printed(document: Document) -> list[str]:
    """The lines of the plain text, with single spaces."""
    return [" ".join(line.split()) for line in as_text(document).splitlines()]


def numbers(text: str) -> list[str]:
    """All that is a number in a text, in order, as it is written."""
    return re.findall(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w.]*\w)", text)
