"""Results of load tests in words: a section for each backend, with tables of loads, batches and cold starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.served import RateVerdict, describe_search, judge_rate, summarise_search
from benchmarks.analysis.warnings import list_stalls
from benchmarks.format import ABSENT, count, duration, megabytes, milliseconds, number, percent
from benchmarks.records.plan import RATED_SHAPES, ShapeName
from benchmarks.records.samples import STEPS, LoadResult, ServedLoad
from benchmarks.report.columns import Column, spread, table_of_results, value_of
from benchmarks.report.run import disturbance_remarks, doubts, remarks, title, versions
from benchmarks.stats import intervals
from benchmarks.stats.knee import KNEE, knee
from exporter.document.blocks import Block, Section, Sentence

MEANING = (
    ("service ms", "median time from the start of a call to its end"),
    ("response ms", "from the intended start of the request, so with the time that it waited"),
    ("SingleStream", "the next call starts when the last one has ended"),
    ("Server", "requests arrive as a Poisson process; a model in this process answers them one at a time"),
    ("fixed rate", "with idle gaps, as from a camera"),
    ("concurrent clients", "threads that call at once"),
    ("batch", "SingleStream with several images a call"),
    ("cold start", "fresh processes, in ms from their start to their first answer, without the time to make its input"),
    ("p99", "needs 1,000 requests, p99.9 10,000: a longer --duration"),
    ("failed %", "of a server: requests that it refused, that failed, or that took longer than --request-timeout"),
    ("too late %", "of --max-p99: requests that took longer than the limit, or failed"),
    ("limit", "whether the rate holds it: at most 1 % are too late, by the whole 95 % interval"),
    ("client ms", "median of the same client and load at a server on this machine that answers at once"),
    ("±", "of cold starts, the 95 % interval by bootstrap over their processes; a load is measured in one process"),
)
"""The columns and shapes of ``rbench load`` with their definitions."""

SWEPT: dict[ShapeName, tuple[str, Callable[[Figures], int]]] = {
    "clients": ("clients", lambda figures: 1 if figures.result.load is None else figures.result.load.clients),
    "batches": ("batch", lambda figures: figures.result.identity.batch),
}
"""Shapes that are swept: the name of the size, and the size of a row."""


@dataclass(frozen=True)
class LoadPlots(Block):
    """Load tests of one network, of which a page draws service and response times, sweeps and cold starts."""

    results: tuple[Figures, ...]


def shape(figures: Figures) -> str:
    """The load of the row in MLPerf's words, where it has any."""
    load = _load(figures)
    if judge_rate(load) is not None:
        return f"Server {load.rate_per_s:,.4g}/s"
    words: dict[ShapeName, str] = {
        "single-stream": "SingleStream",
        "server": "Server (Poisson)",
        "fixed-rate": "fixed rate",
        "clients": count(load.clients, "concurrent client"),
        "batches": f"batch {figures.result.identity.batch}",
        "cold": "cold start",
    }
    return words[load.shape]


def _load(figures: Figures) -> LoadResult:
    assert figures.result.load is not None
    return figures.result.load


def _service(figures: Figures, q: float) -> str:
    """The quantile of the calls' own time, where there are the samples for it."""
    samples = _load(figures).services_s
    return milliseconds(intervals.quantile(samples, q)) if intervals.enough_for(samples, q) else ABSENT


def _response(cell: Callable[[Figures], str]) -> Callable[[Figures], str]:
    """Nothing where no request has an intended start."""
    return lambda figures: cell(figures) if _load(figures).shape in RATED_SHAPES else ABSENT


def _of_server(cell: Callable[[LoadResult, ServedLoad], str]) -> Callable[[Figures], str]:
    """Nothing where the model ran in the measured process."""

    def write(figures: Figures) -> str:
        load = _load(figures)
        return ABSENT if load.served is None else cell(load, load.served)

    return write


def _of_search(cell: Callable[[RateVerdict], str]) -> Callable[[Figures], str]:
    """Nothing where no highest rate was searched."""
    return lambda figures: ABSENT if (verdict := judge_rate(_load(figures))) is None else cell(verdict)


def _median(samples: Sequence[float]) -> str:
    return milliseconds(intervals.quantile(samples, 0.5)) if intervals.enough_for(samples, 0.5) else ABSENT


def _step(name: str) -> Column[Figures]:
    return Column(name, lambda figures: milliseconds(dict(_load(figures).steps_s).get(name)))


SERVICE: tuple[Column[Figures], ...] = (
    Column("service ms", lambda figures: _service(figures, 0.5)),
    Column("p99 ms", lambda figures: _service(figures, 0.99)),
    Column("p99.9 ms", lambda figures: _service(figures, 0.999), priority=1),
)

