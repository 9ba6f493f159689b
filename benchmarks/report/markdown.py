"""Rows and findings in Markdown, short enough for a comment on a change: what came of it and what is wrong, the rest
folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.records.findings import Findings
from benchmarks.records.result import Row
from benchmarks.report import answers as answered
from benchmarks.report import columns, sections
from benchmarks.report import findings as view
from benchmarks.report.columns import Table
from benchmarks.report.sections import Section


def markdown(
    rows: Sequence[Row], heading: str = "rbench", complete: bool = True, findings: Sequence[Findings] = ()
) -> str:
    """The rows' headlines, the table of their speed and what is said of them; the other tables, the machine and the
    command are folded. Then the outcome, checks and tables of all findings; what they rest on is folded. All text is
    escaped.

    Raises:
        ArtifactError: the answers in a row are damaged.
    """
    lines = [f"# {escape(heading)}", ""]
    if not complete:
        lines += ["**Incomplete: the run ended early.**", ""]
    if (verdict := sections.quiet(rows)) is not None:
        lines += [escape(f"**{verdict}**" if verdict.startswith(sections.DISTURBED) else verdict), ""]
    for found in group_sections(rows):
        lines += _section(found)
    for group in sections.groups(rows):
        lines += _format_predictions(group)
    if rows:
        lines += fold("machine, command and what the columns mean", _describe_machine(rows))
    for one in findings:
        lines += _findings(one)
    return "\n".join(lines).rstrip("\n") + "\n"


def group_sections(rows: Sequence[Row]) -> tuple[Section, ...]:
    """The sections of all rows, those of load shapes behind the others."""
    from benchmarks.report import load as loadtable

    plain = [row for row in rows if row.load is None]
    loads = [row for row in rows if row.load is not None]
    return (*sections.sections(plain), *(loadtable.sections(loads) if loads else ()))


def meaning(rows: Sequence[Row]) -> tuple[str, ...]:
    """The lines that explain the columns of these rows."""
    from benchmarks.report import load as loadtable

    plain = [row for row in rows if row.load is None]
    loads = loadtable.MEANING if len(plain) < len(rows) else ()
    return (*(columns.meaning(plain) if plain else ()), *loads)


def commands(rows: Sequence[Row]) -> tuple[str, ...]:
    """The command lines that measured the rows, each once, as a shell takes them."""
    import shlex

    return tuple(dict.fromkeys(shlex.join(row.command) for row in rows if row.command))


def table_lines(table: Table) -> Iterator[str]:
    """One table."""
    yield _row([heading for heading, _ in table.headings])
    yield "| " + " | ".join("---" if left else "--:" for _, left in table.headings) + " |"
    yield from map(_row, table.cells)


def fold(summary: str, lines: Iterable[str]) -> list[str]:
    """Lines that are shown when the summary is clicked."""
    return ["<details>", f"<summary>{escape(summary)}</summary>", "", *lines, "", "</details>", ""]


def escape(text: str) -> str:
    """In one line, and safe in a table's cell and as text; the emphasis of *untrained* stays, and nobody is called by
    name."""
    text = " ".join(text.split())
    for character in "\\|`<>[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("@", "&#64;")


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {escape(section.title)}", "")
    for said in section.headlines:
        yield from (f"**{escape(said)}**", "")
    first, others = section.tables[:1], section.tables[1:]
    for table in first:
        yield from (*table_lines(table), "")
    loud = [
        remark for remark in section.remarks if any(word in remark for word in sections.MISSING + sections.DOUBTFUL)
    ]
    yield from (f"- {escape(remark)}" for remark in loud)
    if loud:
        yield ""
    quiet = [f"- {escape(remark)}" for remark in section.remarks if remark not in loud]
    rest = [line for table in others for line in (*table_lines(table), "")]
    if rest or quiet:
        yield from fold("more of these rows", [*rest, *quiet])


def _findings(findings: Findings) -> Iterator[str]:
    yield from (f"## {escape(findings.title)}", "", f"**{escape(view.headline(findings))}**", "")
    yield from (escape(view.describe_provenance(findings.provenance)), "")
    for check in findings.checks:
        source = f" ({check.source})" if check.source else ""
        yield f"- **{check.outcome}**: {escape(f'{check.said}{source} Found: {check.found}')}"
    if findings.checks:
        yield ""
    for found in findings.tables:
        yield from (escape(found.caption), "", *table_lines(view.table(found)), "")
    notes = [f"- {escape(note)}" for note in findings.notes]
    pairs = [f"- {name}: {escape(words)}" for name, words in view.rests_on(findings.provenance)]
    command = " ".join(findings.provenance.command.split())
    yield from fold("what this rests on", [*([f"    {command}", ""] if command else []), *notes, *pairs])


def _format_predictions(rows: Sequence[Row]) -> list[str]:
    """What these rows of one network answered, in short and folded."""
    lines: list[str] = []
    for one in answered.tabulate_predictions([row for row in rows if row.status == "ok"], answered.SHORT):
        lines += [escape(f"{one.summary}. {one.caption}"), "", *table_lines(one.table), ""]
    return fold(f"what was answered: {sections.title(rows)}", lines) if lines else []


def _describe_machine(rows: Sequence[Row]) -> Iterator[str]:
    for machine in dict.fromkeys(map(sections.machine, rows)):
        yield from (escape(machine), "")
    for command in commands(rows):
        yield f"    {' '.join(command.split())}"
    yield from ("", *map(escape, meaning(rows)))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(escape, cells)) + " |"
