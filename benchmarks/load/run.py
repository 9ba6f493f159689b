"""``rbench load``: one network under load shapes, each in a fresh process and a result."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.served import is_hopeless, judge_rate
from benchmarks.format import milliseconds
from benchmarks.harness.eta import RunPlan, workload
from benchmarks.harness.harness import Harness, Trial
from benchmarks.harness.subjects import pairs_alone, subject_alone
from benchmarks.load.rate_search import MOST_POINTS, Outcome, RateSearch
from benchmarks.load.served import UNKNOWN, find_endpoint, make_pair
from benchmarks.process.job import status_of
from benchmarks.records.plan import SHAPES, ArrivalPlan, Endpoint, ShapeName
from benchmarks.records.request import (
    BenchmarkRequest,
    Configuration,
    Pair,
    Refusal,
    RunListener,
    Subject,
    complete_request,
)
from benchmarks.records.result import Result
from exporter.weights.checkpoint import is_weights_file
from runtimes.errors import CheckFailedError, Reason, UsageError
from runtimes.processors import usable_processors

USUAL_LOAD = 0.7
"""Of what the single stream reached: the rate of a server where none is named. Services are run at about that."""

FRAMES = 60
"""That a load at a fixed rate has, if they come within ``LONGEST_WAIT_S``: in a second come few."""

LONGEST_WAIT_S = 10.0
"""Seconds that a load at a fixed rate lasts at most for the sake of ``FRAMES``, where the duration is shorter."""

LONGEST_S = 3600.0
"""Seconds that ``--duration`` takes at most."""

LEAST_REQUESTS = 5
"""Requests at a named rate, on average, below which nothing can be said about it."""

SWEPT_SHARE = 0.5
"""Of the duration: what each point of a sweep gets."""

BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class LoadSpec:
    """How requests are to come in; batch sizes and the duration stand in
    ``benchmarks.records.request.BenchmarkRequest``.

    Attributes:
        shapes: none means all.
        rate_per_s: of the server; ``None`` means ``USUAL_LOAD`` of what the single stream reaches.
        frames_per_s: of the load at a fixed rate.
        clients: how many to try; none means powers of two up to twice the processors.
        endpoint: the served model, as the user names it, in place of one that is opened here.

    Raises:
        UsageError: a rate that no load can follow, or a cold start of a server.
    """

    shapes: tuple[ShapeName, ...] = ()
    rate_per_s: float | None = None
    frames_per_s: float = 30.0
    clients: tuple[int, ...] = ()
    endpoint: Endpoint | None = None

    def __post_init__(self) -> None:
        if self.endpoint is not None and "cold" in self.shapes:
            raise UsageError(
                "a running server has no cold start",
                code="cold-start-of-server",
                hint="leave out --url or the shape cold",
            )
        for name, value in (("rate", self.rate_per_s), ("frames per second", self.frames_per_s)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"the {name} must be a number above 0, not {value}", code="rate-not-positive")


@dataclass(frozen=True)
class LoadPoint:
    """One process: a shape, and how many images a call has; of ``clients``, how many there are; of a search, the
    rate."""

    shape: ShapeName
    batch: int
    duration_s: float
    clients: int = 1
    rate_per_s: float | None = None


def points(load_spec: LoadSpec, request: BenchmarkRequest, fixed_batch: int | None) -> tuple[LoadPoint, ...]:
    """What is to be run, in its order; a single stream first where it gives the server's rate."""
    usual = SHAPES if load_spec.endpoint is None else tuple(shape for shape in SHAPES if shape != "cold")
    shapes: list[ShapeName] = list(dict.fromkeys(load_spec.shapes or usual))
    if "server" in shapes and load_spec.rate_per_s is None:
        shapes = ["single-stream", *(shape for shape in shapes if shape != "single-stream")]
    batch, duration_s = fixed_batch or 1, request.duration_s
    found: list[LoadPoint] = []
    for shape in shapes:
        if shape == "clients":
            powers = tuple(1 << exponent for exponent in range((2 * usable_processors()).bit_length()))
            counts = dict.fromkeys(load_spec.clients or powers)
            found += [LoadPoint(shape, batch, SWEPT_SHARE * duration_s, count) for count in counts]
        elif shape == "batches":
            sizes = dict.fromkeys(request.batches or (BATCHES if fixed_batch is None else (fixed_batch,)))
            found += [LoadPoint(shape, size, SWEPT_SHARE * duration_s) for size in sizes]
        else:
            least_s = min(FRAMES / load_spec.frames_per_s, LONGEST_WAIT_S) if shape == "fixed-rate" else 0.0
            found.append(LoadPoint(shape, batch, max(duration_s, least_s)))
    return tuple(found)


