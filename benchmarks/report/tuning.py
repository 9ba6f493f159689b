"""The outcome of ``rbench tune`` in words: the best, all candidates, and those that were rejected or left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.analysis.figures import Figures, negate
from benchmarks.analysis.ranking import title
from benchmarks.format import ABSENT, change, count, duration, milliseconds, percent, points, rounded_times
from benchmarks.records.request import REFERENCE
from benchmarks.records.result import Result
from benchmarks.report import columns, run
from benchmarks.report.columns import Column, spread, table, value_of
from benchmarks.report.document import document_of
from benchmarks.tuning.pareto import Choice, ParetoPoint
from benchmarks.tuning.search import TuningResult
from exporter.document.blocks import Document, Remark, Section, Sentence
from exporter.precision.acceptance import describe_resolution, resolution

MARKS = ("best", columns.NOT_SIGNIFICANT, "rejected", "Pareto-optimal")

MEANING = (
    (
        columns.NOT_SIGNIFICANT,
        "no significant difference from the fastest; the best of these has the fewest threads, then the smallest loss "
        "of accuracy",
    ),
    ("rejected", "accuracy below the limit"),
    ("Pareto-optimal", "no candidate is both faster and more accurate"),
    (
        "±",
        "the 95 % interval; each candidate is measured in one process, which gives none, and those near the best are "
        "measured again, interleaved",
    ),
)
"""The columns of ``rbench tune`` with their definitions."""


def tuning_document(findings: TuningResult, complete: bool = True, explain: bool = False) -> Document:
    """The outcome of the search: the best, one table of the candidates with the fastest first, and remarks. The verdict
    is that on the finalists, if there are any."""
    results = Figures.of_all(findings.results)
    sections = (_section(findings, results),) if results else ()
    judged = [point.figures for point in findings.finalists] or results
    return document_of(sections, judged, MEANING if explain else (), complete)


def _section(findings: TuningResult, results: Sequence[Figures]) -> Section:
    choice = findings.choice()
    ordered = sorted(findings.candidates, key=lambda one: one.cost_s.value)
    tables = (table(_columns(findings, choice), ordered),) if ordered else ()
    failures = (
        Remark(f"{_name(each.result)}: {each.result.status}: {each.result.reason}", "failure", each.result.status)
        for each in results
        if each.result.status != "ok"
    )
    best = () if choice.best is None else (Sentence(_describe_best(findings, choice, choice.best), "headline"),)
    return Section(run.title(results), (*best, *tables, *failures, *map(Remark, _notes(findings, results))))


def _columns(findings: TuningResult, choice: Choice) -> tuple[Column[ParetoPoint], ...]:
    latency = findings.goal.objective == "latency"
    return (
        Column("backend", lambda one: one.figures.result.identity.backend, left=True),
        Column("precision", lambda one: one.figures.result.identity.precision or ABSENT, left=True),
        Column("threads", lambda one: str(one.figures.result.ran.threads)),
        Column("batch", lambda one: str(one.figures.result.identity.batch)),
        Column("p50 ms" if latency else "ms/image", lambda one: spread(duration, one.cost_s)),
        *(() if latency else (Column[ParetoPoint]("images/s", lambda one: f"{one.figures.images_per_s or 0:,.0f}"),)),
        Column("change pp" if findings.labelled else "logit error %", lambda one: _format_accuracy(findings, one)),
        Column("verdict", lambda one: _mark(choice, one), left=True),
    )


def _format_accuracy(findings: TuningResult, one: ParetoPoint) -> str:
    """The change in top-1 in percentage points, or the logits' error in percent."""
    changed = negate(one.accuracy_drop)
    return change(changed.value, changed.interval) if findings.labelled else f"{100 * one.accuracy_drop.value:.2f}"


def _mark(choice: Choice, one: ParetoPoint) -> str:
    best = () if choice.best is None else (choice.best,)
    marked = zip(MARKS, (best, choice.tied, choice.beyond, choice.front), strict=True)
    return ", ".join(mark for mark, points in marked if any(one is other for other in points))


def _notes(findings: TuningResult, results: Sequence[Figures]) -> Iterator[str]:
    measured = run.measured_of(results)
    yield from (f"{_name(each.result)}: {each.result.note}" for each in measured if each.result.notes)
    yield from (f"skipped: {line}" for line in findings.left_out)
    if findings.finalists:
        finalists = [point.figures.result for point in findings.finalists]
        named = "; ".join(map(_name, finalists))
        yield f"measured again, interleaved, in {len(finalists[0].samples)} processes each: {named}"
    yield from (remark.text for remark in run.versions(results))
    candidates = [point.figures.result for point in findings.candidates]
    ran = dict.fromkeys(
        f"{one.identity.backend} {one.identity.precision} as {one.ran.arithmetic}" for one in candidates
    )
    if ran:
        yield f"executed as: {'; '.join(ran)}"
    for each in measured:
        if each.result.identity.backend == REFERENCE:
            top1 = "" if each.top1 is None else f", top-1 {percent(each.top1.value)} %"
            yield f"baseline: {_name(each.result)}: {milliseconds(value_of(each.p50))} ms{top1}"
    if findings.labelled:
        images = max(each.images or 0 for each in results)
        limit = points(findings.goal.max_drop, None)
        intervals = [one.accuracy_drop.interval for one in findings.candidates if one.accuracy_drop.interval]
        resolved = f"; {describe_resolution(images, max(intervals, key=resolution))}" if intervals else ""
        yield f"accuracy limit: top-1 at most {limit} pp below the baseline, on {images:,} images{resolved}"
    else:
        yield (
            "accuracy limit: the gate on the logits' error that each precision passed when it was exported; accuracy "
            "was not measured, for lack of labelled images or of a baseline"
        )


def _name(result: Result) -> str:
    of, threads = result.identity, result.ran.threads
    return f"{of.backend} {of.precision}, {count(threads, 'thread')}, batch {of.batch}"


def _describe_best(findings: TuningResult, choice: Choice, best: ParetoPoint) -> str:
    figures, accuracy = best.figures, _format_accuracy(findings, best)
    result = figures.result
    words = f"change in top-1 accuracy {accuracy} pp" if findings.labelled else f"logit error {accuracy} %"
    ratio = "" if figures.ratio is None else f", {rounded_times(figures.ratio.value)} vs {REFERENCE}"
    tied = f"; no significant difference from {count(len(choice.tied), 'other')}" if choice.tied else ""
    cost = f"{milliseconds(best.cost_s.value)} {'ms' if findings.goal.objective == 'latency' else 'ms per image'}"
    named = f"{title(result)}, {count(result.ran.threads, 'thread')}, batch {result.identity.batch}"
    return f"Best: {named}: {cost}{ratio}, {words}{tied}"
