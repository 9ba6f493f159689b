"""The columns of the tables of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from benchmarks.analysis.figures import Figures
from benchmarks.format import (
    ABSENT,
    TOO_NOISY,
    change,
    duration,
    megabytes,
    milliseconds,
    number,
    percent,
    share,
    times,
)
from benchmarks.records.result import Estimate
from benchmarks.stats.comparison import NO_DIFFERENCE
from exporter.document.blocks import Table, TableColumn, TableRow
from exporter.proportions import Interval
from runtimes.devices import parse_device

T = TypeVar("T")
P = TypeVar("P")

NOT_SIGNIFICANT = "n.s."
"""Marks a ratio without a significant difference, in a cell."""

MEANING = (
    ("p50 ms", "median latency, end-to-end: one call with host arrays in and out"),
    ("vs baseline", "how many times as fast as the baseline; 2.0x is twice as fast"),
    ("p90, p99, p99.9", "latency quantiles; p99 needs 1,000 samples, p99.9 10,000"),
    ("images/s", "images of all calls over their time"),
    ("top-1 %", "accuracy"),
    ("change pp", "change in top-1 accuracy against the baseline, in percentage points"),
    ("agreement %", "images with the baseline's predicted class"),
    ("changed", "the other images, confident + borderline"),
    ("executed as", "number format of convolutions and matrix products, where the backend has a profile"),
    ("inference only ms", "a run with its inputs on the device"),
    ("decoding too ms", "from an image file to its label"),
    ("% of roofline", "share of the speed that the measured peak FLOPS and bandwidth of the machine allow"),
    ("load s", "opening, with the import of the library"),
    ("peak MB", "largest resident memory of a process"),
    (
        "±",
        "the 95 % interval, as its larger distance from the value: of times by bootstrap over processes and blocks of "
        "calls, of shares by Wilson, of changes from pairs of predictions",
    ),
    ("too noisy", "the interval is wider than the value"),
    (NOT_SIGNIFICANT, "no significant difference from the baseline"),
    (">", "the fastest of its batch size, and rows without a significant difference from it"),
)
"""The columns of ``rbench run`` with their definitions."""

MEANING_OF_CUDA = (
    ("device ms", "a run by the GPU's clock; inference only ms ends by the host's clock when the GPU has finished"),
    ("graphs", "off where no recorded run was replayed"),
    ("device", "the GPU of a row, where several worked at the same time"),
    ("MHz", "lowest and highest GPU clock, read at the end of each turn's runs"),
    ("W", "mean power of the whole GPU while its energy was measured"),
    ("clock limit", "why the clock was not higher"),
    ("GPU MB", "most GPU memory of the process; of the GPU, above that before opening, if the driver tells no more"),
    ("mJ/image", "energy of the whole GPU for an image; ± is the error of the driver's counter"),
)
"""The columns of rows of a GPU with their definitions."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column: its heading, the function that writes its cells, and the rest as in ``TableColumn``."""

    heading: str
    cell: Callable[[T], str]
    left: bool = False
    priority: int = 0
    stacked: bool = False