def require_requests(load_spec: LoadSpec, request: BenchmarkRequest) -> None:
    """Checks that a rate that the user names gives ``LEAST_REQUESTS`` within the duration of its shape.

    Raises:
        UsageError: it gives fewer.
    """
    named = {"server": ("--rate", load_spec.rate_per_s), "fixed-rate": ("--fps", load_spec.frames_per_s)}
    for point in points(load_spec, request, None):
        option, rate_per_s = named.get(point.shape, ("", None))
        if rate_per_s is not None and rate_per_s * point.duration_s < LEAST_REQUESTS:
            needed_s = LEAST_REQUESTS / rate_per_s
            longer = f", or --duration {_round_up(needed_s)}" if needed_s <= LONGEST_S else ""
            raise UsageError(
                f"{option} {rate_per_s:g} gives fewer than {LEAST_REQUESTS} requests in the {point.duration_s:g} s of "
                f"shape {point.shape}",
                code="rate-too-low",
                hint=f"a higher {option}{longer}",
            )


def _round_up(seconds: float) -> str:
    """The seconds with three digits, and not below the given ones."""
    step = 10.0 ** (math.floor(math.log10(seconds)) - 2)
    return f"{math.ceil(seconds / step) * step:g}"


def run(request: BenchmarkRequest, load_spec: LoadSpec, listener: RunListener) -> Generator[Result, None, None]:
    """The results, each as soon as it is measured. Closing the generator, or an interrupt, ends the worker at once.

    Raises:
        UsageError, RexportError: as ``require_requests``, ``subject_alone`` and ``pairs_alone`` say, before any
            measurement.
    """
    if load_spec.endpoint is not None:
        _require_file(request)
    if load_spec.endpoint is None or load_spec.endpoint.limit_s is None:  # a search finds its own rates
        require_requests(load_spec, request)
    with Harness(complete_request(request), listener) as harness:
        subject = subject_alone(harness.request, harness.folder, listener)
        if load_spec.endpoint is None:
            load_test = _LoadTest(subject, harness.request, load_spec, pairs_alone(subject, harness.request))
        else:
            endpoint = find_endpoint(load_spec.endpoint, subject, listener.notice)
            pair = make_pair(subject, endpoint)
            load_test = _LoadTest(subject, harness.request, replace(load_spec, endpoint=endpoint), ((pair, 1),))
        harness.announce(load_test.plan())
        for result in harness.measure(load_test.trials()):
            yield load_test.finish(result)


