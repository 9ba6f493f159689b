"""The columns of the tables of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from benchmarks.analysis.figures import Figures
from benchmarks.format import ABSENT, duration, megabytes, milliseconds, number, percent, points, share, times
from benchmarks.records.request import REFERENCE
from benchmarks.records.result import Estimate
from exporter.document.blocks import Table, TableColumn, TableRow
from exporter.proportions import Interval

T = TypeVar("T")
P = TypeVar("P")

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
    """One column: its heading, and what a row has there; the flags are those of ``TableColumn``."""

    heading: str
    cell: Callable[[T], str]
    left: bool = False
    wide: bool = False
    minor: bool = False
    stacked: bool = False


def table(columns: Sequence[Column[T]], rows: Sequence[T]) -> Table:
    """The rows' cells, without the columns that there is nothing in."""
    heads = tuple(
        TableColumn(column.heading, column.left, wide=column.wide, minor=column.minor, stacked=column.stacked)
        for column in columns
    )
    return Table(heads, tuple(TableRow(tuple(column.cell(row) for column in columns)) for row in rows)).drop_empty()


def table_of_results(
    columns: Sequence[Column[Figures]], results: Sequence[Figures], best: Sequence[Figures] = ()
) -> Table:
    """The same of results, which a page filters by what stands at the left and by batch; ``best`` are marked."""
    plain = table(columns, results)
    rows = []
    for figures, row in zip(results, plain.rows, strict=True):
        missing = figures.result.status != "ok" or not has_values(columns, figures)
        marked = any(figures is one for one in best)
        state: Literal["missing", "best", ""] = "missing" if missing else "best" if marked else ""
        rows.append(TableRow(row.cells, search_attributes(columns, figures), state))
    return replace(plain, rows=tuple(rows))


def search_attributes(columns: Sequence[Column[Figures]], figures: Figures) -> dict[str, str]:
    """The words by which a page filters a result that it shows in these columns."""
    identity = figures.result.identity
    about = {"runtime": identity.backend, "precision": identity.precision or ""}
    cells = (column.cell(figures) for column in columns if column.left or column is BATCH)
    words = dict.fromkeys((*about.values(), *cells))
    words.pop(ABSENT, None)
    return {**about, "words": " ".join(words).lower()}


def has_values(columns: Sequence[Column[Figures]], figures: Figures) -> bool:
    """Whether the result has anything in these columns beside what says which one it is."""
    return any(column.cell(figures) != ABSENT for column in columns if column not in WHICH)


def cell_of(part: Callable[[T], P | None], cell: Callable[[P], str]) -> Callable[[T], str]:
    """The cell of a part that not every row has."""
    return lambda row: ABSENT if (found := part(row)) is None else cell(found)


def value_of(estimate: Estimate | None) -> float | None:
    """The value without its interval."""
    return None if estimate is None else estimate.value


def spread(write: Callable[[float | None, Interval | None], str], estimate: Estimate | None) -> str:
    """The value with its interval, as ``write`` writes the two."""
    return ABSENT if estimate is None else write(estimate.value, estimate.interval)


def against_reference(
    write: Callable[[float | None, Interval | None], str], estimate: Estimate | None, figures: Figures
) -> str:
    """The same of what is told against the reference; of the reference itself the value alone."""
    return write(value_of(estimate), None) if figures.is_reference else spread(write, estimate)


def _change(figures: Figures, field: str) -> str:
    """A number of the GPU's state before and after, or the one that there is."""
    states = (figures.result.gpu.before, figures.result.gpu.after)
    values = [number(value) for state in states if state and (value := getattr(state, field)) is not None]
    return "→".join(values) or ABSENT


def _throttle(figures: Figures) -> tuple[str, ...] | None:
    after = figures.result.gpu.after
    return None if after is None else after.throttle


def _verdict(figures: Figures) -> str:
    status = figures.result.status
    return figures.verdict or ABSENT if status == "ok" else status


def _graphs(figures: Figures) -> str:
    return "off" if figures.result.asked.cuda_graphs is False else ABSENT


