"""What ``rbench tune`` found, for people: every candidate, the front, the best, and what was left out and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from benchmarks.format import ABSENT, count
from benchmarks.records.request import REFERENCE
from benchmarks.records.result import Row
from benchmarks.report import columns, sections, terminal
from benchmarks.report.columns import Column
from benchmarks.report.sections import Section
from benchmarks.tuning.pareto import Choice, ParetoPoint
from benchmarks.tuning.search import TuningResult

FRONT = "*"

MEANING = (
    f"{FRONT}: on the front, nothing measured is both faster and nearer to fp32; tie: not told apart from the",
    "fastest one: of these the fewest threads, then the smallest loss are the best. Candidates are",
    "measured one after another, and those that come near the best again, in turns. In brackets: 95 %",
    "intervals, of times by bootstrap over processes and blocks of calls, of drops from pairs of answers.",
)


def print_findings(findings: TuningResult, file: TextIO, complete: bool = True) -> None:
    """Prints what was found: as wide as the terminal is and with emphasis there, else plain and 100 columns wide."""
    shown = (section(findings),) if findings.rows else ()
    terminal.print_sections(shown, findings.rows, MEANING, file, complete)


def section(findings: TuningResult) -> Section:
    """One table of the candidates, the fastest first, and remarks."""
    choice = findings.choice()
    ordered = sorted(findings.candidates, key=lambda one: one.cost_s)
    tables = (columns.table(_columns(findings, choice), ordered),) if ordered else ()
    return Section(sections.title(findings.rows), tables, tuple(_remarks(findings, choice)))


def _columns(findings: TuningResult, choice: Choice) -> tuple[Column[ParetoPoint], ...]:
    images = Column[ParetoPoint]("images/s", lambda one: f"{one.row.images_per_s or 0:,.0f}")
    return (
        Column("runtime", lambda one: one.row.runtime, left=True),
        Column("precision", lambda one: one.row.precision or ABSENT, left=True),
        Column("threads", lambda one: str(one.row.threads)),
        Column("batch", lambda one: str(one.row.batch)),
        Column("p50 ms" if findings.goal.objective == "latency" else "ms/image", _cost),
        *((images,) if findings.goal.objective == "throughput" else ()),
        Column("drop" if findings.labelled else "logit error %", lambda one: _format_accuracy_drop(findings, one)),
        Column("verdict", lambda one: _mark(choice, one), left=True),
    )


def _cost(one: ParetoPoint) -> str:
    low, high = map(sections.milliseconds, one.cost_interval_s)
    return f"{sections.milliseconds(one.cost_s)} [{low}–{high}]"


def _format_accuracy_drop(findings: TuningResult, one: ParetoPoint) -> str:
    return (
        sections.points(one.accuracy_drop, one.accuracy_drop_interval)
        if findings.labelled
        else f"{100 * one.accuracy_drop:.2f}"
    )


def _mark(choice: Choice, one: ParetoPoint) -> str:
    word = ""
    if one is choice.best:
        word = "best"
    elif any(one is other for other in choice.tied):
        word = "tie"
    elif any(one is other for other in choice.beyond):
        word = "beyond"
    return " ".join(filter(None, (word, FRONT if any(one is other for other in choice.front) else "")))


def _remarks(findings: TuningResult, choice: Choice) -> Iterator[str]:
    yield from (f"{_name(row)}: {row.status}: {row.reason}" for row in findings.rows if row.status != "ok")
    yield from (f"{_name(row)}: {row.note}" for row in findings.rows if row.status == "ok" and row.note)
    yield from (f"left out: {line}" for line in findings.left_out)
    if findings.finalists:
        named = "; ".join(_name(one.row) for one in findings.finalists)
        yield f"measured again in turns, in {len(findings.finalists[0].row.sittings)} processes each: {named}"
    yield from sections.runtimes_of(findings.rows)
    ran = dict.fromkeys(f"{one.row.runtime} {one.row.precision} in {one.row.arithmetic}" for one in findings.candidates)
    if ran:
        yield f"ran: {'; '.join(ran)}"
    for row in findings.rows:
        if row.runtime == REFERENCE and row.status == "ok":
            yield f"reference: {_name(row)}: {sections.milliseconds(row.p50_s)} ms{_top1(row)}"
    yield _bound(findings)
    if choice.best is not None:
        yield _describe_best(findings, choice, choice.best)


def _name(row: Row) -> str:
    threads = count(row.threads, "thread")
    return f"{row.runtime} {row.precision}, {threads}, batch {row.batch}"


def _bound(findings: TuningResult) -> str:
    if findings.labelled:
        images = max(row.images or 0 for row in findings.rows)
        limit = sections.points(findings.goal.max_drop, None)
        return f"bound: a drop of top-1 of at most {limit} points, {images:,} images"
    return (
        "bound: accuracy was not measured, as there are no labelled images or no reference; each precision has passed "
        "the gate on its logits' error when it was exported"
    )


def _describe_best(findings: TuningResult, choice: Choice, best: ParetoPoint) -> str:
    row = best.row
    accuracy_drop = (
        f"a drop of {_format_accuracy_drop(findings, best)} points"
        if findings.labelled
        else f"{_format_accuracy_drop(findings, best)} % logit error"
    )
    ratio = "" if row.ratio is None else f", {row.ratio:.2f} times as fast as {REFERENCE}"
    tied = f"; {len(choice.tied)} tie with it" if choice.tied else ""
    unit = "ms" if findings.goal.objective == "latency" else "ms an image"
    return f"best: {_name(row)}: {_cost(best)} {unit}{ratio}, {accuracy_drop}{tied}"


def _top1(row: Row) -> str:
    return "" if row.top1 is None else f", top-1 {row.top1:.2%}"
