"""What ``rbench load --url`` says of a server with scripted delays: its quantiles, its stalls and its highest rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.analysis.served import find_client_limit, judge_rate, summarise_search
from benchmarks.load.run import LoadSpec, run
from benchmarks.records.plan import Endpoint, ShapeName
from benchmarks.records.request import BenchmarkRequest
from benchmarks.records.samples import LoadResult
from benchmarks.stats.intervals import quantile
from runtimes.errors import CheckFailedError
from scripts.figures.setting import Figure, FigureSettings, RunListener
from tests.benchmarks.load.scripted_server import ServerScript, scripted_server
from tests.benchmarks.scripts import artifact

USUAL_S, SLOW_S = 0.050, 0.150
"""The delay of 97 of 100 requests, and that of the other three: the p50 and the p99 of the script."""

TOLERANCE = 0.05

STALL_S, STALL_EVERY, STALL_RATE_PER_S = 0.5, 400, 100.0

SERIAL_S, LIMIT_S = 0.010, 0.050
"""The delay of a server that works on one request at a time, and the limit of p99 whose rate is searched."""

SILENT = RunListener(step=lambda *_: None, notice=lambda _: None)


def measure_load_url(setting: FigureSettings) -> Iterator[Figure]:
    """p50 and p99 against a scripted delay over HTTP and gRPC, a stall, and the highest rate against a simulation."""
    path = artifact(setting.folder)
    yield from _measure_delays(path)
    yield _measure_stall(path)
    yield _measure_rate(path)


def _load(path: Path, load_spec: LoadSpec, duration_s: float) -> list[LoadResult]:
    results = list(run(BenchmarkRequest((str(path),), duration_s=duration_s), load_spec, SILENT))
    for result in results:
        if result.load is None:
            raise CheckFailedError(f"not measured: {result.reason}", code="figure-not-measured")
    return [result.load for result in results if result.load is not None]


def _describe_client(load: LoadResult) -> tuple[str, ...]:
    limit = None if load.served is None else find_client_limit(load, load.served)
    return () if limit is None else (str(limit),)


def _measure_delays(path: Path) -> Iterator[Figure]:
    delays = (*(USUAL_S,) * 32, SLOW_S, *(USUAL_S,) * 32, SLOW_S, *(USUAL_S,) * 33, SLOW_S)
    shapes: tuple[tuple[ShapeName, float], ...] = (("server", 150.0), ("fixed-rate", 150.0), ("clients", 0.0))
    with scripted_server(ServerScript(delays)) as ports:
        for protocol in ("http", "grpc"):
            for shape, rate_per_s in shapes:
                endpoint = Endpoint(getattr(ports, protocol))
                load_spec = LoadSpec((shape,), rate_per_s or None, rate_per_s or 30.0, (8,), endpoint)
                (load,) = _load(path, load_spec, 20.0)
                for q, scripted_s in ((0.5, USUAL_S), (0.99, SLOW_S)):
                    found_s = quantile(load.responses_s, q)
                    error = found_s / scripted_s - 1
                    value = f"{1e3 * found_s:.2f} ms of {1e3 * scripted_s:.0f} ms ({100 * error:+.1f} %)"
                    name = f"{protocol} {shape} p{100 * q:.0f}"
                    yield Figure(name, value, "within 5 %", abs(error) <= TOLERANCE, _describe_client(load))


def _measure_stall(path: Path) -> Figure:
    """The requests behind a stall. It begins with a request, and those shortly before it are caught, too."""
    with scripted_server(ServerScript((USUAL_S,), stall_every=STALL_EVERY, stall_s=STALL_S)) as ports:
        shapes: tuple[ShapeName, ...] = ("single-stream", "fixed-rate")
        load_spec = LoadSpec(shapes, frames_per_s=STALL_RATE_PER_S, endpoint=Endpoint(ports.http))
        stream, load = _load(path, load_spec, 25.0)
    waiting_s = 2 * USUAL_S
    seen, hidden = (count_bursts(np.array(each.responses_s) > waiting_s) for each in (load, stream))
    expected = (STALL_S - waiting_s + USUAL_S) * STALL_RATE_PER_S
    found = sum(seen) / max(1, len(seen))
    value = f"{found:.1f} requests wait behind each of {len(seen)} stalls, {expected:.1f} by the script"
    note = f"a single stream shows {sum(hidden)} in {len(hidden)} stalls"
    return Figure("stall", value, "within 5 %", abs(found / expected - 1) <= TOLERANCE, (note,))


def count_bursts(waited: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[int]:
    """Return the lengths of the runs of true values, but for those at either end, which may be cut."""
    edges = np.flatnonzero(np.diff(waited.astype(np.int8)))
    if waited[0]:
        edges = edges[1:]
    return [int(end - start) for start, end in zip(edges[::2], edges[1::2], strict=False)]


def _measure_rate(path: Path) -> Figure:
    """The highest rate of a server that works on one request at a time, against a simulation of the queue."""
    with scripted_server(ServerScript((SERIAL_S,), serial=True)) as ports:
        busy = LoadSpec(("clients",), clients=(4,), endpoint=Endpoint(ports.http))
        (whole,) = _load(path, busy, 10.0)
        loads = _load(path, LoadSpec(endpoint=Endpoint(ports.http, limit_s=LIMIT_S)), 10.0)
    found = summarise_search(loads)
    held = 0.0 if found is None or found.holds is None else found.holds.rate_per_s or 0.0
    true = find_true_rate(1 / whole.achieved_per_s, LIMIT_S)
    notes = tuple(
        f"{load.rate_per_s:.1f}/s: {verdict.outcome}, {100 * verdict.share.value:.2f} % too late"
        for load in loads
        if load.rate_per_s is not None and (verdict := judge_rate(load)) is not None
    )
    value = f"{held:.1f}/s, {true:.1f}/s by simulation of a server of {whole.achieved_per_s:.1f}/s"
    return Figure("max-p99", value, "0.8 to 1.1 of the simulation", 0.8 <= held / true <= 1.1, notes)


def find_true_rate(service_s: float, limit_s: float) -> float:
    """Return the highest rate at which at most 1 % of the Poisson requests to one queue take longer than the limit."""
    low, high = 0.0, 1 / service_s
    for _ in range(20):
        rate = (low + high) / 2
        late = float((simulate_queue(rate, service_s) > limit_s).mean())
        low, high = (rate, high) if late <= 0.01 else (low, rate)
    return low


def simulate_queue(
    rate_per_s: float, service_s: float, requests: int = 200_000
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the response times of a queue that works on one request at a time (Lindley 1952), in closed form."""
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / rate_per_s, requests))
    steps = service_s * np.arange(requests)
    starts = np.maximum.accumulate(arrivals - steps) + steps
    return np.asarray(starts + service_s - arrivals, dtype=np.float64)