SHAPE: Column[Figures] = Column("shape", shape, left=True)
OFFERED: Column[Figures] = Column("offered/s", lambda figures: number(_load(figures).rate_per_s), priority=2)
ACHIEVED: Column[Figures] = Column("achieved/s", lambda figures: number(_load(figures).achieved_per_s), priority=2)
RESPONSE: tuple[Column[Figures], ...] = (
    Column("response ms", _response(lambda figures: spread(duration, figures.p50))),
    Column("response p99", _response(lambda figures: milliseconds(value_of(figures.p99)))),
)
SERVER: tuple[Column[Figures], ...] = (
    Column(
        "failed %", _of_server(lambda load, served: percent(served.failed / (served.failed + len(load.responses_s))))
    ),
    Column("client ms", _of_server(lambda _, served: _median(served.null_s)), priority=3),
)
LOADS: tuple[Column[Figures], ...] = (
    SHAPE,
    OFFERED,
    ACHIEVED,
    *SERVICE,
    *RESPONSE,
    Column("response p99.9", _response(lambda figures: milliseconds(value_of(figures.p999))), priority=1),
    *SERVER,
)
SEARCH: tuple[Column[Figures], ...] = (
    SHAPE,
    ACHIEVED,
    *RESPONSE,
    Column("too late %", _of_search(lambda verdict: percent(verdict.share.value))),
    Column("limit", _of_search(lambda verdict: verdict.outcome), left=True),
    *SERVER,
)
BATCHES: tuple[Column[Figures], ...] = (
    Column("batch", lambda figures: str(figures.result.identity.batch)),
    Column("images/s", lambda figures: number(figures.images_per_s)),
    Column("calls/s", lambda figures: number(_load(figures).achieved_per_s)),
    *SERVICE,
    *SERVER,
)
COLD: tuple[Column[Figures], ...] = (
    Column("processes", lambda figures: str(len(_load(figures).responses_s))),
    *map(_step, STEPS),
    Column("answered", lambda figures: spread(duration, figures.p50)),
    Column("peak MB", lambda figures: megabytes(figures.peak_bytes, ",.1f")),
    Column("disk MB", lambda figures: megabytes(_load(figures).disk_bytes, ",.1f")),
)
TABLES: dict[ShapeName, tuple[Column[Figures], ...]] = {"batches": BATCHES, "cold": COLD}
"""Of the shapes that have one of their own; the others stand in ``LOADS`` together."""


def sections(results: Sequence[Figures]) -> tuple[Section, ...]:
    """One for each network, backend and precision, in the order that they came."""
    found: dict[tuple[str | None, str, str, str | None], list[Figures]] = {}
    for figures in results:
        of = figures.result.identity
        found.setdefault((of.subject, of.sha256, of.backend, of.precision), []).append(figures)
    return tuple(map(_section, found.values()))


def _section(results: Sequence[Figures]) -> Section:
    """Of results of one network, backend and precision. Those without a load tell why in a remark."""
    loaded = [figures for figures in results if figures.result.load is not None]
    search = summarise_search(map(_load, loaded))
    kinds: dict[tuple[Column[Figures], ...], list[Figures]] = {LOADS: [], SEARCH: [], BATCHES: [], COLD: []}
    for figures in loaded:
        kinds[TABLES.get(_load(figures).shape, LOADS if search is None else SEARCH)].append(figures)
    of = results[0].result.identity
    named = f"{title(results)} · {' '.join(filter(None, (of.backend, of.precision)))}"
    tables = (table_of_results(columns, shown) for columns, shown in kinds.items() if shown)
    said = [*(answer(loaded) if search is None else [describe_search(search)]), *sweeps(loaded)]
    for figures in loaded:
        said += [f"{shape(figures)}: {warning}" for warning in list_stalls(_load(figures))]
    blocks = (
        *(Sentence(line, "headline") for line in said),
        *(replace(table, label=named, aside=number > 0) for number, table in enumerate(tables)),
        *disturbance_remarks(loaded),
        *doubts(loaded, shape),
        *remarks([figures for figures in results if figures.result.load is None]),
        *versions(results),
    )
    return Section(named, blocks, "more of these rows")


def answer(results: Sequence[Figures]) -> Iterator[str]:
    """The highest throughput, the latency of the first load and the cold start of one backend, in one sentence; nothing
    without any of them."""
    parts: list[str] = []
    swept = [figures for figures in results if _load(figures).shape in SWEPT and figures.images_per_s]
    if swept:
        best = max(swept, key=lambda figures: figures.images_per_s or 0)
        parts.append(f"up to {number(best.images_per_s)} images/s ({shape(best)})")
    loads = [figures for figures in results if figures.p50 is not None and _load(figures).shape not in SWEPT]
    warm, cold = ([one for one in loads if (_load(one).shape == "cold") == is_cold] for is_cold in (False, True))
    parts += [f"p50 {milliseconds(value_of(one.p50))} ms ({shape(one)})" for one in warm[:1]]
    parts += [f"first answer {milliseconds(value_of(one.p50))} ms after a cold start" for one in cold[:1]]
    if parts:
        of = results[0].result.identity
        yield f"{' '.join(filter(None, (of.backend, of.precision)))}: {', '.join(parts)}"


def sweeps(results: Sequence[Figures]) -> Iterator[str]:
    """The size beyond which more at once gains little, for each swept shape; the results are of one backend."""
    for name, (word, size) in SWEPT.items():
        points = [(size(figures), figures.images_per_s or 0.0) for figures in results if _load(figures).shape == name]
        found = knee(points)
        if found is None:
            continue
        reached, (best, most) = dict(points)[found], max(points, key=lambda point: point[1])
        yield (
            f"{reached:,.0f} images/s at {word} {found:,}, the smallest within {100 * KNEE:.0f} % of the best "
            f"({most:,.0f} at {best:,}, of {min(points)[0]:,} to {max(points)[0]:,})"
            + ("; it is the largest tried, so more may be better" if found == max(points)[0] else "")
        )
