"""Rows for people: a table for the terminal, and Markdown. Milliseconds, megabytes and percent begin here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Generic, TextIO, TypeVar

from benchmarks.request import REFERENCE
from benchmarks.results import Row
from benchmarks.rows import NOISE, is_reference
from exporter.proportions import Interval

if TYPE_CHECKING:
    from rich.table import Table as RichTable

T = TypeVar("T")

ABSENT = "–"
PLAIN_WIDTH = 100
GPU_WIDTH = 120
"""Columns of a table that goes to a file or a pipe; one of a GPU has more to tell."""

MEANING = (
    "latency: one call, host arrays in and out; compute: the same with its inputs on the device already.",
    f"vs {REFERENCE}: its p50 over this p50, above 1 is faster; same: the share of images with its top-1;",
    "drop: its top-1 less this one, in points. precision: of the graph; ran: what the convolutions and",
    "matrix products ran in, by the runtime's own profile where it has one. In brackets: 95 % intervals,",
    "of times by block bootstrap within one process, of shares by Wilson, of drops from pairs of answers.",
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


def milliseconds(seconds: float | None) -> str:
    """Three digits or more, never an exponent."""
    if seconds is None:
        return ABSENT
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.{2 if value >= 1 else 3}f}"


def _bracketed(interval: Interval | None, form: Callable[[float], str]) -> str:
    return "" if interval is None else f" [{form(interval[0])}–{form(interval[1])}]"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _share(value: float | None, interval: Interval | None) -> str:
    return ABSENT if value is None else _percent(value) + _bracketed(interval, lambda end: f"{100 * end:.1f}")


def points(value: float | None, interval: Interval | None) -> str:
    """A difference of shares in percentage points; below 0 with its sign."""
    if value is None:
        return ABSENT
    ends = "" if interval is None else f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"
    return f"{100 * value:.2f}{ends}"


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return ABSENT
    interval = None if _reference(row) else row.ratio_interval
    return f"{row.ratio:.2f}" + _bracketed(interval, lambda end: f"{end:.2f}")


def _reference(row: Row) -> bool:
    return is_reference(row.runtime, row.precision)


def _p50(row: Row) -> str:
    return milliseconds(row.p50_s) + _bracketed(row.p50_interval_s, milliseconds)


def _number(value: float | None, form: str = ",.0f") -> str:
    return ABSENT if value is None else format(value, form)


def _drop(row: Row) -> str:
    return points(row.drop, None if _reference(row) else row.drop_interval)


def _change(row: Row, field: str) -> str:
    """A number of the GPU's state before and after, or the one that there is."""
    states = (row.gpu_before, row.gpu_after)
    values = [_number(value) for state in states if state and (value := getattr(state, field)) is not None]
    return "→".join(values) or ABSENT


def _throttle(row: Row) -> str:
    reasons = None if row.gpu_after is None else row.gpu_after.throttle
    return ABSENT if reasons is None else ", ".join(reasons) or "nothing"


RUNTIME: Column[Row] = Column("runtime", lambda row: row.runtime, left=True)
PRECISION: Column[Row] = Column("precision", lambda row: row.precision or ABSENT, left=True)
BATCH: Column[Row] = Column("batch", lambda row: str(row.batch))
GRAPHS: Column[Row] = Column("graphs", lambda row: "off" if row.cuda_graphs is False else ABSENT, left=True)

