"""A document in Markdown, short enough for a comment on a change: what came of it, and what is wrong; the rest is
folded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from exporter.document import blocks
from exporter.document.blocks import Block, Document, Remark, Section, Table
from runtimes.escaping import MAX_LINE, MAX_QUOTED, html_text, printable

_ACTS = re.compile(r"[\\|`<>\[\]*~$]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w)")
"""Characters that mark code, HTML, links, emphasis, strikes, formulas and entities anywhere in a line."""

_BEGINS_BLOCK = re.compile(r"^(\d{0,9})([-+#=]|[.)](?=\s|$))(?!\d)")
"""What begins a list, a heading or a rule at the start of a line. A number with a sign does not."""

_LINKS = re.compile(r"\b(https?|ftp|www)([:.])", re.IGNORECASE)
_CALLS = re.compile(r"@(?=\w)|#(?=\d)")
"""What GitHub makes a link of by itself, and what calls a person or names an issue."""


def markdown(document: Document) -> str:
    """The summary; of each section its headlines, tables and what is wrong; the rest is folded. All text is escaped.

    A document whose summary has a title begins with that in bold, and its sections have small headings.
    """
    summary = document.summary
    notes = [remark for remark in summary.remarks if remark.kind == "note"]
    alarms = [remark for remark in summary.remarks if remark.kind != "note"]
    folded: list[Remark] = []
    if summary.title:
        lines = [f"**{escape(f'{document.title} {summary.title}')}**", "", *_items(alarms)]
        folded += notes
    else:
        lines = [f"# {escape(document.title)}", ""]
        lines += [line for remark in alarms for line in (f"**{escape(remark.text)}**", "")]
        lines += [line for remark in notes for line in (escape(remark.text), "")]
    level = "####" if summary.title else "##"
    for section in document.sections:
        if not section.appendix:
            lines += _section(section, level, folded)
    if document.more:
        lines += _fold(document.more, [*_items(folded), *_appendices(document), *_terms(document.legend)])
    return "\n".join(lines).rstrip("\n") + "\n"


def escape(text: str, most: int = MAX_LINE) -> str:
    """Text in one line that Markdown shows as it is, in a paragraph, a heading, a list or a table's cell.

    The emphasis of ``*untrained*`` stays. Addresses are no links, nobody is called by name, and no issue is named.
    """
    line = _ACTS.sub(r"\\\g<0>", printable(text, most).strip())
    line = _BEGINS_BLOCK.sub(r"\1\\\2", line).replace(r"\*untrained\*", "*untrained*")
    called = _CALLS.sub(r"\g<0>&#8203;", line)
    return _LINKS.sub(lambda match: f"{match[1]}&#{ord(match[2])};", called)


def _html(text: str) -> str:
    """The same inside of an HTML element, where Markdown's own escapes would be shown."""
    return _CALLS.sub(r"\g<0>&#8203;", html_text(printable(text, MAX_LINE)))


def _section(section: Section, level: str, folded: list[Remark]) -> Iterator[str]:
    """The section, which folds what is not of first importance under its own summary, or leaves its notes to the
    document."""
    if section.title:
        yield from (f"{level} {escape(section.title)}", "")
    aside = [block for block in section.blocks if _stands_aside(block)]
    yield from _blocks([block for block in section.blocks if not _stands_aside(block)])
    if section.more and aside:
        yield from _fold(section.more, _blocks(aside, ended=False))
    elif not section.more:
        folded += [block for block in aside if isinstance(block, Remark)]


def _stands_aside(block: Block) -> bool:
    match block:
        case Table():
            return block.aside
        case Remark():
            return block.kind == "note"
    return isinstance(block, blocks.Folded | blocks.Command | blocks.Definitions)


def _blocks(shown: Sequence[Block], ended: bool = True) -> Iterator[str]:
    """Each block with an empty line behind it; of a list behind the last item, at the end only if it is to be ended."""
    for listed, alike in groupby(shown, lambda block: isinstance(block, Remark | blocks.Verdict | blocks.Definitions)):
        last = None
        for last in alike:
            yield from _lines(last)
        if listed and (ended or last is not shown[-1]):
            yield ""


def _lines(block: Block) -> Iterator[str]:
    match block:
        case Remark(text):
            yield f"- {escape(text)}"
        case blocks.Verdict(outcome, claim, source, found):
            where = f" ({source})" if source else ""
            yield f"- **{escape(outcome)}**: {escape(f'{claim}{where} Found: {found}')}"
        case blocks.Definitions(pairs):
            yield from (f"- {escape(name)}: {escape(words)}" for name, words in pairs)
        case blocks.Sentence(text, role):
            yield from (f"**{escape(text)}**" if role == "headline" else escape(text), "")
        case blocks.Command(text):
            yield from (*_code([text]), "")
        case Table():
            yield from _table(block.narrow(), block.caption)
        case blocks.Folded(summary, inner):
            for one in inner:
                if isinstance(one, Table):
                    yield from _table(one.narrow(), one.caption and f"{summary}. {one.caption}")


def _table(table: Table, caption: str) -> Iterator[str]:
    if caption:
        yield from (escape(caption), "")
    if table.columns:
        rules = ["---" if column.left else "--:" for column in table.columns]
        yield from (_row(map(escape, table.headings)), _row(rules))
        for row in table.rows:
            cells = [escape(cell, MAX_QUOTED) for cell in row.cells]
            yield _row((f"**{cell}**" for cell in cells) if row.state == "best" else cells)
        yield ""


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _appendices(document: Document) -> Iterator[str]:
    """Of what belongs to the whole document the briefs and the commands."""
    shown = [block for section in document.sections if section.appendix for block in section.blocks]
    for brief in dict.fromkeys(block.brief for block in shown if isinstance(block, blocks.Definitions)):
        yield from (escape(brief), "")
    commands = [block.text for block in shown if isinstance(block, blocks.Command)]
    if commands:
        yield from (*_code(commands), "")


def _code(commands: Sequence[str]) -> Iterator[str]:
    """A block of code, whose fence is longer than all that looks like one in it."""
    lines = [printable(command, MAX_LINE) for command in commands]
    fence = "`" * max(3, 1 + max((len(ticks) for line in lines for ticks in re.findall("`+", line)), default=0))
    yield from (fence, *lines, fence)


def _items(remarks: Sequence[Remark]) -> list[str]:
    return [f"- {escape(remark.text)}" for remark in remarks] + [""] * bool(remarks)


def _terms(legend: Sequence[tuple[str, str]]) -> list[str]:
    return [f"- {escape(f'{term}: {words}' if term else words)}" for term, words in legend]


def _fold(summary: str, lines: Iterable[str]) -> list[str]:
    """Lines that are shown when the summary is clicked."""
    return ["<details>", f"<summary>{_html(summary)}</summary>", "", *lines, "", "</details>", ""]
