"""The columns of the tables of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from benchmarks.format import ABSENT, duration, milliseconds, number, percent, points, share, times
from benchmarks.records.request import REFERENCE
from benchmarks.records.result import Row
from benchmarks.records.subject import is_reference
from exporter.document.blocks import Table, TableColumn, TableRow

T = TypeVar("T")


MEANING = (
    "p50 ms and the other quantiles: host-to-host, one call with host arrays in and out; compute: the",
    "same with its inputs on the device; image-to-label: from a file's bytes on, one image. p99 needs",
    "1,000 samples, p99.9 10,000.",
    f"vs {REFERENCE}: its time over this one, above 1 is faster; a tie: the interval does not exclude 1, or",
    "the difference is too small to matter. !: the machine was not quiet, the reason stands beneath.",
    "roof %: of what the machine's measured ceilings allow. drop: its top-1 less this one, in points;",
    "same: the share of images with its top-1; flips: the others, real and near ties; eval/s: images of",
    "the whole evaluation. precision: of the graph; ran: what the convolutions and matrix products ran",
    "in, by the runtime's own profile if it has one. In brackets: 95 % intervals, of times by bootstrap",
    "over processes and blocks of calls, of shares by Wilson, of drops from pairs of answers.",
)


MEANING_OF_CUDA = (
    "compute ends by the host's clock when the GPU has finished; device: the same run by the GPU's clock, between two",
    "events. graphs: off where no recorded run was replayed. MHz, W: of the GPU before and after the timing, and why",
    "the clock was not higher then; GPU MB: of its memory, the most by the end of the latency timing above what was",
    "in use before; mJ: of the whole GPU, for an image of the compute runs.",
)
"""Lines that explain what the rows of a GPU have besides."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column: its heading, and what a row has there. A wide one is shown only where there is room, as on a page."""

    heading: str
    cell: Callable[[T], str]
    left: bool = False
    wide: bool = False


def table(columns: Sequence[Column[T]], rows: Sequence[T]) -> Table:
    """The rows' cells, without the columns that there is nothing in."""
    heads = tuple(TableColumn(column.heading, column.left, wide=column.wide) for column in columns)
    return Table(heads, tuple(TableRow(tuple(column.cell(row) for column in columns)) for row in rows)).drop_empty()


def table_of_rows(columns: Sequence[Column[Row]], rows: Sequence[Row], best: Sequence[Row] = ()) -> Table:
    """The same of measured rows, which a page filters by what stands at the left and by batch; ``best`` are marked."""
    plain = table(columns, rows)
    found = [column for column in columns if column.left or column is BATCH]
    lines = []
    for row, line in zip(rows, plain.rows, strict=True):
        about = {"runtime": row.runtime, "precision": row.precision or ""}
        words = dict.fromkeys([*about.values(), *(cell for column in found if (cell := column.cell(row)) != ABSENT)])
        attributes = {**about, "words": " ".join(words).lower()}
        lines.append(replace(line, attributes=attributes, state="best" if any(row is one for one in best) else ""))
        if row.status != "ok" or not has_values(columns, row):
            lines[-1] = replace(lines[-1], state="missing")
    return replace(plain, rows=tuple(lines))


def has_values(columns: Sequence[Column[Row]], row: Row) -> bool:
    """Whether the row has anything in these columns beside what says which row it is."""
    return any(column.cell(row) != ABSENT for column in columns if column not in WHICH)


def _reference(row: Row) -> bool:
    return is_reference(row.runtime, row.precision)


def _change(row: Row, field: str) -> str:
    """A number of the GPU's state before and after, or the one that there is."""
    states = (row.gpu_before, row.gpu_after)
    values = [number(value) for state in states if state and (value := getattr(state, field)) is not None]
    return "→".join(values) or ABSENT


def _throttle(row: Row) -> str:
    reasons = None if row.gpu_after is None else row.gpu_after.throttle
    return ABSENT if reasons is None else ", ".join(reasons) or "nothing"