class _LoadTest:
    """The trials of one network under load, and what is remembered from one to the next."""

    def __init__(
        self, subject: Subject, request: BenchmarkRequest, load_spec: LoadSpec, pairs: Sequence[tuple[Pair, int]]
    ) -> None:
        self._subject, self._request, self._load_spec, self._pairs = subject, request, load_spec, pairs
        self._is_search = load_spec.endpoint is not None and load_spec.endpoint.limit_s is not None
        if self._is_search:
            load_spec = replace(load_spec, shapes=("single-stream",))
        self._points = points(load_spec, request, subject.fixed_batch)
        self._point: LoadPoint | None = None
        self._stream_per_s: float | None = None
        self._outcome: Outcome | None = None
        self._is_hopeless = False
        self._last = ""

    def plan(self) -> RunPlan:
        """The points of all backends that are there."""
        workloads = [
            workload([Configuration(pair, point.batch, threads)], load_s=point.duration_s)
            for pair, threads in self._pairs
            for point in self._points
            if not isinstance(pair.opens, Refusal)
        ]
        later = workloads[-1:] * MOST_POINTS if self._is_search else []
        return RunPlan(self._request, (*workloads, *later), unit="load point", at_most=self._is_search)

    def trials(self) -> Iterator[Trial]:
        """A trial for each backend and point, in their order; one for a backend that is not there."""
        tried = sum(not isinstance(pair.opens, Refusal) for pair, _ in self._pairs)
        later_s = [point.duration_s for point in self._points] * tried
        for pair, threads in self._pairs:
            self._stream_per_s, self._last, self._point = None, "", None
            if isinstance(pair.opens, Refusal):
                batch = self._subject.fixed_batch or 1
                yield Trial((Configuration(pair, batch, threads, self._request.cuda_graphs),))
                continue
            for point in self._points:
                del later_s[0]
                self._point = point
                searched_s = [point.duration_s] * MOST_POINTS * self._is_search
                yield self._trial(point, pair, threads, (*later_s, *searched_s))
            if self._is_search:
                yield from self._search(pair, threads)

    def _search(self, pair: Pair, threads: int) -> Iterator[Trial]:
        """The trials of a search, each at the rate that follows from the results of those before. It begins at what the
        single stream allows, and not at all where that breaks the limit."""
        if self._stream_per_s is None or self._is_hopeless:
            return
        search = RateSearch(USUAL_LOAD * self._stream_per_s, self._request.duration_s)
        while (found := search.next_point()) is not None:
            rate_per_s, duration_s = found
            self._outcome = None
            self._point = point = LoadPoint("server", self._points[0].batch, duration_s, rate_per_s=rate_per_s)
            yield self._trial(point, pair, threads, (duration_s,) * (search.points_left - 1))
            search.add(self._outcome)

    def _trial(self, point: LoadPoint, pair: Pair, threads: int, later_s: tuple[float, ...]) -> Trial:
        load_spec, request = self._load_spec, self._request
        usual_per_s = USUAL_LOAD * (self._stream_per_s or 0.0)
        rates = {"fixed-rate": load_spec.frames_per_s, "server": load_spec.rate_per_s or usual_per_s}
        rate_per_s = point.rate_per_s or rates.get(point.shape)
        plan = None
        if rate_per_s == 0:
            error = CheckFailedError(
                "the single stream gave no rate to go by", code="rate-unknown", hint="name one with --rate"
            )
            pair = replace(pair, opens=Refusal(status_of(error), Reason(error.code, str(error))))
        else:
            seed, most = request.seed + len(later_s) * self._is_search, request.max_samples
            plan = ArrivalPlan(point.shape, point.duration_s, rate_per_s, point.clients, seed, most, load_spec.endpoint)
        configuration = Configuration(pair, point.batch, threads, request.cuda_graphs)
        title = f"{pair.backend.name} · {_describe_point(point)}"
        return Trial((configuration,), load=plan, title=title, remark=self._last, later_s=later_s)

    def finish(self, result: Result) -> Result:
        """The result as a point of the load test; the trials that follow go by it."""
        load, point, reason = result.load, self._point, result.reason
        self._last = ""
        if self._load_spec.endpoint is not None:  # the client neither asks for a device of the server nor knows it
            asked, ran = replace(result.asked, device=None, threads=None), replace(result.ran, device=UNKNOWN)
            result = replace(result, asked=asked, ran=ran)
        if point is None or load is None:
            if point is not None and reason is not None:
                reason = Reason(reason.code, f"{point.shape}: {reason}")
            return replace(result, asked=replace(result.asked, group=None), reason=reason)
        verdict = judge_rate(load)
        self._outcome = None if verdict is None else verdict.outcome
        if point.shape == "single-stream":
            self._stream_per_s, self._is_hopeless = load.achieved_per_s, is_hopeless(load)
        elif point.shape == "server" and self._load_spec.rate_per_s is None and point.rate_per_s is None:
            note = Reason("rate-from-single-stream", f"the rate is {USUAL_LOAD:.0%} of what single-stream reached")
            result = replace(result, notes=(note, *result.notes), load=replace(load, rate_share=USUAL_LOAD))
        p50 = Figures(result).p50
        self._last = f" (last: {_describe_point(point)}, {milliseconds(None if p50 is None else p50.value)} ms)"
        return result


def _require_file(request: BenchmarkRequest) -> None:
    """Raises UsageError where no file is named whose test vectors the answers of a server can be checked with."""
    names = request.subjects
    if len(names) != 1 or not Path(names[0]).is_file() or is_weights_file(names[0]):
        raise UsageError(
            "the answers of a server are checked with the test vectors of the artifact that it serves",
            code="load-url-needs-artifact",
            hint="rbench load --url URL MODEL.onnx",
        )


def _describe_point(point: LoadPoint) -> str:
    if point.rate_per_s is not None:
        return f"{point.shape} {point.rate_per_s:,.4g}/s"
    return f"{point.shape} {point.clients}" if point.shape == "clients" else f"{point.shape}, batch {point.batch}"
