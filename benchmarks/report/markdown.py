"""A document in Markdown, short enough for a comment on a change: what came of it, and what is wrong; the rest is
folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from exporter.document.blocks import (
    Block,
    Command,
    Definitions,
    Document,
    Folded,
    Remark,
    Section,
    Sentence,
    Table,
    Verdict,
)


def markdown(document: Document) -> str:
    """The summary; of each section its headlines, tables and what is wrong; the rest is folded. All text is escaped.

    A document whose summary has a title begins with that in bold, and its sections have small headings.
    """
    summary = document.summary
    loud, notes = _by_loudness(summary.remarks)
    if summary.title:
        lines = [f"**{escape(f'{document.title} {summary.title}')}**", "", *_items(loud)]
        folded = [*notes]
    else:
        lines = [f"# {escape(document.title)}", ""]
        lines += [line for remark in loud for line in (f"**{escape(remark.text)}**", "")]
        lines += [line for remark in notes for line in (escape(remark.text), "")]
        folded = []
    level = "####" if summary.title else "##"
    for section in document.sections:
        if not section.appendix:
            lines += _section(section, level, folded)
    if document.more:
        lines += _fold(document.more, [*_items(folded), *_appendices(document), *map(escape, document.legend)])
    return "\n".join(lines).rstrip("\n") + "\n"


def escape(text: str) -> str:
    """In one line, and safe in a table's cell and as text; the emphasis of *untrained* stays, and nobody is called by
    name."""
    text = " ".join(text.split())
    for character in "\\|`<>[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("@", "&#64;")


def _section(section: Section, level: str, folded: list[Remark]) -> Iterator[str]:
    """The section, which folds what is not of first importance under its own summary, or leaves its notes to the
    document."""
    if section.title:
        yield from (f"{level} {escape(section.title)}", "")
    yield from _blocks([block for block in section.blocks if not _stands_aside(block)])
    aside = [block for block in section.blocks if _stands_aside(block)]
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
    return isinstance(block, Folded | Command | Definitions)


def _blocks(blocks: Sequence[Block], ended: bool = True) -> Iterator[str]:
    """Each block with an empty line behind it; of a list behind the last item, at the end only if it is to be ended."""
    listed = False
    for block in blocks:
        items = _list_items(block)
        if listed and not items:
            yield ""
        listed = bool(items)
        yield from items or _paragraphs(block)
    if listed and ended:
        yield ""


def _list_items(block: Block) -> list[str]:
    match block:
        case Remark(text):
            return [f"- {escape(text)}"]
        case Verdict(outcome, claim, source, found):
            where = f" ({source})" if source else ""
            return [f"- **{escape(outcome)}**: {escape(f'{claim}{where} Found: {found}')}"]
        case Definitions(pairs):
            return [f"- {escape(name)}: {escape(words)}" for name, words in pairs]
    return []


def _paragraphs(block: Block) -> Iterator[str]:
    match block:
        case Sentence(text, role):
            yield from (f"**{escape(text)}**" if role == "headline" else escape(text), "")
        case Command(text):
            yield from (_code(text), "")
        case Table():
            yield from _table(block.narrow())
        case Folded(summary, blocks):
            for one in blocks:
                if isinstance(one, Table):
                    yield from ((escape(f"{summary}. {one.caption}"), "") if one.caption else ())
                    yield from _rows(one.narrow())


def _table(table: Table) -> Iterator[str]:
    if table.caption:
        yield from (escape(table.caption), "")
    if table.columns:
        yield from _rows(table)


def _rows(table: Table) -> Iterator[str]:
    yield _row(table.headings)
    yield "| " + " | ".join("---" if column.left else "--:" for column in table.columns) + " |"
    yield from map(_row, table.cells)
    yield ""


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(escape, cells)) + " |"


def _appendices(document: Document) -> Iterator[str]:
    """Of what belongs to the whole document the briefs and the commands."""
    blocks = [block for section in document.sections if section.appendix for block in section.blocks]
    for brief in dict.fromkeys(block.brief for block in blocks if isinstance(block, Definitions)):
        yield from (escape(brief), "")
    yield from (_code(block.text) for block in blocks if isinstance(block, Command))
    if blocks:
        yield ""


def _code(text: str) -> str:
    return f"    {' '.join(text.split())}"


def _by_loudness(remarks: Sequence[Remark]) -> tuple[list[Remark], list[Remark]]:
    return [one for one in remarks if one.kind != "note"], [one for one in remarks if one.kind == "note"]


def _items(remarks: Sequence[Remark]) -> list[str]:
    return [f"- {escape(remark.text)}" for remark in remarks] + [""] * bool(remarks)


def _fold(summary: str, lines: Iterable[str]) -> list[str]:
    """Lines that are shown when the summary is clicked."""
    return ["<details>", f"<summary>{escape(summary)}</summary>", "", *lines, "", "</details>", ""]