def table(columns: Sequence[Column[T]], rows: Sequence[T]) -> Table:
    """The rows' cells, without the columns that there is nothing in."""
    heads = tuple(
        TableColumn(column.heading, column.left, priority=column.priority, stacked=column.stacked) for column in columns
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
    about = {"backend": identity.backend, "precision": identity.precision or ""}
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
    """The same of a comparison with the baseline; of the baseline itself the value alone."""
    return write(value_of(estimate), None) if figures.is_reference else spread(write, estimate)


def _change(figures: Figures, field: str) -> str:
    """A number of the GPU's state before and after, or the one that there is."""
    states = (figures.result.gpu.before, figures.result.gpu.after)
    values = [number(value) for state in states if state and (value := getattr(state, field)) is not None]
    return "→".join(values) or ABSENT


def _throttle(figures: Figures) -> tuple[str, ...] | None:
    """The reasons for the clock in all turns, or in results without them, after the timing."""
    after = figures.result.gpu.after
    words = [each.throttle for each in figures.gpu_conditions if each.throttle is not None]
    words += [after.throttle] if after is not None and after.throttle is not None else []
    return tuple(dict.fromkeys(word for each in words for word in each)) if words else None


def _clock(figures: Figures) -> str:
    """The lowest and highest clock in the turns of all processes, or in results without them, before and after."""
    ends = [end for each in figures.gpu_conditions for end in each.sm_mhz or ()]
    if not ends:
        return _change(figures, "sm_mhz")
    return "–".join(number(end) for end in dict.fromkeys((min(ends), max(ends))))


def _power(figures: Figures) -> str:
    """The mean power of the runs whose energy was measured, or in results without it, before and after."""
    mean_w = figures.result.gpu.power_w
    return _change(figures, "power_w") if mean_w is None else number(mean_w)


def _energy(figures: Figures) -> str:
    use = figures.result.gpu
    if use.energy_per_image_j is None or use.energy_error_share is None:
        return number(use.energy_per_image_j, ".2f", scale=1e3)
    image_mj = 1e3 * use.energy_per_image_j
    return f"{image_mj:.3g} ± {image_mj * use.energy_error_share:.1g}"


def _ratio(figures: Figures) -> str:
    """The ratio; one without significance is marked, unless it is too noisy to tell even that."""
    status = figures.result.status
    if status != "ok":
        return status
    text = against_reference(times, figures.ratio, figures)
    marked = figures.verdict == NO_DIFFERENCE and not text.endswith(TOO_NOISY)
    return f"{text} {NOT_SIGNIFICANT}" if marked else text


def _graphs(figures: Figures) -> str:
    return "off" if figures.result.asked.cuda_graphs is False else ABSENT


def _device(figures: Figures) -> str:
    """The device of a row beside others of the same configuration, which worked at the same time."""
    asked = figures.result.asked
    return parse_device(asked.device).numbered if asked.at_once and asked.device is not None else ABSENT


BACKEND: Column[Figures] = Column("backend", lambda figures: figures.result.identity.backend, left=True)
PRECISION: Column[Figures] = Column(
    "precision", lambda figures: figures.result.identity.precision or ABSENT, left=True, stacked=True
)
BATCH: Column[Figures] = Column("batch", lambda figures: str(figures.result.identity.batch), stacked=True)
FILE: Column[Figures] = Column("file", lambda figures: figures.result.identity.file or ABSENT, left=True)
DEVICE: Column[Figures] = Column("device", _device, left=True)
WHICH: tuple[Column[Figures], ...] = (FILE, BACKEND, PRECISION, BATCH, Column("graphs", _graphs, left=True), DEVICE)
TOP1: Column[Figures] = Column("top-1 %", lambda figures: spread(share, figures.top1))
CHANGE: Column[Figures] = Column("change pp", lambda figures: against_reference(change, figures.top1_change, figures))
AGREEMENT: Column[Figures] = Column("agreement %", lambda figures: percent(value_of(figures.agreement)))
ARITHMETIC: Column[Figures] = Column(
    "executed as", lambda figures: figures.result.ran.arithmetic or ABSENT, left=True, priority=7
)
MAIN: tuple[Column[Figures], ...] = (
    *WHICH,
    Column("p50 ms", lambda figures: spread(duration, figures.p50)),
    Column("vs baseline", _ratio),
    Column("p99 ms", lambda figures: milliseconds(value_of(figures.p99)), priority=4),
    Column("images/s", lambda figures: number(figures.images_per_s), priority=3),
    Column("top-1 %", lambda figures: percent(value_of(figures.top1)), priority=1),
    replace(CHANGE, priority=2),
    replace(AGREEMENT, priority=6),
    ARITHMETIC,
    Column("size MB", lambda figures: megabytes(figures.result.identity.size_bytes, ",.1f"), priority=5),
)
"""Columns of the table behind the headline. The ones of the highest priority number are left out first."""

LATENCY: tuple[Column[Figures], ...] = (
    *WHICH,
    Column("p90 ms", lambda figures: milliseconds(value_of(figures.p90))),
    Column("p99.9 ms", lambda figures: milliseconds(value_of(figures.p999))),
    Column("inference only ms", lambda figures: spread(duration, figures.compute_p50)),
    Column("% of roofline", lambda figures: number(figures.roofline_share, scale=100)),
    Column("device ms", lambda figures: milliseconds(value_of(figures.device_p50))),
    Column("decoding too ms", lambda figures: milliseconds(value_of(figures.image_p50))),
)
ACCURACY: tuple[Column[Figures], ...] = (
    FILE,
    BACKEND,
    PRECISION,
    TOP1,
    CHANGE,
    Column("top-5 %", lambda figures: percent(value_of(figures.top5))),
    AGREEMENT,
    Column(
        "changed",
        cell_of(lambda figures: figures.changed_predictions, lambda changed: f"{changed.real} + {changed.near_ties}"),
    ),
    Column("evaluated/s", cell_of(lambda figures: figures.result.evaluation, lambda done: number(done.images_per_s))),
)
COST: tuple[Column[Figures], ...] = (
    *WHICH,
    Column("load s", lambda figures: number(figures.load_s, ".2f")),
    Column("first call ms", lambda figures: milliseconds(figures.first_s)),
    Column("peak MB", lambda figures: megabytes(figures.peak_bytes)),
)
GPU: tuple[Column[Figures], ...] = (
    *WHICH,
    Column("MHz", _clock),
    Column("W", _power),
    Column("clock limit", cell_of(_throttle, lambda reasons: ", ".join(reasons) or "none"), left=True),
    Column("GPU MB", lambda figures: megabytes(figures.result.gpu.peak_bytes)),
    Column("mJ/image", _energy),
)


def meaning(results: Sequence[Figures]) -> tuple[tuple[str, str], ...]:
    """The columns of these results with their definitions."""
    return MEANING if is_cpu_only(results) else MEANING + MEANING_OF_CUDA


def is_cpu_only(results: Sequence[Figures]) -> bool:
    """Whether none of the results is of a GPU."""
    return all(figures.result.asked.cuda_graphs is None for figures in results)
