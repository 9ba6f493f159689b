"""Measured results in words: a section for each network and machine, with tables, remarks and plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.analysis import ranking
from benchmarks.analysis.figures import Figures
from benchmarks.format import count
from benchmarks.records.identity import locate, weights_of
from benchmarks.records.request import NOISE
from benchmarks.records.result import Result
from benchmarks.report.columns import COST, GPU, SPANS, SPEED, WORTH, has_values, table_of_results
from benchmarks.report.plots import RunPlots
from benchmarks.report.predictions import TableLimits, tabulate_predictions
from exporter.document.blocks import Folded, Remark, Section, Sentence
from runtimes.errors import Reason

FOLDED = {
    "other spans and quantiles": SPANS,
    "what the answers are worth": WORTH,
    "what it takes": COST,
    "the GPU": GPU,
}
"""Tables behind the first one."""

QUIET, DISTURBED, UNSEEN = "quiet", "disturbed", "not known whether the machine was quiet"
"""What is said of a machine while results were timed."""


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
        yield _section(group)
        measured = [figures for figures in group if figures.result.status == "ok"]
        predictions = () if limits is None else tuple(tabulate_predictions(measured, limits))
        if predictions:
            yield Section("", predictions, f"what was answered: {title(group)}")


def _section(results: Sequence[Figures]) -> Section:
    measured = [figures for figures in results if figures.result.status == "ok"]
    found = ranking.headlines(measured)
    best = [figures for one in found for figures in ((one.fastest, *one.tied) if one.lead else ())]
    label = "Configurations compared. Marked: the fastest of each batch, and what ties with it."
    tables = {
        summary: table_of_results(columns, [figures for figures in measured if has_values(columns, figures)])
        for summary, columns in FOLDED.items()
    }
    blocks = (
        *(Sentence(ranking.format_headline(one), "headline") for one in found),
        replace(table_of_results(SPEED, results, best), label=label, name="main"),
        *(
            Folded(summary, (replace(table, label=summary.capitalize()),))
            for summary, table in tables.items()
            if table.rows
        ),
        *remarks(results),
        RunPlots(tuple(measured)),
    )
    return Section(title(results), blocks, "more of these rows")


def title(results: Sequence[Figures]) -> str:
    """What the results are of, in one line."""
    ran = [figures.result for figures in results if figures.result.status == "ok"] or [
        figures.result for figures in results
    ]
    of = ran[0].identity
    name = of.subject or of.artifact
    parts = [name if name != of.variant or of.trained is None else "", weights_of(ran[0])]
    threads = sorted({result.ran.threads for result in ran})
    where = f"{ran[0].ran.device}, {' or '.join(map(str, threads))} thread{'s' if threads != [1] else ''}"
    parts += [where, _data(results)]
    return " · ".join(filter(None, parts))


def _data(results: Sequence[Figures]) -> str:
    images = max((figures.images or 0 for figures in results), default=0)
    name = f"{NOISE}, so no accuracy" if results[0].result.identity.data == NOISE else results[0].result.identity.data
    return f"{name}, {images:,} images" if images else name


def remarks(results: Sequence[Figures]) -> Iterator[Remark]:
    """What must be known beside the figures: what is missing and why, what was not quiet or is doubtful, notes, and
    which libraries ran."""
    alike: dict[tuple[str, Remark], list[Figures]] = {}
    for figures in results:
        for remark in _remarks(figures):
            alike.setdefault((figures.result.identity.backend, remark), []).append(figures)
    for (_, remark), of in alike.items():
        yield replace(remark, text=f"{_places(of)}: {remark.text}")
    yield from runtimes_of(results)


def _remarks(figures: Figures) -> Iterator[Remark]:
    if figures.result.status != "ok":
        yield Remark(f"{figures.result.status}: {figures.result.reason}", "failure", figures.result.status)
        return
    if figures.disturbances:
        yield Remark(f"disturbed: {'; '.join(map(str, figures.disturbances))}", "warning", code="machine-disturbed")
    yield from map(warn, figures.warnings)
    if figures.result.note:
        yield Remark(figures.result.note)


def warn(warning: Reason) -> Remark:
    """A warning of a result, as a remark."""
    return Remark(f"warning: {warning}", "warning", warning.code)


def _places(results: Sequence[Figures]) -> str:
    """Results of one backend in words: in which precisions and for which batches."""
    of = [figures.result.identity for figures in results]
    precisions = ", ".join(dict.fromkeys(each.precision for each in of if each.precision))
    batches = ", ".join(dict.fromkeys(str(each.batch) for each in of))
    graphs = ", no CUDA graphs" if all(each.result.asked.cuda_graphs is False for each in results) else ""
    return f"{' '.join(filter(None, (of[0].backend, precisions)))}, batch {batches}{graphs}"


def runtimes_of(results: Sequence[Figures]) -> Iterator[Remark]:
    """Which libraries ran, in one line, if any did."""
    versions: dict[str, None] = {}
    for result in (figures.result for figures in results):
        if result.ran.backend_version is not None:
            versions[f"{result.identity.backend} {result.ran.backend_version} ({result.ran.provider})"] = None
    if versions:
        yield Remark("runtimes: " + ", ".join(versions))


def quiet(results: Sequence[Figures]) -> Iterator[Remark]:
    """Whether the machine was quiet while all these were timed, in a line; nothing where nothing was measured."""
    measured = [figures for figures in results if figures.result.status == "ok"]
    counts = Counter(map(_machine_was, measured))
    reasons = dict.fromkeys(line for figures in measured for line in figures.disturbances or ())
    of = f"of {count(len(measured), 'row')}"
    more = ", and more" if len(reasons) > 1 else ""
    unseen = f"; {UNSEEN}: {counts[UNSEEN]} {of}" if counts[UNSEEN] else ""
    if counts[DISTURBED]:
        first = next(iter(reasons))
        yield Remark(f"disturbed: {counts[DISTURBED]} {of}: {first}{more}{unseen}", "warning", code="run-disturbed")
    elif counts[QUIET]:
        yield Remark(f"quiet: {counts[QUIET]} {of}{unseen}", code="run-quiet")
    elif unseen:
        yield Remark(f"not known whether the machine was quiet: {counts[UNSEEN]} {of}", code="run-unwatched")


def _machine_was(figures: Figures) -> str:
    return UNSEEN if figures.disturbances is None else DISTURBED if figures.disturbances else QUIET


EVERYWHERE = ("f16c", "fma", "asimd")
"""Instruction sets that tell nothing: all processors of their kind have them."""


def machine(result: Result) -> str:
    """The environment in one line."""
    about = result.environment
    memory = f"{about.memory_bytes / 2**30:.0f} GiB" if about.memory_bytes else "memory unknown"
    load = f"load {about.load_average[0]:.2f}" if about.load_average else "load unknown"
    instructions = " ".join(name for name in about.instruction_sets if name not in EVERYWHERE)
    return " · ".join(
        filter(
            None,
            (
                about.cpu,
                f"{about.usable_processors} of {about.processors} processors",
                instructions,
                memory,
                graphics(result),
                f"{about.kernel}, {about.python}",
                load,
            ),
        )
    )


def graphics(result: Result) -> str:
    """The GPU that the result was taken on, or those of the machine; nothing for one of a processor."""
    if result.asked.cuda_graphs is None:
        return ""
    there, before = result.environment.gpus, result.gpu.before
    used = [one for one in there if before is not None and one.uuid == before.uuid] or there
    words = (f"{one.name}, driver {one.driver}, CUDA {one.cuda}" for one in used)
    return " and ".join(words) or "GPU unknown: no NVML"
