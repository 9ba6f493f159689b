"""Rows for people: which columns they have, what is said beneath them, and the table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.analysis import ranking
from benchmarks.format import ABSENT as ABSENT
from benchmarks.format import count
from benchmarks.format import milliseconds as milliseconds
from benchmarks.format import points as points
from benchmarks.records.naming import locate, weights_of
from benchmarks.records.result import Row
from benchmarks.records.subject import NOISE
from benchmarks.report.columns import COST, GPU, SPANS, SPEED, WHICH, WORTH, Column, Table, table

MISSING = (": failed:", ": skipped:", ": error:")
"""Stand in the remark on a row that has no number."""


DOUBTFUL = (": disturbed:", ": warning:")
"""Stand in the remark on a row whose numbers are to be doubted."""


QUIET, DISTURBED, UNSEEN = "quiet", "disturbed", "not known whether the machine was quiet"
"""What is said of a machine while rows were timed."""


@dataclass(frozen=True)
class Section:
    """All the rows of one subject, as text. ``headlines`` say in words what came of them."""

    title: str
    tables: tuple[Table, ...]
    remarks: tuple[str, ...]
    headlines: tuple[str, ...] = ()


def groups(rows: Sequence[Row]) -> tuple[tuple[Row, ...], ...]:
    """The rows that may stand in one table, of one subject on one machine, in the order that they came."""
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        subject = (row.artifact, row.sha256) if row.subject is None else (row.subject,)
        found.setdefault((*subject, *locate(row)), []).append(row)
    return tuple(map(tuple, found.values()))


def sections(rows: Sequence[Row]) -> tuple[Section, ...]:
    """The rows by subject, in the order that they came. A column that nothing was measured for is left out, and a
    table of nothing else. Rows of load shapes stand in no table here, as their times are of something else."""
    return tuple(map(_section, groups(rows)))


def has_values(columns: Sequence[Column[Row]], row: Row) -> bool:
    """Whether the row has anything in these columns beside what says which row it is."""
    return any(column.cell(row) != ABSENT for column in columns if column not in WHICH)


def _section(rows: Sequence[Row]) -> Section:
    measured = [row for row in rows if row.status == "ok" and row.load is None]
    kinds = (
        (columns, [row for row in measured if has_values(columns, row)]) for columns in (SPEED, SPANS, WORTH, COST, GPU)
    )
    tables = [table(columns, of) for columns, of in kinds if of]
    said = (ranking.format_headline(found) for found in ranking.headlines(measured))
    return Section(title(rows), tuple(tables), tuple(remarks(rows)), tuple(said))


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


def remarks(rows: Sequence[Row]) -> Iterator[str]:
    """What must be known beside the figures: what is missing and why, what was not quiet or is doubtful, notes, and
    which libraries ran."""
    told: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for words in _format_remarks(row):
            told.setdefault((row.runtime, words), []).append(row)
    for (_, words), alike in told.items():
        yield f"{_places(alike)}: {words}"
    yield from runtimes_of(rows)


def _format_remarks(row: Row) -> Iterator[str]:
    if row.status != "ok":
        yield f"{row.status}: {row.reason}"
        return
    if row.disturbances:
        yield f"disturbed: {'; '.join(row.disturbances)}"
    yield from (f"warning: {words}" for words in row.warnings)
    if row.note:
        yield row.note


def _places(rows: Sequence[Row]) -> str:
    """Rows of one runtime in words: in which precisions and for which batches."""
    precisions = ", ".join(dict.fromkeys(row.precision for row in rows if row.precision))
    batches = ", ".join(dict.fromkeys(str(row.batch) for row in rows))
    graphs = ", no CUDA graphs" if all(row.cuda_graphs is False for row in rows) else ""
    return f"{' '.join(filter(None, (rows[0].runtime, precisions)))}, batch {batches}{graphs}"


def runtimes_of(rows: Sequence[Row]) -> Iterable[str]:
    """Which libraries ran, in one line, if any did."""
    ran = dict.fromkeys(
        f"{row.runtime} {row.runtime_version} ({row.provider})" for row in rows if row.runtime_version is not None
    )
    if ran:
        yield "runtimes: " + ", ".join(ran)


def quiet(rows: Sequence[Row]) -> str | None:
    """Whether the machine was quiet while all these were timed, in a line; ``None`` where nothing was measured."""
    measured = [row for row in rows if row.status == "ok"]
    counts = Counter(map(_machine_was, measured))
    reasons = dict.fromkeys(line for row in measured for line in row.disturbances or ())
    of = f"of {count(len(measured), 'row')}"
    parts = []
    if counts[DISTURBED]:
        more = ", and more" if len(reasons) > 1 else ""
        parts.append(f"{DISTURBED}: {counts[DISTURBED]} {of}: {next(iter(reasons))}{more}")
    elif counts[QUIET]:
        parts.append(f"{QUIET}: {counts[QUIET]} {of}")
    if counts[UNSEEN]:
        parts.append(f"{UNSEEN}: {counts[UNSEEN]} {of}")
    return "; ".join(parts) or None


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
