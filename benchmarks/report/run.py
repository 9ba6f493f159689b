"""Measured results in words: a section for each network and machine, with tables, remarks and plots; and predictions by
class, by pair of configurations, and where they changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.accuracy import differences
from benchmarks.accuracy.differences import ClassShare, Confusion, Flips, flips
from benchmarks.accuracy.packing import PackedPredictions
from benchmarks.analysis import limits, ranking
from benchmarks.analysis.at_once import DeviceTotal, totals
from benchmarks.analysis.figures import Figures
from benchmarks.analysis.provider_speed import list_slower_providers
from benchmarks.analysis.verdict import judge
from benchmarks.format import ABSENT, TOO_NOISY, count, milliseconds, share
from benchmarks.machine.disturbances import BUSY_CODES, disturbances
from benchmarks.records.identity import describe_baseline, locate, weights_of
from benchmarks.records.request import NOISE
from benchmarks.records.result import Result
from benchmarks.report import columns
from benchmarks.report.columns import Column, cell_of, has_values, table, table_of_results
from exporter.document.blocks import Block, Folded, Remark, Section, Sentence, Table, TableColumn, TableRow
from runtimes.devices import parse_device
from runtimes.errors import Reason

ELSEWHERE = "-o DIR writes a report with all columns."

SAID_OF_ALL = 3
"""The most rows that a warning names one by one."""

EVERYWHERE = ("f16c", "fma", "asimd")
"""Instruction sets that tell nothing: all processors of their kind have them."""


@dataclass(frozen=True)
class RunPlots(Block):
    """Configurations whose latency, accuracy, throughput, roofline and drift a page draws; ``best`` are marked."""

    results: tuple[Figures, ...]
    best: tuple[Figures, ...] = ()


@dataclass(frozen=True)
class TableLimits:
    """The most rows of the tables of predictions: classes of the lowest accuracy, pairs that differ most, and the
    most frequent changes."""

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
    plain = [figures for figures in results if figures.result.load is None]
    for group in groups(plain):
        measured = measured_of(group)
        yield _section(group, measured, totals(plain) if group[0].result.asked.at_once else ())
        predictions = () if limits is None else tuple(tabulate_predictions(measured, limits))
        if predictions:
            yield Section("", predictions, f"predictions: {title(group)}")


def measured_of(results: Sequence[Figures]) -> list[Figures]:
    """Those that are ok."""
    return [figures for figures in results if figures.result.status == "ok"]


def _section(results: Sequence[Figures], measured: Sequence[Figures], together: Sequence[DeviceTotal] = ()) -> Section:
    """Of several devices at once, their totals stand in place of a ranking: their rows are no alternatives."""
    headlines = () if results[0].result.asked.at_once else ranking.headlines(measured)
    best = [figures for headline in headlines for figures in headline.best]
    main = table_of_results(columns.MAIN, results, best)
    folded = []
    for summary, kind in _list_tables(measured).items():
        shown = [figures for figures in measured if has_values(kind, figures)]
        if shown:
            found = replace(table_of_results(kind, shown), label=summary.capitalize())
            folded.append(Folded(summary, (found,)))
    blocks = (
        *(Sentence(ranking.format_headline(one), "headline") for one in headlines),
        *(Sentence(str(one), "headline") for one in together),
        replace(main, label="Configurations compared.", name="main", elsewhere=ELSEWHERE),
        *_footnotes(main),
        *folded,
        *remarks(results),
        RunPlots(tuple(measured), tuple(best)),
    )
    return Section(title(results), blocks, "more of these rows")


def _list_tables(measured: Sequence[Figures]) -> dict[str, tuple[Column[Figures], ...]]:
    """The columns of the tables behind the first one, by their summaries."""
    return {
        "more latency metrics": columns.LATENCY,
        "GPU time": columns.GPU_TIME,
        "throughput": columns.throughput(measured),
        "accuracy": columns.ACCURACY,
        "load time and memory": columns.COST,
        "GPU": columns.GPU,
    }


def _footnotes(main: Table) -> Iterator[Sentence]:
    """The definitions of the marks that stand in the table, in one line."""
    cells = [cell for cells in main.cells for cell in cells]
    marks = {
        "Marked: the fastest of each batch size.": any(row.state == "best" for row in main.rows),
        "n.s.: no significant difference.": any(cell.endswith(columns.NOT_SIGNIFICANT) for cell in cells),
        "too noisy: the 95 % interval is wider than the value.": any(cell.endswith(TOO_NOISY) for cell in cells),
    }
    if any(marks.values()):
        yield Sentence(" ".join(words for words, there in marks.items() if there), "aside")


def title(results: Sequence[Figures]) -> str:
    """What the results are of, in one line."""
    ran = [figures.result for figures in measured_of(results) or results]
    names = dict.fromkeys(result.identity.subject or result.identity.artifact for result in ran)
    of = ran[0].identity
    if len(names) == 1 and of.trained is not None and of.variant in names:
        names = {}
    threads = sorted({result.ran.threads for result in ran})
    at_once = " and ".join(parse_device(device).numbered for device in ran[0].asked.at_once)
    device = f"{at_once} at once" if at_once else ran[0].ran.device
    where = f"{device}, {' or '.join(map(str, threads))} thread{'s' if threads != [1] else ''}"
    if ran[0].load is not None and ran[0].load.served is not None:
        where = f"on a server ({ran[0].load.served.host})"
    images = max((figures.images or 0 for figures in results), default=0)
    data = results[0].result.identity.data
    evaluated = [f"{NOISE}, so no accuracy" if data == NOISE else data, f"{images:,} images" if images else ""]
    parts = [", ".join(names), " and ".join(dict.fromkeys(map(weights_of, ran))), where]
    baseline = f"baseline {describe_baseline(ran[0])}" if ran[0].load is None else ""
    quick = "preliminary (--quick)" if any(result.asked.quick for result in ran) else ""
    return " · ".join(filter(None, [*parts, ", ".join(filter(None, evaluated)), baseline, quick]))


def remarks(results: Sequence[Figures]) -> Iterator[Remark]:
    """Rows that are missing, disturbances, warnings and notes, each with the rows that it concerns; and the versions of
    the libraries."""
    missing: dict[tuple[str, Remark], list[Figures]] = {}
    for figures in results:
        if figures.result.status != "ok":
            remark = Remark(f"{figures.result.status}: {figures.result.reason}", "failure", figures.result.status)
            missing.setdefault((figures.result.identity.backend, remark), []).append(figures)
    for (_, remark), of in missing.items():
        yield replace(remark, text=f"{_join_rows(of)}: {remark.text}")
    measured = measured_of(results)
    yield from disturbance_remarks(measured)
    yield from doubts(measured, name_row)
    for figures, reason in list_slower_providers(measured):
        yield Remark(f"{name_row(figures)}: {reason}", "warning", reason.code)
    yield from parity_remarks(measured)
    yield from versions(results)


def _join_rows(alike: Sequence[Figures]) -> str:
    """Rows of one backend in a few words."""
    precisions = ", ".join(dict.fromkeys(filter(None, (each.result.identity.precision for each in alike))))
    batches = ", ".join(dict.fromkeys(str(each.result.identity.batch) for each in alike))
    graphs = ", no CUDA graphs" if all(each.result.asked.cuda_graphs is False for each in alike) else ""
    return f"{' '.join(filter(None, (alike[0].result.identity.backend, precisions)))}, batch {batches}{graphs}"


def name_row(figures: Figures) -> str:
    """The row in the words of the table's first columns."""
    return _join_rows([figures])


