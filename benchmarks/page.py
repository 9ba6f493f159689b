"""Rows as one HTML page that needs nothing beside it: the tables of ``benchmarks.report``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from benchmarks import report
from benchmarks.results import Row

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 78em; padding: 0 1em; color: #1a1a1a }
table { border-collapse: collapse; margin: 0.8em 0 1.2em; font-variant-numeric: tabular-nums }
th, td { padding: 0.2em 0.7em; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd }
th { border-bottom: 2px solid #888 }
.left { text-align: left }
.missing { color: #8a4b00 }
footer { color: #555; margin-top: 2em }
"""


def html(rows: Sequence[Row], heading: str, complete: bool = True) -> str:
    """The page. All text in it is escaped."""
    lines = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title>',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{escape(heading)}</h1>",
    ]
    if not complete:
        lines.append("<p><strong>Incomplete: the run ended early.</strong></p>")
    for section in report.sections(rows):
        lines += _section(section)
    if rows:
        meaning = " ".join(report.meaning(rows))
        lines.append(f"<footer><p>{escape(report.machine(rows[0]))}</p><p>{escape(meaning)}</p></footer>")
    return "\n".join([*lines, "</body></html>"]) + "\n"


def _section(section: report.Section) -> Iterator[str]:
    yield f"<h2>{escape(section.title)}</h2>"
    for table in section.tables:
        sides = [' class="left"' if left else "" for _, left in table.headings]
        yield "<table><thead><tr>" + _cells("th", [heading for heading, _ in table.headings], sides)
        yield "</tr></thead><tbody>"
        for row in table.cells:
            yield "<tr>" + _cells("td", row, sides) + "</tr>"
        yield "</tbody></table>"
    yield "<ul>"
    for remark in section.remarks:
        missing = any(word in remark for word in report.MISSING)
        yield f'<li class="missing">{escape(remark)}</li>' if missing else f"<li>{escape(remark)}</li>"
    yield "</ul>"


def _cells(tag: str, texts: Sequence[str], sides: Sequence[str]) -> str:
    return "".join(f"<{tag}{side}>{escape(text)}</{tag}>" for text, side in zip(texts, sides, strict=True))
