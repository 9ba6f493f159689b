"""How easily README and docs are read: ``python -m scripts.docs.readability``.

The Flesch-Kincaid grade is the number of school years that a text asks for, by textstat. Code, tables and headings are
left out; an item of a list is a sentence.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]

_FIRST = "quickstart.md"
_DOCS = sorted((ROOT / "docs").glob("*.md"), key=lambda path: (path.name != _FIRST, path.name))
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in _DOCS))
"""The documents that are measured, relative to the repository, in an order in which they can be read."""

GRADE_LIMIT = 10.0
"""Largest Flesch-Kincaid grade of a page."""

WORDS_LIMIT = 15.0
"""Largest mean number of words in a sentence of a page."""

README_LINES, README_WORDS = 150, 1200
"""Largest size of the README; words are counted as ``wc`` counts them."""

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`([^`]*)`")
_NO_PROSE = re.compile(r"^(\s*\||#|!!!|    \S)")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")


def prose(markdown: str) -> str:
    """Return the sentences of a Markdown document as plain text, one paragraph or list item a line."""
    for pattern in (_COMMENT, _FENCE, _IMAGE):
        markdown = pattern.sub("", markdown)
    paragraphs: list[str] = []
    for line in markdown.splitlines():
        if not line.strip() or _NO_PROSE.match(line):
            paragraphs.append("")
        elif _ITEM.match(line) or not paragraphs or not paragraphs[-1]:
            paragraphs.append(_ITEM.sub("", line).strip())
        else:
            paragraphs[-1] += f" {line.strip()}"
    plain = (_CODE.sub("name", _LINK.sub(r"\1", paragraph)).replace("*", "") for paragraph in paragraphs if paragraph)
    return "\n".join(text if text[-1] in ".!?" else f"{text.rstrip(':;,')}." for text in plain)


def measure(markdown: str) -> tuple[float, float]:
    """Return the Flesch-Kincaid grade of a Markdown document, and its mean number of words in a sentence."""
    import textstat

    text = prose(markdown)
    return textstat.flesch_kincaid_grade(text), textstat.words_per_sentence(text)


@click.command()
def main() -> None:
    """Print grade and sentence length of each page. The exit code is 1 if a page or the README exceeds its limit."""
    failed = False
    for page in PAGES:
        grade, words = measure((ROOT / page).read_text(encoding="utf-8"))
        exceeds = grade > GRADE_LIMIT or words > WORDS_LIMIT
        failed = failed or exceeds
        click.echo(f"{'EXCEEDS' if exceeds else 'holds  '}  {page}: grade {grade:.1f}, {words:.1f} words a sentence")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines, words_in_all = len(readme.splitlines()), len(readme.split())
    exceeds = lines > README_LINES or words_in_all > README_WORDS
    click.echo(f"{'EXCEEDS' if exceeds else 'holds  '}  README.md: {lines} lines, {words_in_all} words")
    raise SystemExit(1 if failed or exceeds else 0)


if __name__ == "__main__":
    main()