def disturbance_remarks(measured: Sequence[Figures]) -> Iterator[Remark]:
    """A line for each cause of disturbance, with its worst figure and the rows that it concerns.

    Waiting is not told where busy processes explain it.
    """
    codes: dict[str, list[Figures]] = {}
    for figures in measured:
        for code in dict.fromkeys(reason.code for reason in figures.disturbances or ()):
            codes.setdefault(code, []).append(figures)
    waiting = [code for code in BUSY_CODES if code in codes]
    for code, rows in codes.items():
        if code in waiting[1:]:
            continue
        where = f"{len(rows)} of {count(len(measured), 'row')}"
        yield Remark(f"{where}: {_worst(rows, code)}", "warning", code)


def _worst(rows: Sequence[Figures], code: str) -> Reason:
    """The reason of that code with the worst figure of all processes of the rows."""
    conditions = [each for figures in rows for each in figures.conditions]
    together = disturbances(conditions, max(figures.result.ran.threads for figures in rows)) or ()
    own = (reason for figures in rows for reason in figures.disturbances or ())
    return next(reason for reason in (*together, *own) if reason.code == code)


def doubts(measured: Sequence[Figures], name: Callable[[Figures], str]) -> Iterator[Remark]:
    """The warnings of results by their codes, then the notes, each with the rows that it concerns.

    The figures of a warning stand in brackets at its end; they are repeated for each row that is named.
    """
    warned: dict[str, list[tuple[Figures, Reason]]] = {}
    noted: dict[str, list[Figures]] = {}
    for figures in measured:
        for warning in figures.warnings:
            warned.setdefault(warning.code, []).append((figures, warning))
        if figures.result.note:
            noted.setdefault(figures.result.note, []).append(figures)
    for code, alike in warned.items():
        yield Remark(_join_warnings(alike, len(measured), name), "warning", code)
    for note, rows in noted.items():
        yield Remark(f"{_list_rows(list(map(name, rows)), len(measured))}: {note}")


