"""Measured results and findings as a document: of one run or load test, or a report of many.

Documents for a terminal answer the question in one screen: folded tables and the definitions of the columns are part of
them only with ``explain``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.analysis.figures import Figures
from benchmarks.records.findings import Findings
from benchmarks.records.identity import locate
from benchmarks.records.result import Result
from benchmarks.report import columns, findings, load, run
from benchmarks.report.run import TableLimits
from exporter.document import blocks
from exporter.document.blocks import Block, Definitions, Document, Folded, Legend, Remark, Section, Sentence, Summary

GPU_WIDTH = 120
"""Columns of a plain document with results of a GPU, which has more to tell."""

INCOMPLETE = Remark("Incomplete: the run ended early.", "failure", code="incomplete")


def run_document(results: Sequence[Figures], complete: bool = True, explain: bool = False) -> Document:
    """The results of ``rbench run``, with the meaning of the columns if ``explain`` asks for it."""
    return document_of(tuple(run.sections(results)), results, columns.meaning(results) if explain else (), complete)


def load_document(results: Sequence[Figures], complete: bool = True, explain: bool = False) -> Document:
    """The results of ``rbench load``, with the meaning of the columns if ``explain`` asks for it."""
    return document_of(load.sections(results), results, load.MEANING if explain else (), complete)


def document_of(
    sections: Sequence[Section], results: Sequence[Figures], legend: Sequence[tuple[str, str]], complete: bool
) -> Document:
    """The sections of results for a terminal, and behind them the legend, the machines and the verdict on the results,
    which is the last line. Without a legend folded tables are left out."""
    width = blocks.PLAIN_WIDTH if columns.is_cpu_only(results) else GPU_WIDTH
    shown = sections if legend else map(_unfolded, sections)
    explained = (Legend(tuple(legend)),) if legend and results else ()
    about = (_environments(results),) if results else ()
    return Document("rbench", (*shown, *explained, *about, _summary(results, complete)), plain_width=width)


def _unfolded(section: Section) -> Section:
    return replace(section, blocks=tuple(block for block in section.blocks if not isinstance(block, Folded)))


def report_document(
    results: Sequence[Figures],
    experiments: Sequence[Findings] = (),
    title: str = "rbench",
    complete: bool = True,
    limits: TableLimits | None = None,
) -> Document:
    """Rows of all kinds with what they answered, within limits; and behind them what experiments found.

    Raises:
        ArtifactError: the predictions of a result are damaged.
    """
    shown: list[Block] = []
    for group in run.groups(results):
        shown += run.sections(group, limits or TableLimits())
        loads = tuple(figures for figures in group if figures.result.load is not None)
        if loads:
            shown += [*load.sections(loads), Section("", (load.LoadPlots(loads),))]
    shown.append(_summary(results, complete))
    if results:
        shown += [_environments(results), _reproduction(results)]
    if not results and len(experiments) > 1:
        shown.append(Section("", (Sentence(findings.overall_headline(experiments), "headline"),)))
    shown += map(findings.section, experiments)
    if results:
        plain = [figures for figures in results if figures.result.load is None]
        entries = (columns.meaning(plain) if plain else ()) + (load.MEANING if len(plain) < len(results) else ())
        shown.append(Legend(entries))
    more = "machine, command and definitions of the columns" if results else ""
    return Document(title, tuple(shown), _where_and_when(results, experiments), more)


def _summary(results: Sequence[Figures], complete: bool) -> Summary:
    return Summary((*(() if complete else (INCOMPLETE,)), *run.verdict(results)))


def _where_and_when(results: Sequence[Figures], experiments: Sequence[Findings]) -> str:
    sources = [one.provenance for one in experiments]
    times = [*(figures.result.time for figures in results), *(source.time for source in sources if source.time)]
    days = sorted({time[:10] for time in times})
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "no rows"
    machines = [*(figures.result.environment.cpu for figures in results), *(one.machine for one in sources)]
    return " · ".join([when, *dict.fromkeys(filter(None, machines))])


def _environments(results: Sequence[Figures]) -> Section:
    """Each machine that results were taken on, as it was for the first of them."""
    firsts: dict[tuple[str, ...], Result] = {}
    for figures in results:
        firsts.setdefault(locate(figures.result), figures.result)
    shown: list[Block] = []
    for result in firsts.values():
        about, machine = result.environment, run.machine(result)
        frequency = "frequency unknown" if about.frequency_mhz is None else f"{about.frequency_mhz:,.0f} MHz"
        pairs = (
            ("machine", machine),
            ("system", about.system),
            ("governor, frequency", f"{about.governor}, {frequency}"),
            *((one.name, f"driver {one.driver}, CUDA {one.cuda}") for one in about.gpus),
            *about.variables.items(),
        )
        packages = Definitions(tuple(sorted(about.packages.items())))
        folded = blocks.Folded(f"{len(about.packages)} installed packages", (packages,))
        shown += [Definitions(pairs, brief=machine), folded]
    return Section("Environment", tuple(shown), appendix=True)


def _reproduction(results: Sequence[Figures]) -> Section:
    lines = commands(results)
    plans: dict[str, None] = {}
    for result in (figures.result for figures in results):
        asked, processes = result.asked, len(result.samples)
        if processes and asked.rounds is not None and asked.duration_s is not None:
            number = "1 process" if processes == 1 else f"{processes} processes"
            plan = f"{number} of {asked.rounds} interleaved rounds, {asked.duration_s:g} s by each clock"
            plans[f"{plan}; seed {asked.seed}"] = None
    unknown = () if lines else (Sentence("The command line of these rows was not recorded."),)
    return Section("Reproduce", (*map(blocks.Command, lines), *unknown, *map(Remark, plans)), appendix=True)


def commands(results: Sequence[Figures]) -> tuple[str, ...]:
    """The command lines that measured the results, each once, as a shell takes them."""
    return tuple(dict.fromkeys(shlex.join(command) for figures in results if (command := figures.result.asked.command)))
