"""Measured results in words: a section for each network and machine, with tables, remarks and plots; and what the
models answered, class by class, pair by pair, and where the answers changed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.accuracy import differences
from benchmarks.accuracy.differences import ClassShare, Confusion, Flips, flips
from benchmarks.accuracy.packing import PackedPredictions
from benchmarks.analysis import ranking
from benchmarks.analysis.figures import Figures
from benchmarks.format import ABSENT, count
from benchmarks.records.identity import locate, weights_of
from benchmarks.records.request import NOISE
from benchmarks.records.result import Result
from benchmarks.report import columns
from benchmarks.report.columns import Column, cell_of, has_values, table, table_of_results
from exporter.document.blocks import Block, Folded, Remark, Section, Sentence, Table, TableColumn, TableRow

FOLDED = {
    "other spans and quantiles": columns.SPANS,
    "what the answers are worth": columns.WORTH,
    "what it takes": columns.COST,
    "the GPU": columns.GPU,
}
"""Tables behind the first one."""

EVERYWHERE = ("f16c", "fma", "asimd")
"""Instruction sets that tell nothing: all processors of their kind have them."""


@dataclass(frozen=True)
class RunPlots(Block):
    """Configurations whose latency, accuracy, throughput, roofline and drift a page draws; ``best`` are marked."""

    results: tuple[Figures, ...]
    best: tuple[Figures, ...] = ()


@dataclass(frozen=True)
class TableLimits:
    """How much is shown at most: of classes those that are answered worst, of pairs those that differ most clearly, of
    changed answers the most frequent."""

    classes: int = 40
    pairs: int = 40
    changes: int = 10


SHORT = TableLimits(classes=5, pairs=5, changes=3)


def groups(results: Sequence[Figures]) -> tuple[tuple[Figures, ...], ...]:
    """The results that may stand in one table, of one subject on one machine, in the order that they came."""
    found: dict[tuple[object, ...], list[Figures]] = {}
    for figures in results:
        of = figures.result.identity
        subject = (of.artifact, of.sha256) if of.subject is None else (of.subject,)
        found.setdefault((*subject, *locate(figures.result)), []).append(figures)
    return tuple(map(tuple, found.values()))


def sections(results: Sequence[Figures], limits: TableLimits | None = None) -> Iterator[Section]:
    """The results by subject, in the order that they came; with tables of predictions, if they are given limits. Those
    of load shapes are left out, as their times are of something else.

    Raises:
        ArtifactError: the predictions of a result are damaged.
    """
    for group in groups([figures for figures in results if figures.result.load is None]):
        measured = measured_of(group)
        yield _section(group, measured)
        predictions = () if limits is None else tuple(tabulate_predictions(measured, limits))
        if predictions:
            yield Section("", predictions, f"what was answered: {title(group)}")


def measured_of(results: Sequence[Figures]) -> list[Figures]:
    """Those that are ok."""
    return [figures for figures in results if figures.result.status == "ok"]


def _section(results: Sequence[Figures], measured: Sequence[Figures]) -> Section:
    headlines = ranking.headlines(measured)
    best = [figures for one in headlines for figures in ((one.fastest, *one.tied) if one.lead else ())]
    label = "Configurations compared. Marked: the fastest of each batch, and what ties with it."
    folded = []
    for summary, kind in FOLDED.items():
        shown = [figures for figures in measured if has_values(kind, figures)]
        if shown:
            found = replace(table_of_results(kind, shown), label=summary.capitalize())
            folded.append(Folded(summary, (found,)))
    blocks = (
        *(Sentence(ranking.format_headline(one), "headline") for one in headlines),
        replace(table_of_results(columns.SPEED, results, best), label=label, name="main"),
        *folded,
        *remarks(results),
        RunPlots(tuple(measured), tuple(best)),
    )
    return Section(title(results), blocks, "more of these rows")


def title(results: Sequence[Figures]) -> str:
    """What the results are of, in one line."""
    ran = [figures.result for figures in measured_of(results) or results]
    of = ran[0].identity
    name = of.subject or of.artifact
    threads = sorted({result.ran.threads for result in ran})
    where = f"{ran[0].ran.device}, {' or '.join(map(str, threads))} thread{'s' if threads != [1] else ''}"
    images = max((figures.images or 0 for figures in results), default=0)
    data = results[0].result.identity.data
    evaluated = [f"{NOISE}, so no accuracy" if data == NOISE else data, f"{images:,} images" if images else ""]
    parts = [name if name != of.variant or of.trained is None else "", weights_of(ran[0]), where]
    return " · ".join(filter(None, [*parts, ", ".join(filter(None, evaluated))]))


def remarks(results: Sequence[Figures]) -> Iterator[Remark]:
    """What must be known beside the figures: what is missing and why, what was not quiet or is doubtful, notes, and
    which libraries ran."""
    alike: dict[tuple[str, Remark], list[Figures]] = {}
    for figures in results:
        for remark in _remarks(figures):
            alike.setdefault((figures.result.identity.backend, remark), []).append(figures)
    for (backend, remark), of in alike.items():
        precisions = ", ".join(dict.fromkeys(filter(None, (each.result.identity.precision for each in of))))
        batches = ", ".join(dict.fromkeys(str(each.result.identity.batch) for each in of))
        graphs = ", no CUDA graphs" if all(each.result.asked.cuda_graphs is False for each in of) else ""
        named = " ".join(filter(None, (backend, precisions)))
        yield replace(remark, text=f"{named}, batch {batches}{graphs}: {remark.text}")
    yield from runtimes_of(results)


def _remarks(figures: Figures) -> Iterator[Remark]:
    result = figures.result
    if result.status != "ok":
        yield Remark(f"{result.status}: {result.reason}", "failure", result.status)
        return
    if figures.disturbances:
        yield Remark(f"disturbed: {'; '.join(map(str, figures.disturbances))}", "warning", code="machine-disturbed")
    yield from doubts(figures)


def doubts(figures: Figures) -> Iterator[Remark]:
    """The warnings and the notes of a result."""
    yield from (Remark(f"warning: {warning}", "warning", warning.code) for warning in figures.warnings)
    if figures.result.note:
        yield Remark(figures.result.note)


def runtimes_of(results: Sequence[Figures]) -> Iterator[Remark]:
    """Which libraries ran, in one line, if any did."""
    ran = [figures.result for figures in results if figures.result.ran.backend_version is not None]
    versions = dict.fromkeys(f"{of.identity.backend} {of.ran.backend_version} ({of.ran.provider})" for of in ran)
    if versions:
        yield Remark("runtimes: " + ", ".join(versions))


def quiet(results: Sequence[Figures]) -> Iterator[Remark]:
    """Whether the machine was quiet while all these were timed, in a line; nothing where nothing was measured."""
    seen = [figures.disturbances for figures in measured_of(results)]
    counts = Counter("unseen" if lines is None else "disturbed" if lines else "quiet" for lines in seen)
    reasons = list(dict.fromkeys(line for lines in seen for line in lines or ()))
    of = f"of {count(len(seen), 'row')}"
    unseen = f"; not known whether the machine was quiet: {counts['unseen']} {of}" if counts["unseen"] else ""
    if counts["disturbed"]:
        number, more = counts["disturbed"], ", and more" if len(reasons) > 1 else ""
        yield Remark(f"disturbed: {number} {of}: {reasons[0]}{more}{unseen}", "warning", code="run-disturbed")
    elif counts["quiet"]:
        yield Remark(f"quiet: {counts['quiet']} {of}{unseen}", code="run-quiet")
    elif counts["unseen"]:
        yield Remark(f"not known whether the machine was quiet: {counts['unseen']} {of}", code="run-unwatched")


def machine(result: Result) -> str:
    """The environment in one line."""
    about = result.environment
    parts = (
        about.cpu,
        f"{about.usable_processors} of {about.processors} processors",
        " ".join(name for name in about.instruction_sets if name not in EVERYWHERE),
        f"{about.memory_bytes / 2**30:.0f} GiB" if about.memory_bytes else "memory unknown",
        graphics(result),
        f"{about.kernel}, {about.python}",
        f"load {about.load_average[0]:.2f}" if about.load_average else "load unknown",
    )
    return " · ".join(filter(None, parts))


def graphics(result: Result) -> str:
    """The GPU that the result was taken on, or those of the machine; nothing for one of a processor."""
    if result.asked.cuda_graphs is None:
        return ""
    there, before = result.environment.gpus, result.gpu.before
    used = [one for one in there if before is not None and one.uuid == before.uuid] or there
    words = (f"{one.name}, driver {one.driver}, CUDA {one.cuda}" for one in used)
    return " and ".join(words) or "GPU unknown: no NVML"


def tabulate_predictions(results: Sequence[Figures], most: TableLimits) -> Iterator[Folded]:
    """A table by class, one of the pairs of configurations whose answers differ, and one of changed answers for each
    configuration that has any. The results are of one network; the first batch of each counts.

    Raises:
        ArtifactError: the predictions of a result are damaged.
    """
    shown: dict[str, tuple[Figures, PackedPredictions]] = {}
    for figures in results:
        if figures.result.predictions is not None:
            shown.setdefault(ranking.name(figures.result), (figures, figures.result.predictions))
    shares = {label: found for label, (_, packed) in shown.items() if (found := differences.per_class(packed))}
    if shares:
        yield _by_class(shares, most.classes)
    yield from _by_pair(shown, most.pairs)
    reference = next((label for label, (figures, _) in shown.items() if figures.is_reference), None)
    for label, (figures, now) in shown.items():
        if reference is None or label == reference or now.asked != shown[reference][1].asked:
            continue
        confusions = differences.count_confusions(now, shown[reference][1], most.changes)
        heads = (
            Column[Confusion]("true class", lambda one: one.true or ABSENT, left=True),
            Column[Confusion](f"{reference} said", lambda one: one.before, left=True),
            Column[Confusion](f"{label} says", lambda one: one.now, left=True),
            Column[Confusion]("images", lambda one: f"{one.images:,}"),
        )
        if confusions:
            caption = f"The most frequent changes. {_flips(figures)}"
            yield _fold(f"answers that changed: {label}", caption, table(heads, confusions))


def _fold(summary: str, caption: str, found: Table) -> Folded:
    return Folded(summary, (replace(found, caption=caption),))


def _by_class(shares: Mapping[str, tuple[ClassShare, ...]], most: int) -> Folded:
    first = next(iter(shares.values()))
    lowest = sorted(first, key=lambda one: one.right / one.images)[:most]
    kept = [one for one in first if one in lowest]

    def cell(label: str) -> Column[ClassShare]:
        known = {one.name: one for one in shares[label]}
        return Column(f"{label}, %", cell_of(lambda one: known.get(one.name), _share))

    heads = (
        Column[ClassShare]("class", lambda one: one.name, left=True),
        Column[ClassShare]("images", lambda one: f"{one.images:,}"),
        *map(cell, shares),
    )
    left_out = f", the {len(kept)} worst of {len(first)} classes" if len(kept) < len(first) else ""
    caption = f"Share of each class's images that is answered rightly{left_out}; in brackets 95 % intervals (Wilson)"
    return _fold("accuracy by class", caption, table(heads, kept))


def _share(one: ClassShare) -> str:
    return f"{100 * one.right / one.images:.1f} [{100 * one.interval[0]:.1f}–{100 * one.interval[1]:.1f}]"


def _by_pair(shown: Mapping[str, tuple[Figures, PackedPredictions]], most: int) -> Iterator[Folded]:
    """Nothing where all answers are the same, or there is no truth."""
    apart: list[tuple[float, str, str, Flips]] = []
    for (one, (figures, packed)), (other, (others, its)) in itertools.combinations(shown.items(), 2):
        first, second = figures.predictions, others.predictions
        if first is None or second is None or packed.asked != its.asked:
            continue
        found = flips(second, first)
        if found.p_value is not None and found.better + found.worse:
            apart.append((found.p_value, one, other, found))
    kept = sorted(apart, key=lambda pair: pair[0])[:most]
    if not kept:
        return
    names = (TableColumn("configuration", left=True), TableColumn("and", left=True))
    numbers = map(TableColumn, ("first alone right", "second alone right", "p"))
    rows = [(one, other, f"{of.worse:,}", f"{of.better:,}", f"{p:.2g}") for p, one, other, of in kept]
    left_out = f", the {len(kept)} clearest of {len(apart)} pairs" if len(kept) < len(apart) else ""
    caption = f"McNemar's exact test{left_out}; p is of each pair for itself, and of many some are small by chance"
    yield _fold("pairs whose answers differ", caption, Table((*names, *numbers), tuple(map(TableRow, rows))))


def _flips(figures: Figures) -> str:
    if (found := figures.flips) is None:
        return ""
    low, high = found.real_share_interval
    share = f"{100 * low:.2f}–{100 * high:.2f} % of all images"
    words = f"{found.real} real flips ({share}) and {found.near_ties} near ties"
    if found.p_value is None:
        return f"{words}."
    return f"{words}; {found.better} alone right, {found.worse} alone wrong, McNemar's exact p = {found.p_value:.2g}."
