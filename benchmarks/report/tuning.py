"""What ``rbench tune`` found, for people: every candidate, the front, the best, and what was left out and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.analysis.figures import Figures
from benchmarks.format import ABSENT, count, duration, milliseconds, points
from benchmarks.records.request import REFERENCE
from benchmarks.records.result import Result
from benchmarks.report import run
from benchmarks.report.columns import Column, spread, table, value_of
from benchmarks.report.document import document_of
from benchmarks.tuning.pareto import Choice, ParetoPoint
from benchmarks.tuning.search import TuningResult
from exporter.document.blocks import Document, Remark, Section

FRONT = "*"

MEANING = (
    f"{FRONT}: on the front, nothing measured is both faster and nearer to fp32; tie: not told apart from the",
    "fastest one: of these the fewest threads, then the smallest loss are the best. Candidates are",
    "measured one after another, and those that come near the best again, in turns. In brackets: 95 %",
    "intervals, of times by bootstrap over processes and blocks of calls, of drops from pairs of answers.",
)


def tuning_document(findings: TuningResult, complete: bool = True) -> Document:
    """What the search found: one table of the candidates, the fastest first, and remarks."""
    results = Figures.of_all(findings.results)
    sections = (_section(findings, results),) if results else ()
    return document_of(sections, results, MEANING, complete)


def _section(findings: TuningResult, results: Sequence[Figures]) -> Section:
    choice = findings.choice()
    ordered = sorted(findings.candidates, key=lambda one: one.cost_s.value)
    tables = (table(_columns(findings, choice), ordered),) if ordered else ()
    failures = (
        Remark(f"{_name(each.result)}: {each.result.status}: {each.result.reason}", "failure", each.result.status)
        for each in results
        if each.result.status != "ok"
    )
    return Section(run.title(results), (*tables, *failures, *map(Remark, _notes(findings, results, choice))))


def _columns(findings: TuningResult, choice: Choice) -> tuple[Column[ParetoPoint], ...]:
    latency = findings.goal.objective == "latency"
    return (
        Column("runtime", lambda one: one.figures.result.identity.backend, left=True),
        Column("precision", lambda one: one.figures.result.identity.precision or ABSENT, left=True),
        Column("threads", lambda one: str(one.figures.result.ran.threads)),
        Column("batch", lambda one: str(one.figures.result.identity.batch)),
        Column("p50 ms" if latency else "ms/image", lambda one: spread(duration, one.cost_s)),
        *(() if latency else (Column[ParetoPoint]("images/s", lambda one: f"{one.figures.images_per_s or 0:,.0f}"),)),
        Column("drop" if findings.labelled else "logit error %", lambda one: _format_accuracy_drop(findings, one)),
        Column("verdict", lambda one: _mark(choice, one), left=True),
    )


def _format_accuracy_drop(findings: TuningResult, one: ParetoPoint) -> str:
    drop = one.accuracy_drop
    return points(drop.value, drop.interval) if findings.labelled else f"{100 * drop.value:.2f}"


def _mark(choice: Choice, one: ParetoPoint) -> str:
    best = () if choice.best is None else (choice.best,)
    marks = {"best": best, "tie": choice.tied, "beyond": choice.beyond, FRONT: choice.front}
    return " ".join(mark for mark, marked in marks.items() if any(one is other for other in marked))


def _notes(findings: TuningResult, results: Sequence[Figures], choice: Choice) -> Iterator[str]:
    measured = run.measured_of(results)
    yield from (f"{_name(each.result)}: {each.result.note}" for each in measured if each.result.notes)
    yield from (f"left out: {line}" for line in findings.left_out)
    if findings.finalists:
        finalists = [point.figures.result for point in findings.finalists]
        named = "; ".join(map(_name, finalists))
        yield f"measured again in turns, in {len(finalists[0].samples)} processes each: {named}"
    yield from (remark.text for remark in run.runtimes_of(results))
    candidates = [point.figures.result for point in findings.candidates]
    ran = dict.fromkeys(
        f"{one.identity.backend} {one.identity.precision} in {one.ran.arithmetic}" for one in candidates
    )
    if ran:
        yield f"ran: {'; '.join(ran)}"
    for each in measured:
        if each.result.identity.backend == REFERENCE:
            top1 = "" if each.top1 is None else f", top-1 {each.top1.value:.2%}"
            yield f"reference: {_name(each.result)}: {milliseconds(value_of(each.p50))} ms{top1}"
    if findings.labelled:
        images = max(each.images or 0 for each in results)
        yield f"bound: a drop of top-1 of at most {points(findings.goal.max_drop, None)} points, {images:,} images"
    else:
        yield (
            "bound: accuracy was not measured, as there are no labelled images or no reference; each precision has "
            "passed the gate on its logits' error when it was exported"
        )
    if choice.best is not None:
        yield _describe_best(findings, choice, choice.best)


def _name(result: Result) -> str:
    of, threads = result.identity, result.ran.threads
    return f"{of.backend} {of.precision}, {count(threads, 'thread')}, batch {of.batch}"


def _describe_best(findings: TuningResult, choice: Choice, best: ParetoPoint) -> str:
    figures, drop = best.figures, _format_accuracy_drop(findings, best)
    accuracy = f"a drop of {drop} points" if findings.labelled else f"{drop} % logit error"
    ratio = "" if figures.ratio is None else f", {figures.ratio.value:.2f} times as fast as {REFERENCE}"
    tied = f"; {len(choice.tied)} tie with it" if choice.tied else ""
    cost = f"{spread(duration, best.cost_s)} {'ms' if findings.goal.objective == 'latency' else 'ms an image'}"
    return f"best: {_name(figures.result)}: {cost}{ratio}, {accuracy}{tied}"
