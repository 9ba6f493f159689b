"""A comparison of two files of rows in words: tables, what became worse, and whether that is allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from benchmarks.compare.changes import AccuracyChange
from benchmarks.compare.compare import ComparisonReport, RowComparison
from benchmarks.format import ABSENT, count, milliseconds, percent, points
from benchmarks.report.columns import Column, cell_of, table
from exporter.document.blocks import Document, Legend, Remark, Section, Summary

MEANING = (
    "change: how much longer a call takes now, with its 95 % interval; below 0 it is faster. It comes",
    "from each process's own median, and so not from the two columns before it. slower, faster: the",
    "whole interval is, by more than 1 % (by more than 5 % where each side is one process). drop: of",
    "top-1, in points; below 0 it is better now. gate: WORSE is what exit code 1 is for.",
)

REGRESSION = "REGRESSION: "


def _worth(drop: AccuracyChange) -> str:
    return "worse" if drop.interval[0] > 0 else "better" if drop.interval[1] < 0 else "tie"


CONFIGURATION: tuple[Column[RowComparison], ...] = (
    Column("runtime", lambda row: row.backend, left=True),
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
    Column("verdict", cell_of(lambda row: row.p50, lambda change: change.verdict), left=True),
    Column("p99 %", cell_of(lambda row: row.p99, lambda change: f"{100 * change.slowdown:+.1f}")),
    GATE,
)
WORTH: tuple[Column[RowComparison], ...] = (
    *CONFIGURATION,
    Column("old top-1 %", cell_of(lambda row: row.drop, lambda drop: percent(drop.old))),
    Column("new top-1 %", cell_of(lambda row: row.drop, lambda drop: percent(drop.new))),
    Column("drop", cell_of(lambda row: row.drop, lambda drop: points(drop.value, drop.interval))),
    Column("verdict", cell_of(lambda row: row.drop, _worth), left=True),
    GATE,
)


def comparison_document(found: ComparisonReport) -> Document:
    """The rows by subject, device and threads, in their order; the verdict comes last."""
    groups = groupby(found.rows, key=lambda row: (row.subject, row.network, row.device, row.threads))
    sections = (_section(tuple(group)) for _, group in groups)
    lines = [f"{name}: {REGRESSION}was measured before, and is not there now" for name in found.gone]
    lines += found.notices
    lines += [f"in OLD alone: {name}" for name in found.only_old if name not in found.gone]
    lines += [f"in NEW alone: {name}" for name in found.only_new]
    summary = Summary(tuple(map(_remark, lines)), _headline(found))
    return Document("rbench compare", (Legend(("\n".join(MEANING),)), *sections, summary), more="details")


def _section(rows: tuple[RowComparison, ...]) -> Section:
    first = rows[0]
    title = " · ".join(
        dict.fromkeys((first.subject, first.network, f"{first.device}, {count(first.threads, 'thread')}"))
    )
    timed = [row for row in rows if row.p50 is not None]
    evaluated = [row for row in rows if row.drop is not None]
    tables = (table(columns, of) for columns, of in ((SPEED, timed), (WORTH, evaluated)) if of)
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
    words = {"faster": "faster", "tie": "tie" if verdicts["tie"] == 1 else "ties", "slower": "slower"}
    counts = ", ".join(f"{verdicts[verdict]} {word}" for verdict, word in words.items() if verdicts[verdict])
    rows = count(len(found.rows) + len(found.gone), "row")
    worse = len(found.gone) + sum(bool(row.regressions) for row in found.rows)
    what = f"{worse} of {rows} became worse than allowed" if worse else f"{rows} compared"
    allowed = f"allowed: {100 * found.limits.slowdown:g} % slower, {found.limits.drop:g} points of top-1 less"
    return f"{'failed' if worse else 'passed'}: {what}, {counts or 'no latency'} ({allowed})"