SPEED: tuple[Column[Row], ...] = (
    RUNTIME,
    PRECISION,
    BATCH,
    GRAPHS,
    Column("p50 ms", _p50),
    Column("p99", lambda row: milliseconds(row.p99_s)),
    Column("compute", lambda row: milliseconds(row.compute_p50_s)),
    Column("device", lambda row: milliseconds(row.device_p50_s)),
    Column("images/s", lambda row: _number(row.images_per_s)),
    Column(f"vs {REFERENCE}", _ratio),
)
WORTH: tuple[Column[Row], ...] = (
    RUNTIME,
    PRECISION,
    Column("top-1 %", lambda row: _share(row.top1, row.top1_interval)),
    Column("drop", _drop),
    Column("top-5 %", lambda row: ABSENT if row.top5 is None else _percent(row.top5)),
    Column("same %", lambda row: ABSENT if row.agreement is None else _percent(row.agreement)),
)
COST: tuple[Column[Row], ...] = (
    RUNTIME,
    PRECISION,
    BATCH,
    GRAPHS,
    Column("ran", lambda row: row.arithmetic or ABSENT, left=True),
    Column("load s", lambda row: _number(row.load_s, ".2f")),
    Column("first ms", lambda row: milliseconds(row.first_s)),
    Column("peak MB", lambda row: _number(None if row.peak_bytes is None else row.peak_bytes / 1e6)),
)
GPU: tuple[Column[Row], ...] = (
    RUNTIME,
    PRECISION,
    BATCH,
    GRAPHS,
    Column("MHz", lambda row: _change(row, "sm_mhz")),
    Column("W", lambda row: _change(row, "power_w")),
    Column("held by", _throttle, left=True),
    Column("GPU MB", lambda row: _number(None if row.device_peak_bytes is None else row.device_peak_bytes / 1e6)),
    Column("mJ/image", lambda row: _number(row.energy_per_image_j and row.energy_per_image_j * 1e3, ".2f")),
)


@dataclass(frozen=True)
class Section:
    """All the rows of one subject, as text."""

    title: str
    tables: tuple[Table, ...]
    remarks: tuple[str, ...]


def sections(rows: Sequence[Row]) -> tuple[Section, ...]:
    """The rows by subject, in the order that they came. A column that nothing was measured for is left out, and a
    table of nothing else."""
    groups = groupby(rows, key=lambda row: (row.artifact, row.sha256) if row.subject is None else row.subject)
    return tuple(_section(tuple(group)) for _, group in groups)


def _section(rows: Sequence[Row]) -> Section:
    measured = [row for row in rows if row.status == "ok"]
    answered = [row for row in measured if row.images]
    watched = [row for row in measured if row.gpu_after is not None]
    kinds = ((SPEED, measured), (WORTH, answered), (COST, measured), (GPU, watched))
    tables = [table(columns, of) for columns, of in kinds if of]
    return Section(title(rows), tuple(tables), tuple(_remarks(rows)))


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


def _remarks(rows: Sequence[Row]) -> Iterable[str]:
    told: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        words = row.note if row.status == "ok" else f"{row.status}: {row.reason}"
        if words:
            told.setdefault((row.runtime, words), []).append(row)
    for (_, words), alike in told.items():
        yield f"{_places(alike)}: {words}"
    yield from runtimes_of(rows)


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
    return MEANING if of_processor(rows) else MEANING + MEANING_OF_CUDA


def of_processor(rows: Sequence[Row]) -> bool:
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

    plain = PLAIN_WIDTH if of_processor(rows) else GPU_WIDTH
    console = Console(file=file, width=None if file.isatty() else plain, highlight=False, markup=False, emoji=False)
    for section in shown:
        console.print(Text(section.title, style="bold"))
        for found in section.tables:
            console.print(_rich_table(found))
            console.print()
        for remark in section.remarks:
            console.print(Text(remark, style="yellow" if any(word in remark for word in MISSING) else ""))
        console.print()
    if not complete:
        console.print(Text("incomplete: the run ended early", style="bold red"))
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


def markdown(rows: Sequence[Row], complete: bool = True) -> str:
    """The same tables in Markdown."""
    lines = ["# rbench", ""]
    if not complete:
        lines += ["**Incomplete: the run ended early.**", ""]
    for section in sections(rows):
        lines += [f"## {_escaped(section.title)}", ""]
        for found in section.tables:
            lines.append("| " + " | ".join(heading for heading, _ in found.headings) + " |")
            lines.append("| " + " | ".join("---" if left else "--:" for _, left in found.headings) + " |")
            lines += ["| " + " | ".join(map(_escaped, row)) + " |" for row in found.cells]
            lines.append("")
        lines += [f"- {_escaped(remark)}" for remark in section.remarks]
        lines.append("")
    if rows:
        lines += [_escaped(machine(rows[0])), "", *meaning(rows)]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Safe in a table's cell and as text; the emphasis of *untrained* stays."""
    for character in "\\|`<[]":
        text = text.replace(character, f"\\{character}")
    return text