RUNTIME: Column[Figures] = Column("runtime", lambda figures: figures.result.identity.backend, left=True)
PRECISION: Column[Figures] = Column(
    "precision", lambda figures: figures.result.identity.precision or ABSENT, left=True, stacked=True
)
BATCH: Column[Figures] = Column("batch", lambda figures: str(figures.result.identity.batch), stacked=True)
WHICH: tuple[Column[Figures], ...] = (RUNTIME, PRECISION, BATCH, Column("graphs", _graphs, left=True, minor=True))
TOP1: Column[Figures] = Column("top-1 %", lambda figures: spread(share, figures.top1))
DROP: Column[Figures] = Column("drop", lambda figures: against_reference(points, figures.drop, figures))
DISTURBED: Column[Figures] = Column("!", lambda figures: "!" if figures.disturbances else ABSENT, left=True)
SPEED: tuple[Column[Figures], ...] = (
    *WHICH,
    Column("p50 ms", lambda figures: spread(duration, figures.p50)),
    Column("p99", lambda figures: milliseconds(value_of(figures.p99)), minor=True),
    Column("images/s", lambda figures: number(figures.images_per_s), minor=True),
    Column(f"vs {REFERENCE}", lambda figures: against_reference(times, figures.ratio, figures)),
    Column("verdict", _verdict, left=True, minor=True),
    replace(TOP1, wide=True, minor=True),
    replace(DROP, wide=True, minor=True),
    replace(DISTURBED, minor=True),
)
SPANS: tuple[Column[Figures], ...] = (
    *WHICH,
    Column("p90 ms", lambda figures: milliseconds(value_of(figures.p90))),
    Column("p99.9", lambda figures: milliseconds(value_of(figures.p999))),
    Column("compute", lambda figures: spread(duration, figures.compute_p50)),
    Column("roof %", lambda figures: number(figures.roof_share, scale=100)),
    Column("device", lambda figures: milliseconds(value_of(figures.device_p50))),
    Column("image-to-label", lambda figures: milliseconds(value_of(figures.image_p50))),
)
WORTH: tuple[Column[Figures], ...] = (
    RUNTIME,
    PRECISION,
    TOP1,
    DROP,
    Column("top-5 %", lambda figures: percent(value_of(figures.top5))),
    Column("same %", lambda figures: percent(value_of(figures.agreement))),
    Column("flips", cell_of(lambda figures: figures.flips, lambda flips: f"{flips.real}+{flips.near_ties}")),
    Column("eval/s", cell_of(lambda figures: figures.result.evaluation, lambda done: number(done.images_per_s))),
)
COST: tuple[Column[Figures], ...] = (
    *WHICH,
    Column("ran", lambda figures: figures.result.ran.arithmetic or ABSENT, left=True),
    Column("load s", lambda figures: number(figures.load_s, ".2f")),
    Column("first ms", lambda figures: milliseconds(figures.first_s)),
    Column("peak MB", lambda figures: megabytes(figures.peak_bytes)),
)
GPU: tuple[Column[Figures], ...] = (
    *WHICH,
    Column("MHz", lambda figures: _change(figures, "sm_mhz")),
    Column("W", lambda figures: _change(figures, "power_w")),
    Column("held by", cell_of(_throttle, lambda reasons: ", ".join(reasons) or "nothing"), left=True),
    Column("GPU MB", lambda figures: megabytes(figures.result.gpu.peak_bytes)),
    Column("mJ/image", lambda figures: number(figures.result.gpu.energy_per_image_j, ".2f", scale=1e3)),
)


def meaning(results: Sequence[Figures]) -> tuple[str, ...]:
    """The lines that explain the columns of these results."""
    return MEANING if is_cpu_only(results) else MEANING + MEANING_OF_CUDA


def is_cpu_only(results: Sequence[Figures]) -> bool:
    """Whether none of the results is of a GPU."""
    return all(figures.result.asked.cuda_graphs is None for figures in results)
