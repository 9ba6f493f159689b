"""The outcome of ``rbench tune`` in words: the best, all candidates, and those that were rejected or left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.analysis.figures import Figures, negate
from benchmarks.analysis.ranking import title
from benchmarks.format import ABSENT, change, count, duration, milliseconds, percent, points, rounded_times
from benchmarks.records.request import REFERENCE
from benchmarks.records.result import Result
from benchmarks.report import columns, run
from benchmarks.report.columns import Column, spread, table, value_of
from benchmarks.report.document import document_of
from benchmarks.tuning.findings import TuningResult
from benchmarks.tuning.pareto import Choice, ParetoPoint
from exporter.document.blocks import Block, Document, Remark, Section, Sentence, Table
from exporter.precision.acceptance import describe_resolution, resolution


@dataclass(frozen=True)
class FrontPlot(Block):
    """The candidates of a search, whose accuracy against latency a page draws.

    Attributes:
        findings: The findings of the search.
        choice: The choice among its candidates.
    """

    findings: TuningResult
    choice: Choice


ELSEWHERE = "--page FILE writes a page with all columns."

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
        "the 95 % interval; a time that was measured in one process has none, and those near the best and on the "
        "Pareto front are measured again, interleaved",
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
    ordered = findings.points
    tables = (_table(findings, choice, ordered), FrontPlot(findings, choice)) if ordered else ()
    failed: dict[tuple[str, str], list[str]] = {}
    for result in findings.results:
        if result.status != "ok":
            failed.setdefault((result.status, str(result.reason)), []).append(_name(findings, result))
    failures = (
        Remark(f"{'; '.join(dict.fromkeys(names))}: {status}: {reason}", "failure", status)
        for (status, reason), names in failed.items()
    )
    best = () if choice.best is None else (Sentence(_describe_best(findings, choice, choice.best), "headline"),)
    return Section(run.title(results), (*best, *tables, *failures, *map(Remark, _notes(findings, results))))


def _table(findings: TuningResult, choice: Choice, ordered: Sequence[ParetoPoint]) -> Table:
    """The candidates, whose rows a page can filter; the best one is highlighted."""
    found = table(_columns(findings, choice), ordered)
    rows = []
    for point, row in zip(ordered, found.rows, strict=True):
        of = point.figures.result.identity
        about = {"backend": of.backend, "precision": of.precision or ""}
        words = " ".join(dict.fromkeys(filter(None, (of.subject, of.file, *about.values(), row.cells[-1]))))
        state: Literal["best", ""] = "best" if point is choice.best else ""
        rows.append(replace(row, attributes={**about, "words": words.lower()}, state=state))
    return replace(found, rows=tuple(rows), label="Candidates, the fastest first.", elsewhere=ELSEWHERE)


def _columns(findings: TuningResult, choice: Choice) -> tuple[Column[ParetoPoint], ...]:
    latency, several = findings.goal.objective == "latency", len(findings.subjects) > 1
    network: Column[ParetoPoint] = Column("network", lambda one: one.figures.result.identity.subject or "", left=True)
    batch: Column[ParetoPoint] = Column(
        "batch", lambda one: str(one.figures.result.identity.batch), priority=3 if several and latency else 0
    )
    return (
        *((network,) if several else ()),
        Column("file", lambda one: one.figures.result.identity.file or ABSENT, left=True, priority=1),
        Column("backend", lambda one: one.figures.result.identity.backend, left=True, stacked=several),
        Column("precision", lambda one: one.figures.result.identity.precision or ABSENT, left=True, stacked=True),
        Column("threads", lambda one: str(one.figures.result.ran.threads), stacked=True),
        Column("streams", _format_streams),
        batch,
        Column("p50 ms" if latency else "ms/image", lambda one: spread(duration, one.cost_s)),
        *(
            ()
            if latency
            else (Column[ParetoPoint]("images/s", lambda one: f"{one.figures.images_per_s or 0:,.0f}", priority=4),)
        ),
        Column("top-1 %", lambda one: percent(_top1(findings, one)), priority=2),
        Column("change pp" if findings.labelled else "logit error %", lambda one: _format_accuracy(findings, one)),
        Column("verdict", lambda one: _mark(choice, one), left=True),
    )


def _format_streams(one: ParetoPoint) -> str:
    load = one.figures.result.load
    return ABSENT if load is None else str(load.clients)


def _top1(findings: TuningResult, one: ParetoPoint) -> float | None:
    """The top-1 accuracy: that of the baseline, less what the candidate lost against it."""
    baseline = None if findings.baseline is None else Figures(findings.baseline).top1
    return None if baseline is None else baseline.value - one.accuracy_drop.value


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
    yield from (f"{_name(findings, each.result)}: {each.result.note}" for each in measured if _is_noted(each.result))
    yield from (f"skipped: {', '.join(names)}: {reason}" for reason, names in findings.left_out.items())
    if findings.finalists:
        finalists = [point.figures.result for point in findings.finalists]
        named = "; ".join(_name(findings, each) for each in finalists)
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
            yield f"baseline: {_name(findings, each.result)}: {milliseconds(value_of(each.p50))} ms{top1}"
    yield from _describe_openings(findings.openings)
    if findings.labelled:
        images = max(each.images or 0 for each in results)
        limit = points(findings.goal.max_drop, None)
        intervals = [one.accuracy_drop.interval for one in findings.candidates if one.accuracy_drop.interval]
        resolved = f"; {describe_resolution(images, max(intervals, key=resolution))}" if intervals else ""
        base = _limit_base(findings)
        yield f"accuracy limit: top-1 at most {limit} pp below {base}, on {images:,} images{resolved}"
    else:
        yield (
            "accuracy limit: the gate on the logits' error that each precision passed when it was exported; accuracy "
            "was not measured, for lack of labelled images or of a baseline"
        )


def _limit_base(findings: TuningResult) -> str:
    """The network whose accuracy the limit counts from, in words."""
    if len(findings.subjects) == 1 or findings.baseline is None:
        return "the baseline"
    if findings.goal.relative_to == "own":
        return "the fp32 of each network's own size (--relative-to own)"
    name = findings.baseline.identity.subject
    return f"{name} in fp32, the most accurate of all (--relative-to best; own counts from each network's own fp32)"


def _is_noted(result: Result) -> bool:
    """Whether a result has notes that are not of cold starts, which have a line of their own."""
    return bool(result.notes) and (result.load is None or result.load.shape != "cold")


def _describe_openings(openings: Sequence[Result]) -> Iterator[str]:
    """The time to open the best configuration without a cache of compiled models and with it."""
    steps = [dict(each.load.steps_s) for each in openings if each.load is not None]
    if len(steps) == 2:
        without, cached = (milliseconds(each["open"]) for each in steps)
        starts = len(openings[0].load.responses_s) if openings[0].load is not None else 0
        yield (
            f"model cache: opening takes {cached} ms with the cache and {without} ms without, medians of {starts} "
            "processes each; runtimes.open(model_cache=DIR) uses it"
        )


def _name(findings: TuningResult, result: Result) -> str:
    of, threads = result.identity, result.ran.threads
    network = f"{of.subject} " if len(findings.subjects) > 1 else ""
    return f"{network}{of.backend} {of.precision}, {count(threads, 'thread')}, batch {of.batch}"


def _describe_best(findings: TuningResult, choice: Choice, best: ParetoPoint) -> str:
    figures, accuracy = best.figures, _format_accuracy(findings, best)
    result = figures.result
    words = f"change in top-1 accuracy {accuracy} pp" if findings.labelled else f"logit error {accuracy} %"
    ratio = "" if figures.ratio is None else f", {rounded_times(figures.ratio.value)} vs {REFERENCE}"
    base = _describe_base(findings, result)
    tied = f"; no significant difference from {count(len(choice.tied), 'other')}" if choice.tied else ""
    cost = f"{milliseconds(best.cost_s.value)} {'ms' if findings.goal.objective == 'latency' else 'ms per image'}"
    network = f"{result.identity.subject} on " if len(findings.subjects) > 1 else ""
    streams = "" if result.load is None else f", {count(result.load.clients, 'call')} at the same time"
    named = f"{network}{title(result)}, {count(result.ran.threads, 'thread')}{streams}, batch {result.identity.batch}"
    return f"Best: {named}: {cost}{ratio}, {words}{base}{tied}"


def _describe_base(findings: TuningResult, best: Result) -> str:
    """The network that the change of accuracy is against, where that is not the best's own."""
    baseline = findings.baseline
    if baseline is None or baseline.identity.subject == best.identity.subject:
        return ""
    return f" against {baseline.identity.subject} in fp32"
