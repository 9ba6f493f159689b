"""What measured rows and findings say, as a document: of one run or load test, or a report of many."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from benchmarks.records.findings import Findings
from benchmarks.records.naming import locate
from benchmarks.records.result import Row
from benchmarks.report import columns, findings, load, run
from benchmarks.report.plots import LoadPlots
from benchmarks.report.predictions import TableLimits
from exporter.document.blocks import (
    PLAIN_WIDTH,
    Block,
    Command,
    Definitions,
    Document,
    Folded,
    Legend,
    Remark,
    Section,
    Sentence,
    Summary,
)

GPU_WIDTH = 120
"""Columns of a plain document with rows of a GPU, which has more to tell."""

INCOMPLETE = Remark("Incomplete: the run ended early.", "failure", code="incomplete")


def run_document(rows: Sequence[Row], complete: bool = True) -> Document:
    """The rows of ``rbench run``."""
    return of_rows(tuple(run.sections(rows)), rows, columns.meaning(rows), complete)


def load_document(rows: Sequence[Row], complete: bool = True) -> Document:
    """The rows of ``rbench load``."""
    return of_rows(load.sections(rows), rows, load.MEANING, complete)


def of_rows(sections: Sequence[Section], rows: Sequence[Row], legend: Sequence[str], complete: bool) -> Document:
    """The sections of rows, with all that is said of the rows together behind them."""
    width = PLAIN_WIDTH if columns.is_cpu_only(rows) else GPU_WIDTH
    about = (*environments(rows), Legend(tuple(legend))) if rows else ()
    return Document("rbench", (*sections, _summary(rows, complete), *about), plain_width=width)


def report_document(
    rows: Sequence[Row],
    experiments: Sequence[Findings] = (),
    title: str = "rbench",
    complete: bool = True,
    limits: TableLimits | None = None,
) -> Document:
    """Rows of all kinds with what they answered, within limits; and behind them what experiments found.

    Raises:
        ArtifactError: the answers in a row are damaged.
    """
    blocks: list[Block] = []
    for group in run.groups(rows):
        blocks += run.sections(group, limits or TableLimits())
        loads = tuple(row for row in group if row.load is not None)
        if loads:
            blocks += [*load.sections(loads), Section("", (LoadPlots(loads),))]
    blocks.append(_summary(rows, complete))
    if rows:
        blocks += [*environments(rows), _reproduction(rows)]
    blocks += map(findings.section, experiments)
    if rows:
        plain = [row for row in rows if row.load is None]
        lines = (columns.meaning(plain) if plain else ()) + (load.MEANING if len(plain) < len(rows) else ())
        blocks.append(Legend(lines))
    more = "machine, command and what the columns mean" if rows else ""
    return Document(title, tuple(blocks), _where_and_when(rows, experiments), more)


def _summary(rows: Sequence[Row], complete: bool) -> Summary:
    return Summary((*(() if complete else (INCOMPLETE,)), *run.quiet(rows)))


def _where_and_when(rows: Sequence[Row], experiments: Sequence[Findings]) -> str:
    sources = [one.provenance for one in experiments]
    times = [*(row.time for row in rows), *(source.time for source in sources if source.time)]
    days = sorted({time[:10] for time in times})
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "no rows"
    machines = dict.fromkeys(filter(None, (*(row.environment.cpu for row in rows), *(one.machine for one in sources))))
    return " · ".join([when, *machines])


def environments(rows: Sequence[Row]) -> Iterator[Section]:
    """Each machine that rows were taken on, as it was for the first of them."""
    firsts: dict[tuple[str, ...], Row] = {}
    for row in rows:
        firsts.setdefault(locate(row), row)
    blocks: list[Block] = []
    for row in firsts.values():
        about = row.environment
        frequency = "frequency unknown" if about.frequency_mhz is None else f"{about.frequency_mhz:,.0f} MHz"
        pairs = (
            ("machine", run.machine(row)),
            ("system", about.system),
            ("governor, frequency", f"{about.governor}, {frequency}"),
            *((f"{one.name}", f"driver {one.driver}, CUDA {one.cuda}") for one in about.gpus),
            *about.variables.items(),
        )
        packages = Definitions(tuple(sorted(about.packages.items())))
        blocks += [
            Definitions(pairs, brief=run.machine(row)),
            Folded(f"{len(about.packages)} installed packages", (packages,)),
        ]
    yield Section("Environment", tuple(blocks), appendix=True)


def _reproduction(rows: Sequence[Row]) -> Section:
    lines = commands(rows)
    plans = dict.fromkeys(
        f"{len(row.sittings)} processes; in each {row.rounds} rounds of turns, {row.duration_s:g} s by each clock; "
        f"seed {row.seed}"
        for row in rows
        if row.sittings and row.rounds is not None and row.duration_s is not None
    )
    unknown = () if lines else (Sentence("These rows were kept before rbench noted its command line."),)
    return Section("Reproduce", (*map(Command, lines), *unknown, *map(Remark, plans)), appendix=True)


def commands(rows: Sequence[Row]) -> tuple[str, ...]:
    """The command lines that measured the rows, each once, as a shell takes them."""
    return tuple(dict.fromkeys(shlex.join(row.command) for row in rows if row.command))
