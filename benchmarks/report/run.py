"""Measured rows in words: a section for each network and machine, with tables, remarks and plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.analysis import ranking
from benchmarks.records.naming import locate, weights_of
from benchmarks.records.result import Row
from benchmarks.records.subject import NOISE
from benchmarks.report.columns import COST, GPU, SPANS, SPEED, WORTH, has_values, table_of_rows
from benchmarks.report.plots import RunPlots
from benchmarks.report.predictions import TableLimits, tabulate_predictions
from exporter.document.blocks import Folded, Remark, Section, Sentence

FOLDED = {
    "other spans and quantiles": SPANS,
    "what the answers are worth": WORTH,
    "what it takes": COST,
    "the GPU": GPU,
}
"""Tables behind the first one."""

QUIET, DISTURBED, UNSEEN = "quiet", "disturbed", "not known whether the machine was quiet"
"""What is said of a machine while rows were timed."""


def groups(rows: Sequence[Row]) -> tuple[tuple[Row, ...], ...]:
    """The rows that may stand in one table, of one subject on one machine, in the order that they came."""
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        subject = (row.artifact, row.sha256) if row.subject is None else (row.subject,)
        found.setdefault((*subject, *locate(row)), []).append(row)
    return tuple(map(tuple, found.values()))


def sections(rows: Sequence[Row], limits: TableLimits | None = None) -> Iterator[Section]:
    """The rows by subject, in the order that they came; with tables of predictions, if they are given limits. Rows of
    load shapes are left out, as their times are of something else.

    Raises:
        ArtifactError: the answers in a row are damaged.
    """
    for group in groups([row for row in rows if row.load is None]):
        yield _section(group)
        measured = [row for row in group if row.status == "ok"]
        predictions = () if limits is None else tuple(tabulate_predictions(measured, limits))
        if predictions:
            yield Section("", predictions, f"what was answered: {title(group)}")


def _section(rows: Sequence[Row]) -> Section:
    measured = [row for row in rows if row.status == "ok"]
    found = ranking.headlines(measured)
    best = [row for one in found for row in ((one.fastest, *one.tied) if one.lead else ())]
    label = "Configurations compared. Marked: the fastest of each batch, and what ties with it."
    tables = {
        summary: table_of_rows(columns, [row for row in measured if has_values(columns, row)])
        for summary, columns in FOLDED.items()
    }
    blocks = (
        *(Sentence(ranking.format_headline(one), "headline") for one in found),
        replace(table_of_rows(SPEED, rows, best), label=label, name="main"),
        *(
            Folded(summary, (replace(table, label=summary.capitalize()),))
            for summary, table in tables.items()
            if table.rows
        ),
        *remarks(rows),
        RunPlots(tuple(measured)),
    )
    return Section(title(rows), blocks, "more of these rows")


def title(rows: Sequence[Row]) -> str:
    """What the rows are of, in one line."""
    ran = [row for row in rows if row.status == "ok"] or rows
    first = ran[0]
    name = first.artifact if first.subject is None else first.subject
    parts = [name if name != first.variant or first.trained is None else "", weights_of(first)]
    threads = sorted({row.threads for row in ran})
    parts += [f"{first.device}, {' or '.join(map(str, threads))} thread{'s' if threads != [1] else ''}", _data(rows)]
    return " · ".join(filter(None, parts))


def _data(rows: Sequence[Row]) -> str:
    images = max((row.images or 0 for row in rows), default=0)
    name = f"{NOISE}, so no accuracy" if rows[0].data == NOISE else rows[0].data
    return f"{name}, {images:,} images" if images else name


def remarks(rows: Sequence[Row]) -> Iterator[Remark]:
    """What must be known beside the figures: what is missing and why, what was not quiet or is doubtful, notes, and
    which libraries ran."""
    alike: dict[tuple[str, Remark], list[Row]] = {}
    for row in rows:
        for remark in _remarks(row):
            alike.setdefault((row.runtime, remark), []).append(row)
    for (_, remark), of in alike.items():
        yield replace(remark, text=f"{_places(of)}: {remark.text}")
    yield from runtimes_of(rows)


def _remarks(row: Row) -> Iterator[Remark]:
    if row.status != "ok":
        yield Remark(f"{row.status}: {row.reason}", "failure", row.status)
        return
    if row.disturbances:
        yield Remark(f"disturbed: {'; '.join(row.disturbances)}", "warning", code="machine-disturbed")
    yield from map(warn, row.warnings)
    if row.note:
        yield Remark(row.note)


def warn(warning: str) -> Remark:
    """A warning of a row, as a remark."""
    return Remark(f"warning: {warning}", "warning")


def _places(rows: Sequence[Row]) -> str:
    """Rows of one runtime in words: in which precisions and for which batches."""
    precisions = ", ".join(dict.fromkeys(row.precision for row in rows if row.precision))
    batches = ", ".join(dict.fromkeys(str(row.batch) for row in rows))
    graphs = ", no CUDA graphs" if all(row.cuda_graphs is False for row in rows) else ""
    return f"{' '.join(filter(None, (rows[0].runtime, precisions)))}, batch {batches}{graphs}"


def runtimes_of(rows: Sequence[Row]) -> Iterator[Remark]:
    """Which libraries ran, in one line, if any did."""
    ran = dict.fromkeys(
        f"{row.runtime} {row.runtime_version} ({row.provider})" for row in rows if row.runtime_version is not None
    )
    if ran:
        yield Remark("runtimes: " + ", ".join(ran))


def quiet(rows: Sequence[Row]) -> Iterator[Remark]:
    """Whether the machine was quiet while all these were timed, in a line; nothing where nothing was measured."""
    measured = [row for row in rows if row.status == "ok"]
    counts = Counter(map(_machine_was, measured))
    reasons = dict.fromkeys(line for row in measured for line in row.disturbances or ())
    of = f"of {len(measured)} row{'s' if len(measured) != 1 else ''}"
    more = ", and more" if len(reasons) > 1 else ""
    unseen = f"; {UNSEEN}: {counts[UNSEEN]} {of}" if counts[UNSEEN] else ""
    if counts[DISTURBED]:
        first = next(iter(reasons))
        yield Remark(f"disturbed: {counts[DISTURBED]} {of}: {first}{more}{unseen}", "warning", code="run-disturbed")
    elif counts[QUIET]:
        yield Remark(f"quiet: {counts[QUIET]} {of}{unseen}", code="run-quiet")
    elif unseen:
        yield Remark(f"not known whether the machine was quiet: {counts[UNSEEN]} {of}", code="run-unwatched")


def _machine_was(row: Row) -> str:
    return UNSEEN if row.disturbances is None else DISTURBED if row.disturbances else QUIET


EVERYWHERE = ("f16c", "fma", "asimd")
"""Instruction sets that tell nothing: all processors of their kind have them."""


def machine(row: Row) -> str:
    """The environment in one line."""
    about = row.environment
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
                graphics(row),
                f"{about.kernel}, {about.python}",
                load,
            ),
        )
    )


def graphics(row: Row) -> str:
    """The GPU that the row was taken on, or those of the machine; nothing for a row of a processor."""
    if row.cuda_graphs is None:
        return ""
    there = row.environment.gpus
    used = [one for one in there if row.gpu_before is not None and one.uuid == row.gpu_before.uuid] or there
    words = (f"{one.name}, driver {one.driver}, CUDA {one.cuda}" for one in used)
    return " and ".join(words) or "GPU unknown: no NVML"
