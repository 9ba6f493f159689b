"""Rows of load shapes for people: a section for each runtime, with tables of loads, batches and cold starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks.format import ABSENT, count, duration, milliseconds, number
from benchmarks.load.cold_starts import STEPS
from benchmarks.load.figures import conditions_of, list_load_warnings
from benchmarks.machine.disturbances import disturbances_of_all
from benchmarks.records.load import LoadResult
from benchmarks.records.result import Row
from benchmarks.records.shapes import ShapeName
from benchmarks.report.columns import Column, table
from benchmarks.report.sections import Section, remarks, runtimes_of, title
from benchmarks.stats import intervals
from benchmarks.worker.load_loops import KNEE, knee

MEANING = (
    "service ms: the median from the start of a call to its end; response ms: from the moment that the",
    "request was to start, so with what it waited behind others. closed: the next call when the last one",
    "has ended; open: requests come at a rate, and are answered one at a time; paced: with idle gaps, as",
    "from a camera; clients: threads that call at once; batch: closed loops of more images a call; cold:",
    "fresh processes, in ms from their start to their first answer, without the making of its input.",
    "p99 needs 1,000 requests, p99.9 10,000: a longer --duration. !: the machine was not quiet, the",
    "reason stands beneath. In brackets: 95 % intervals by bootstrap.",
)
"""Lines that explain the columns."""

SWEPT: dict[ShapeName, tuple[str, Callable[[Row], int]]] = {
    "clients": ("clients", lambda row: 1 if row.load is None else row.load.clients),
    "batches": ("batch", lambda row: row.batch),
}
"""Shapes that are swept: what grows, and how it is told of a row."""


def shape(row: Row) -> str:
    """The row's load in a word or two."""
    load = _load(row)
    if load.shape == "open":
        return f"open, {load.arrivals}"
    if load.shape == "clients":
        return count(load.clients, "client")
    return f"batch {row.batch}" if load.shape == "batches" else load.shape


def _load(row: Row) -> LoadResult:
    assert row.load is not None
    return row.load


def _service(q: float) -> Callable[[Row], str]:
    """The quantile of the calls' own time, where there are the samples for it."""

    def cell(row: Row) -> str:
        samples = _load(row).services_s
        return milliseconds(intervals.quantile(samples, q) if intervals.enough_for(samples, q) else None)

    return cell


def _response(cell: Callable[[Row], str]) -> Callable[[Row], str]:
    """Nothing in a closed loop, where no request has an intended start."""
    return lambda row: cell(row) if _load(row).shape in ("open", "paced") else ABSENT


def _step(name: str) -> Column[Row]:
    return Column(name, lambda row: milliseconds(dict(_load(row).steps_s).get(name)))


def _megabytes(size_bytes: int | None) -> str:
    return ABSENT if size_bytes is None else f"{size_bytes / 1e6:,.1f}"


DISTURBED: Column[Row] = Column("!", lambda row: "!" if row.disturbances else ABSENT, left=True)
SERVICE: tuple[Column[Row], ...] = (
    Column("service ms", _service(0.5)),
    Column("p99", _service(0.99)),
    Column("p99.9", _service(0.999)),
)

LOADS: tuple[Column[Row], ...] = (
    Column("shape", shape, left=True),
    Column("offered/s", lambda row: number(_load(row).rate_per_s)),
    Column("achieved/s", lambda row: number(_load(row).achieved_per_s)),
    *SERVICE,
    Column("response ms", _response(lambda row: duration(row.p50_s, row.p50_interval_s))),
    Column("p99", _response(lambda row: milliseconds(row.p99_s))),
    Column("p99.9", _response(lambda row: milliseconds(row.p999_s))),
    DISTURBED,
)
BATCHES: tuple[Column[Row], ...] = (
    Column("batch", lambda row: str(row.batch)),
    Column("images/s", lambda row: number(row.images_per_s)),
    Column("calls/s", lambda row: number(_load(row).achieved_per_s)),
    *SERVICE,
    DISTURBED,
)
COLD: tuple[Column[Row], ...] = (
    Column("processes", lambda row: str(len(_load(row).responses_s))),
    *map(_step, STEPS),
    Column("answered", lambda row: duration(row.p50_s, row.p50_interval_s)),
    Column("peak MB", lambda row: _megabytes(row.peak_bytes)),
    Column("disk MB", lambda row: _megabytes(_load(row).disk_bytes)),
)
TABLES: dict[ShapeName, tuple[Column[Row], ...]] = {"batches": BATCHES, "cold": COLD}
"""Of the shapes that have one of their own; the others stand in ``LOADS`` together."""