def _join_warnings(alike: Sequence[tuple[Figures, Reason]], total: int, name: Callable[[Figures], str]) -> str:
    sentences = dict.fromkeys(str(reason) for _, reason in alike)
    if len(sentences) == 1:
        return f"{_list_rows([name(figures) for figures, _ in alike], total)}: {alike[0][1]}"
    general = str(alike[0][1]).partition(" (")[0]
    rows = [f"{name(figures)} ({str(reason).partition(' (')[2] or f'{reason})'}" for figures, reason in alike]
    more = f"; and {count(len(rows) - SAID_OF_ALL, 'more row')}" if len(rows) > SAID_OF_ALL else ""
    return f"{len(rows)} of {count(total, 'row')}: {general}: {'; '.join(rows[:SAID_OF_ALL])}{more}"


def _list_rows(names: Sequence[str], total: int) -> str:
    return "; ".join(dict.fromkeys(names)) if len(names) <= SAID_OF_ALL else f"{len(names)} of {count(total, 'row')}"


def parity_remarks(measured: Sequence[Figures]) -> Iterator[Remark]:
    """A line for each row that ``trtexec`` measured as well: both times, and their ratio."""
    for figures in measured:
        theirs, own = figures.trtexec_p50, figures.device_p50
        if theirs is not None and own is not None:
            times = f"trtexec {milliseconds(theirs.value)} ms, device {milliseconds(own.value)} ms"
            low, high = limits.PARITY
            ratio = f"parity {figures.trtexec_ratio:.3f}, expected {low} to {high}"
            yield Remark(f"{name_row(figures)}: {times}: {ratio}", code="trtexec-parity")


def versions(results: Sequence[Figures]) -> Iterator[Remark]:
    """The versions of the libraries that ran, in one line, if any did."""
    ran = [figures.result for figures in results if figures.result.ran.backend_version is not None]
    named = dict.fromkeys(f"{of.identity.backend} {of.ran.backend_version} ({of.ran.provider})" for of in ran)
    if named:
        yield Remark("versions: " + ", ".join(named))


def verdict(results: Sequence[Figures]) -> Iterator[Remark]:
    """The verdict on the run, in one line; nothing where nothing was measured."""
    found = judge(results)
    if found is not None:
        yield Remark(found.text, "note" if found.status == "VALID" else "warning", f"run-{found.status.lower()}")


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
    """A table by class, one of the pairs of configurations whose predictions differ, and one of changed predictions for
    each configuration that has any. The results are of one network; the first batch of each counts.

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
            Column[Confusion](f"predicted by {reference}", lambda one: one.before, left=True),
            Column[Confusion](f"predicted by {label}", lambda one: one.now, left=True),
            Column[Confusion]("images", lambda one: f"{one.images:,}"),
        )
        if confusions:
            caption = f"Changed predictions, the most frequent first: {_describe_changes(figures)}"
            yield _fold(f"changed predictions: {label}", caption, table(heads, confusions))


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
    caption = f"Accuracy by class{left_out}, with 95 % intervals (Wilson)"
    return _fold("accuracy by class", caption, table(heads, kept))


def _share(one: ClassShare) -> str:
    return share(one.right / one.images, one.interval)


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
    numbers = map(TableColumn, ("only the first right", "only the second right", "p"))
    rows = [(one, other, f"{of.worse:,}", f"{of.better:,}", f"{p:.2g}") for p, one, other, of in kept]
    left_out = f", the {len(kept)} clearest of {len(apart)} pairs" if len(kept) < len(apart) else ""
    caption = f"McNemar's exact test{left_out}. p is of each pair by itself: of many pairs some are small by chance"
    yield _fold("pairs whose predictions differ", caption, Table((*names, *numbers), tuple(map(TableRow, rows))))


def _describe_changes(figures: Figures) -> str:
    if (found := figures.changed_predictions) is None:
        return ""
    low, high = found.real_share_interval
    share = f"{100 * low:.2f}–{100 * high:.2f} % of all images"
    words = f"{found.real} confident ({share}) and {found.near_ties} borderline"
    if found.p_value is None:
        return f"{words}."
    return f"{words}; {found.better} corrected, {found.worse} made wrong, McNemar's exact p = {found.p_value:.2g}."
