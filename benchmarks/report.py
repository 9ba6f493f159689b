"""Rows for people: which columns they have, what is said beneath them, and the table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TextIO, TypeVar

from benchmarks import headline
from benchmarks.numerals import ABSENT as ABSENT
from benchmarks.numerals import duration, number, percent, share, times
from benchmarks.numerals import milliseconds as milliseconds
from benchmarks.numerals import points as points
from benchmarks.request import REFERENCE
from benchmarks.results import Row
from benchmarks.rows import NOISE, is_reference

if TYPE_CHECKING:
    from rich.table import Table as RichTable

T = TypeVar("T")

PLAIN_WIDTH = 100
GPU_WIDTH = 120
"""Columns of a table that goes to a file or a pipe; one of a GPU has more to tell."""

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

MISSING = (": failed:", ": skipped:", ": error:")
"""Stand in the remark on a row that has no number."""

DOUBTFUL = (": disturbed:", ": warning:")
"""Stand in the remark on a row whose numbers are to be doubted."""

QUIET, DISTURBED, UNSEEN = "quiet", "disturbed", "not known whether the machine was quiet"
"""What is said of a machine while rows were timed."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column: its heading, and what a row has there."""

    heading: str
    cell: Callable[[T], str]
    left: bool = False


@dataclass(frozen=True)
class Table:
    """Columns, each with its heading and whether it stands at the left, and the cells row by row."""

    headings: tuple[tuple[str, bool], ...]
    cells: tuple[tuple[str, ...], ...]


def table(columns: Sequence[Column[T]], rows: Sequence[T]) -> Table:
    """The rows' cells, without the columns that there is nothing in."""
    kept = [column for column in columns if any(column.cell(row) != ABSENT for row in rows)]
    return Table(
        tuple((column.heading, column.left) for column in kept),
        tuple(tuple(column.cell(row) for column in kept) for row in rows),
    )


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


def locate(row: Row) -> tuple[str, ...]:
    """The machine and the device that the row was to be measured on."""
    about = row.environment
    return (about.cpu, *(gpu.name for gpu in about.gpus), row.requested_device or row.device)


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
    said = (headline.format_headline(found) for found in headline.headlines(measured))
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


def weights_of(row: Row) -> str:
    """The weights in words; those that were never trained are marked so wherever they stand."""
    if row.trained is None:
        return f"{row.variant}, foreign file" if row.variant != row.artifact else "foreign file"
    return (
        f"{row.variant}, {row.weights} weights" if row.trained else f"{row.variant}, *untrained* {row.weights} weights"
    )


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
    of = f"of {len(measured)} row{'s' if len(measured) != 1 else ''}"
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


def meaning(rows: Sequence[Row]) -> tuple[str, ...]:
    """The lines that explain the columns of these rows."""
    return MEANING if is_cpu_only(rows) else MEANING + MEANING_OF_CUDA


def is_cpu_only(rows: Sequence[Row]) -> bool:
    """Whether none of the rows is of a GPU."""
    return all(row.cuda_graphs is None for row in rows)


def print_table(rows: Sequence[Row], file: TextIO, complete: bool = True) -> None:
    """Prints the rows: as wide as the terminal is and with emphasis there, else plain and 100 columns wide, or
    120 for a GPU."""
    print_sections(sections(rows), rows, meaning(rows), file, complete)


def print_sections(
    shown: Sequence[Section], rows: Sequence[Row], meaning: Sequence[str], file: TextIO, complete: bool
) -> None:
    """The same of sections that were made already of these rows; ``meaning`` are lines that explain their columns."""
    from rich.console import Console
    from rich.text import Text

    plain = PLAIN_WIDTH if is_cpu_only(rows) else GPU_WIDTH
    console = Console(file=file, width=None if file.isatty() else plain, highlight=False, markup=False, emoji=False)
    for section in shown:
        console.print(Text(section.title, style="bold"))
        for said in section.headlines:
            console.print(Text(said))
        for found in section.tables:
            console.print(_rich_table(found))
            console.print()
        for remark in section.remarks:
            console.print(Text(remark, style="yellow" if any(word in remark for word in MISSING + DOUBTFUL) else ""))
        console.print()
    if not complete:
        console.print(Text("incomplete: the run ended early", style="bold red"))
    if (verdict := quiet(rows)) is not None:
        console.print(Text(verdict, style="yellow" if verdict.startswith(DISTURBED) else ""))
    if rows:
        console.print(Text(machine(rows[0]), style="dim"))
        console.print(Text("\n".join(meaning), style="dim"))


def _rich_table(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    result = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for heading, left in table.headings:
        result.add_column(heading, justify="left" if left else "right")
    for row in table.cells:
        result.add_row(*(Text(cell) for cell in row))
    return result