def sections(rows: Sequence[Row]) -> tuple[Section, ...]:
    """One for each of the ``groups``, in their order."""
    return tuple(map(section, groups(rows)))


def groups(rows: Sequence[Row]) -> tuple[tuple[Row, ...], ...]:
    """The rows of each network, runtime and precision, in the order that they came."""
    found: dict[tuple[str | None, str, str, str | None], list[Row]] = {}
    for row in rows:
        found.setdefault((row.subject, row.sha256, row.runtime, row.precision), []).append(row)
    return tuple(map(tuple, found.values()))


def section(rows: Sequence[Row]) -> Section:
    """Of rows of one network, runtime and precision. Those without a load tell why in a remark."""
    found = [row for row in rows if row.load is not None]
    kinds: dict[tuple[Column[Row], ...], list[Row]] = {LOADS: [], BATCHES: [], COLD: []}
    for row in found:
        kinds[TABLES.get(_load(row).shape, LOADS)].append(row)
    tables = tuple(table(columns, of) for columns, of in kinds.items() if of)
    runtime = " ".join(filter(None, (rows[0].runtime, rows[0].precision)))
    said = [*sweeps(found), *(f"{shape(row)}: {words}" for row in found for words in list_load_warnings(_load(row)))]
    return Section(f"{title(rows)} · {runtime}", tables, tuple(_remarks(rows)), tuple(said))


def sweeps(rows: Sequence[Row]) -> Iterator[str]:
    """Where more at once stops to pay, in words, for each shape that was swept; the rows are of one runtime."""
    for name, (word, size) in SWEPT.items():
        points = [(size(row), row.images_per_s or 0.0) for row in rows if _load(row).shape == name]
        found = knee(points)
        if found is None:
            continue
        reached, (best, most) = dict(points)[found], max(points, key=lambda point: point[1])
        yield (
            f"{word} {found:,}: {reached:,.0f} images/s, the least that comes within {KNEE:.0%} of the best of "
            f"{min(points)[0]:,} to {max(points)[0]:,}, {most:,.0f} at {best:,}"
            + (" (the largest tried: more may be better still)" if found == max(points)[0] else "")
        )


def _remarks(rows: Sequence[Row]) -> Iterator[str]:
    """What must be known beside the figures, with the shapes in front that it is of."""
    said: dict[str, list[str]] = {}
    for row in rows:
        if row.load is not None:
            for words in (*(f"warning: {line}" for line in row.warnings), *filter(None, [row.note])):
                said.setdefault(words, []).append(shape(row))
    disturbed = [row for row in rows if row.disturbances]
    about = [None if row.load is None else conditions_of(row, row.load) for row in disturbed]
    if disturbed:
        warm = [row for row in rows if row.load is not None and row.load.conditions is not None]
        shapes = "all shapes" if len(disturbed) == len(warm) > 1 else "; ".join(map(shape, disturbed))
        lines = disturbances_of_all(about, disturbed[0].threads) or ()
        yield from (f"{shapes}: disturbed: {line}" for line in lines)
    yield from (f"{'; '.join(shapes)}: {words}" for words, shapes in said.items())
    yield from remarks([row for row in rows if row.load is None])
    yield from runtimes_of(rows)