def _verdict(row: Row) -> str:
    return row.verdict or ABSENT if row.status == "ok" else row.status


def _megabytes(size_bytes: int | None) -> str:
    return ABSENT if size_bytes is None else number(size_bytes / 1e6)


def _roof(row: Row) -> str:
    return ABSENT if row.roof is None else number(100 * row.roof.share)


def _millijoules(row: Row) -> str:
    return ABSENT if row.energy_per_image_j is None else number(1e3 * row.energy_per_image_j, ".2f")


RUNTIME: Column[Row] = Column("runtime", lambda row: row.runtime, left=True)


PRECISION: Column[Row] = Column("precision", lambda row: row.precision or ABSENT, left=True)


BATCH: Column[Row] = Column("batch", lambda row: str(row.batch))


GRAPHS: Column[Row] = Column("graphs", lambda row: "off" if row.cuda_graphs is False else ABSENT, left=True)


WHICH = (RUNTIME, PRECISION, BATCH, GRAPHS)


TOP1: Column[Row] = Column("top-1 %", lambda row: share(row.top1, row.top1_interval))


DROP: Column[Row] = Column("drop", lambda row: points(row.drop, None if _reference(row) else row.drop_interval))


SPEED: tuple[Column[Row], ...] = (
    *WHICH,
    Column("p50 ms", lambda row: duration(row.p50_s, row.p50_interval_s)),
    Column("p99", lambda row: milliseconds(row.p99_s)),
    Column("images/s", lambda row: number(row.images_per_s)),
    Column(f"vs {REFERENCE}", lambda row: times(row.ratio, None if _reference(row) else row.ratio_interval)),
    Column("verdict", _verdict, left=True),
    replace(TOP1, wide=True),
    replace(DROP, wide=True),
    Column("!", lambda row: "!" if row.disturbances else ABSENT, left=True),
)


SPANS: tuple[Column[Row], ...] = (
    *WHICH,
    Column("p90 ms", lambda row: milliseconds(row.p90_s)),
    Column("p99.9", lambda row: milliseconds(row.p999_s)),
    Column("compute", lambda row: duration(row.compute_p50_s, row.compute_p50_interval_s)),
    Column("roof %", _roof),
    Column("device", lambda row: milliseconds(row.device_p50_s)),
    Column("image-to-label", lambda row: milliseconds(row.image_p50_s)),
)


WORTH: tuple[Column[Row], ...] = (
    RUNTIME,
    PRECISION,
    TOP1,
    DROP,
    Column("top-5 %", lambda row: percent(row.top5)),
    Column("same %", lambda row: percent(row.agreement)),
    Column("flips", lambda row: ABSENT if row.flips is None else f"{row.flips.real}+{row.flips.near_ties}"),
    Column("eval/s", lambda row: number(row.evaluated_per_s)),
)


COST: tuple[Column[Row], ...] = (
    *WHICH,
    Column("ran", lambda row: row.arithmetic or ABSENT, left=True),
    Column("load s", lambda row: number(row.load_s, ".2f")),
    Column("first ms", lambda row: milliseconds(row.first_s)),
    Column("peak MB", lambda row: _megabytes(row.peak_bytes)),
)


GPU: tuple[Column[Row], ...] = (
    *WHICH,
    Column("MHz", lambda row: _change(row, "sm_mhz")),
    Column("W", lambda row: _change(row, "power_w")),
    Column("held by", _throttle, left=True),
    Column("GPU MB", lambda row: _megabytes(row.device_peak_bytes)),
    Column("mJ/image", _millijoules),
)


def meaning(rows: Sequence[Row]) -> tuple[str, ...]:
    """The lines that explain the columns of these rows."""
    return MEANING if is_cpu_only(rows) else MEANING + MEANING_OF_CUDA


def is_cpu_only(rows: Sequence[Row]) -> bool:
    """Whether none of the rows is of a GPU."""
    return all(row.cuda_graphs is None for row in rows)
