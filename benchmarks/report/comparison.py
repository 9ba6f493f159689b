"""A comparison of two files of results in words: tables, regressions and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from benchmarks.compare.changes import AccuracyChange
from benchmarks.compare.compare import ComparisonReport, RowComparison
from benchmarks.format import ABSENT, change, count, milliseconds, percent
from benchmarks.report.columns import NOT_SIGNIFICANT, Column, cell_of, table
from benchmarks.stats.comparison import NO_DIFFERENCE, Verdict
from exporter.document.blocks import Document, Legend, Remark, Section, Summary

MEANING = (
    (
        "change %",
        "change of the latency, below 0 is faster; it is taken over processes, so it is not exactly the ratio of the "
        "columns before it",
    ),
    ("±", "its 95 % interval"),
    ("slower, faster", "the whole interval is, by more than 1 % (by more than 5 % where each side is one process)"),
    (NOT_SIGNIFICANT, "no significant difference"),
    ("change pp", "change in top-1 accuracy in percentage points, below 0 is worse"),
    ("gate", "WORSE causes exit code 1"),
)
"""The columns of ``rbench compare`` with their definitions."""

REGRESSION = "REGRESSION: "

VERDICTS: dict[Verdict, str] = {"faster": "faster", NO_DIFFERENCE: NOT_SIGNIFICANT, "slower": "slower"}
"""Verdicts as a cell has them."""


def _describe_drop(drop: AccuracyChange) -> str:
    return "worse" if drop.interval[0] > 0 else "better" if drop.interval[1] < 0 else NOT_SIGNIFICANT


def _format_change(drop: AccuracyChange) -> str:
    return change(-drop.value, (-drop.interval[1], -drop.interval[0]))


CONFIGURATION: tuple[Column[RowComparison], ...] = (
    Column("backend", lambda row: row.backend, left=True),
    Column("precision", lambda row: row.precision or ABSENT, left=True),
    Column("batch", lambda row: str(row.batch)),
    Column("graphs", lambda row: "off" if row.cuda_graphs is False else ABSENT, left=True),
    Column("load", lambda row: row.load or ABSENT, left=True),
)
GATE: Column[RowComparison] = Column("gate", lambda row: "WORSE" if row.regressions else "ok", left=True)
SPEED: tuple[Column[RowComparison], ...] = (
    *CONFIGURATION,
    Column("old ms", cell_of(lambda row: row.p50, lambda change: milliseconds(change.old_s))),
    Column("new ms", cell_of(lambda row: row.p50, lambda change: milliseconds(change.new_s))),
    Column("change %", cell_of(lambda row: row.p50, lambda change: change.percent_text)),
    Column("verdict", cell_of(lambda row: row.p50, lambda change: VERDICTS[change.verdict]), left=True),
    Column("p99 %", cell_of(lambda row: row.p99, lambda change: f"{100 * change.slowdown:+.1f}")),
    GATE,
)
ACCURACY: tuple[Column[RowComparison], ...] = (
    *CONFIGURATION,
    Column("old top-1 %", cell_of(lambda row: row.drop, lambda drop: percent(drop.old))),
    Column("new top-1 %", cell_of(lambda row: row.drop, lambda drop: percent(drop.new))),
    Column("change pp", cell_of(lambda row: row.drop, _format_change)),
    Column("verdict", cell_of(lambda row: row.drop, _describe_drop), left=True),
    GATE,
)


def comparison_document(found: ComparisonReport, explain: bool = True) -> Document:
    """The rows by subject, device and threads, in their order; the verdict comes last. ``explain`` adds the definitions
    of the columns."""
    groups = groupby(found.rows, key=lambda row: (row.subject, row.network, row.device, row.threads))
    sections = (_section(tuple(group)) for _, group in groups)
    lines = [f"{name}: {REGRESSION}measured before, missing now" for name in found.gone]
    lines += found.notices
    lines += [f"only in OLD: {name}" for name in found.only_old if name not in found.gone]
    lines += [f"only in NEW: {name}" for name in found.only_new]
    summary = Summary(tuple(map(_remark, lines)), _headline(found))
    legend = (Legend(MEANING),) if explain else ()
    return Document("rbench compare", (*legend, *sections, summary), more="details")


def _section(rows: tuple[RowComparison, ...]) -> Section:
    first = rows[0]
    title = " · ".join(
        dict.fromkeys((first.subject, first.network, f"{first.device}, {count(first.threads, 'thread')}"))
    )
    timed = [row for row in rows if row.p50 is not None]
    evaluated = [row for row in rows if row.drop is not None]
    tables = (table(columns, of) for columns, of in ((SPEED, timed), (ACCURACY, evaluated)) if of)
    return Section(title, (*tables, *map(_remark, _remarks(rows))))


def _remark(line: str) -> Remark:
    return Remark(line, "failure") if REGRESSION in line else Remark(line)


def _remarks(rows: tuple[RowComparison, ...]) -> Iterator[str]:
    """What is said of several rows is said once."""
    told: dict[str, list[str]] = {}
    for row in rows:
        load, graphs = row.load or "", "no CUDA graphs" if row.cuda_graphs is False else ""
        configuration = " ".join(filter(None, (row.backend, row.precision)))
        name = ", ".join(filter(None, (configuration, f"batch {row.batch}", load, graphs)))
        apart = [f"{one.field} {one.old} before, {one.new} now" for one in row.apart]
        for line in (*(f"{REGRESSION}{line}" for line in row.regressions), *apart, *map(str, row.remarks)):
            told.setdefault(line, []).append(name)
    for line, names in sorted(told.items(), key=lambda item: not item[0].startswith(REGRESSION)):
        yield f"{'; '.join(dict.fromkeys(names))}: {line}"


def _headline(found: ComparisonReport) -> str:
    verdicts = Counter[str](row.p50.verdict for row in found.rows if row.p50 is not None)
    words = {verdict: verdict if verdict != NO_DIFFERENCE else f"without {NO_DIFFERENCE[3:]}" for verdict in VERDICTS}
    counts = ", ".join(f"{verdicts[verdict]} {word}" for verdict, word in words.items() if verdicts[verdict])
    rows = count(len(found.rows) + len(found.gone), "row")
    worse = len(found.gone) + sum(bool(row.regressions) for row in found.rows)
    what = f"{worse} of {rows} became worse than allowed" if worse else f"{rows} compared"
    if found.limits.strict and (unreliable := sum(row.is_unreliable for row in found.rows)):
        what += f", {unreliable} of them unreliable"
    allowed = f"allowed: {100 * found.limits.slowdown:g} % slower, {found.limits.drop:g} pp less top-1 accuracy"
    return f"{'passed' if found.passed else 'failed'}: {what}, {counts or 'no latency'} ({allowed})"
