"""``rbench load``: one network under load shapes, each in a fresh process and a row."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.analysis.figures import start_row
from benchmarks.format import milliseconds, one_line
from benchmarks.load.cold_starts import PAGE_CACHE, cold_start
from benchmarks.load.figures import with_load
from benchmarks.load.subject import choose_runtimes, subject
from benchmarks.machine.environment import Environment, environment
from benchmarks.process import worker_process
from benchmarks.process.job import Job, JobOutcome
from benchmarks.records.load import ArrivalPlan
from benchmarks.records.plan import Plan
from benchmarks.records.request import BenchmarkRequest, RunListener, complete_request
from benchmarks.records.result import Row
from benchmarks.records.shapes import SHAPES, Arrivals, ShapeName
from benchmarks.records.subject import Configuration, Pair, Refusal, Subject
from benchmarks.worker.load_generator import OVERTIME
from runtimes import Artifact
from runtimes.errors import BackendUnavailableError, CheckFailedError, CompatibilityError, RexportError, UsageError
from runtimes.processors import usable_processors

USUAL_LOAD = 0.7
"""Of what the closed loop reached: the rate of an open loop where none is named. Services are run at about that."""

FRAMES_PER_S = 30.0

FRAMES = 60
"""That a paced load has at least: in a second come few."""

SWEPT_SHARE = 0.5
"""Of the duration: what each point of a sweep gets."""

BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class LoadSpec:
    """How requests are to come in; batch sizes and the duration stand in
    ``benchmarks.records.request.BenchmarkRequest``.

    Attributes:
        shapes: none means all.
        rate_per_s: of the open loop; ``None`` means ``USUAL_LOAD`` of what the closed loop reaches.
        arrivals: of the open loop.
        frames_per_s: of the paced load.
        clients: how many to try; none means powers of two up to twice the processors.

    Raises:
        UsageError: a rate where there is no open loop; or one that no load can follow.
    """

    shapes: tuple[ShapeName, ...] = ()
    rate_per_s: float | None = None
    arrivals: Arrivals = "poisson"
    frames_per_s: float = FRAMES_PER_S
    clients: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rate_per_s is not None and "open" not in (self.shapes or SHAPES):
            raise UsageError("--rate is for the open loop, which was not asked for", hint="--shape open")
        for name, value in (("rate", self.rate_per_s), ("frames per second", self.frames_per_s)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"the {name} must be a number above 0, not {value}")


@dataclass(frozen=True)
class LoadPoint:
    """One process: a shape, and how many images a call has; of ``clients``, how many there are."""

    shape: ShapeName
    batch: int
    duration_s: float
    clients: int = 1


def points(load_spec: LoadSpec, request: BenchmarkRequest, fixed_batch: int | None) -> tuple[LoadPoint, ...]:
    """What is to be run, in its order; a closed loop first where it gives the open loop's rate."""
    shapes: list[ShapeName] = list(dict.fromkeys(load_spec.shapes or SHAPES))
    if "open" in shapes and load_spec.rate_per_s is None:
        shapes = ["closed", *(shape for shape in shapes if shape != "closed")]
    return tuple(point for shape in shapes for point in _points_of(shape, load_spec, request, fixed_batch))


def _points_of(
    shape: ShapeName, load_spec: LoadSpec, request: BenchmarkRequest, fixed_batch: int | None
) -> Iterator[LoadPoint]:
    batch, duration_s = fixed_batch or 1, request.duration_s
    if shape == "clients":
        for count in dict.fromkeys(load_spec.clients or _powers_of_two(2 * usable_processors())):
            yield LoadPoint(shape, batch, SWEPT_SHARE * duration_s, count)
    elif shape == "batches":
        for size in dict.fromkeys(request.batches or (BATCHES if fixed_batch is None else (fixed_batch,))):
            yield LoadPoint(shape, size, SWEPT_SHARE * duration_s)
    elif shape == "paced":
        yield LoadPoint(shape, batch, max(duration_s, FRAMES / load_spec.frames_per_s))
    else:
        yield LoadPoint(shape, batch, duration_s)


def _powers_of_two(most: int) -> tuple[int, ...]:
    return tuple(1 << exponent for exponent in range(most.bit_length()))


def run(request: BenchmarkRequest, load_spec: LoadSpec, listener: RunListener) -> Generator[Row, None, None]:
    """The rows, each as soon as it is measured. Closing the generator, or an interrupt, ends the worker at once.

    Raises:
        UsageError, RexportError: as ``benchmarks.load.subject`` says, before any measurement.
    """
    request = complete_request(request)
    with tempfile.TemporaryDirectory(prefix="rbench-") as name:
        found = subject(request, Path(name), listener)
        runs = choose_runtimes(found, request)
        planned = points(load_spec, request, found.fixed_batch)
        ahead = sum(not isinstance(pair.opens, Refusal) for pair, _ in runs) * [point.duration_s for point in planned]
        shared = _Shared(
            request,
            load_spec,
            uuid.uuid4().hex[:12],
            environment(),
            Path(name),
            listener,
            found,
            _Ahead(ahead, listener.left),
        )
        for pair, threads in runs:
            yield from _Bench(shared, pair, threads, planned).rows()


class _Ahead:
    """What is still to be run: each point for its duration, and for what those before took besides, on average."""

    def __init__(self, durations_s: Sequence[float], left: Callable[[float | None], None]) -> None:
        """``left`` is told how many seconds it still takes."""
        self._durations_s = list(durations_s)
        self._left = left
        self._besides_s: list[float] = []
        self._began: tuple[float, float] | None = None

    def begin(self) -> None:
        """The next point begins."""
        now_s = time.monotonic()
        if self._began is not None:
            began_s, duration_s = self._began
            self._besides_s.append(max(0.0, now_s - began_s - duration_s))
        besides_s = statistics.fmean(self._besides_s) if self._besides_s else None
        all_s = math.fsum(self._durations_s)
        self._left(None if besides_s is None else all_s + besides_s * len(self._durations_s))
        self._began = now_s, self._durations_s.pop(0)


@dataclass(frozen=True)
class _Shared:
    """What all the rows of one run share."""

    request: BenchmarkRequest
    load_spec: LoadSpec
    run: str
    taken_on: Environment
    folder: Path
    listener: RunListener
    subject: Subject
    ahead: _Ahead


class _Bench:
    """Loads one runtime, point by point, and remembers what the closed loop reached."""

    def __init__(self, shared: _Shared, pair: Pair, threads: int, planned: Sequence[LoadPoint]) -> None:
        self._shared = shared
        self._pair = pair
        self._threads = threads
        self._planned = planned
        self._last = ""
        self._closed_per_s: float | None = None

    def rows(self) -> Iterator[Row]:
        """A row for each point; of a runtime that is not there, one."""
        shared, fixed = self._shared, self._shared.subject.fixed_batch
        opens = self._pair.opens
        if isinstance(opens, Refusal):
            yield replace(self._new_row(fixed or 1), status=opens.status, reason=opens.reason)
            return
        for point in self._planned:
            shared.ahead.begin()
            row = self._row(point, opens)
            self._last = (
                f" (last: {_describe_point(point)}, {milliseconds(row.p50_s)} ms)" if row.status == "ok" else ""
            )
            yield row

    def _new_row(self, batch: int) -> Row:
        shared = self._shared
        configuration = Configuration(self._pair, batch, self._threads, shared.request.cuda_graphs)
        return start_row(shared.run, shared.taken_on, shared.request, shared.subject, configuration)

    def _row(self, point: LoadPoint, artifact: Artifact) -> Row:
        row = self._new_row(point.batch)
        try:
            outcome = self._outcome(point, artifact)
        except RexportError as error:
            outcome = _outcome_of_error(error)
        if outcome.status != "ok" or outcome.load is None:
            reason = one_line(f"{point.shape}: {outcome.reason}").replace(f"{self._shared.folder}/", "")
            return replace(row, status=outcome.status, reason=reason)
        load = outcome.load
        if point.shape == "closed":
            self._closed_per_s = load.achieved_per_s
        elif point.shape == "open" and self._shared.load_spec.rate_per_s is None:
            load = replace(load, rate_share=USUAL_LOAD)
        return with_load(_describe_run(row, outcome), load)

    def _outcome(self, point: LoadPoint, artifact: Artifact) -> JobOutcome:
        request, runtime = self._shared.request, self._pair.backend.name
        heard = self._pass_steps_on(point)
        heard("start")
        if point.shape == "cold":
            load = cold_start(artifact, runtime, request.device, self._threads, request.silence_s, heard)
            return JobOutcome("ok", note=PAGE_CACHE, load=load)
        plan, note = self._plan(point)
        job = Job(
            artifact=str(artifact.path.absolute()),
            runtime=runtime,
            device=request.device,
            threads=self._threads,
            batch=point.batch,
            data=self._shared.subject.data,
            limit=request.limit,
            evaluate=False,
            seed=request.seed,
            plan=Plan(),
            cuda_graphs=request.cuda_graphs,
            load=plan,
            number=1,  # one that is asked for nothing besides
        )
        silence_s = request.silence_s + point.duration_s * (1 + OVERTIME)
        with tempfile.TemporaryDirectory(dir=self._shared.folder) as folder:
            outcome, _ = worker_process.run(job, Path(folder), heard, silence_s, request.show_errors)
        return replace(outcome, note="; ".join(filter(None, (note, outcome.note))) or None)

    def _pass_steps_on(self, point: LoadPoint) -> Callable[[str], None]:
        """Passes the steps on, with what came of the point before."""
        words, last = f"{self._shared.subject.name} · {self._pair.backend.name} · {_describe_point(point)}", self._last
        return lambda step: self._shared.listener.step(words, f"{step}{last}")

    def _plan(self, point: LoadPoint) -> tuple[ArrivalPlan, str | None]:
        """The plan, and what a reader must know of it."""
        load_spec, request = self._shared.load_spec, self._shared.request
        rate, note = None, None
        if point.shape == "paced":
            rate = load_spec.frames_per_s
        elif point.shape == "open":
            rate, note = self._rate()
        arrivals: Arrivals = load_spec.arrivals if point.shape == "open" else "fixed"
        return ArrivalPlan(
            point.shape, point.duration_s, arrivals, rate, point.clients, request.seed, request.max_samples
        ), note

    def _rate(self) -> tuple[float, str | None]:
        """What the open loop is offered in a second, and where that comes from."""
        named, reached = self._shared.load_spec.rate_per_s, self._closed_per_s
        if named is not None:
            return named, None
        if not reached:
            raise CheckFailedError("the closed loop gave no rate to go by", hint="name one with --rate")
        return USUAL_LOAD * reached, f"the rate is {USUAL_LOAD:.0%} of what the closed loop reached"


def _describe_point(point: LoadPoint) -> str:
    return f"{point.shape} {point.clients}" if point.shape == "clients" else f"{point.shape}, batch {point.batch}"


def _outcome_of_error(error: RexportError) -> JobOutcome:
    """What cannot run here was not tried; what broke is an error."""
    if isinstance(error, CheckFailedError):
        return JobOutcome("failed", str(error))
    if isinstance(error, (CompatibilityError, BackendUnavailableError)):
        return JobOutcome("skipped", str(error))
    return JobOutcome("error", str(error))


def _describe_run(row: Row, outcome: JobOutcome) -> Row:
    """The row with what really ran."""
    row = replace(row, note=outcome.note, warnings=outcome.warnings)
    about = outcome.description
    if about is None:
        return row
    if about.threads != row.threads:
        row = replace(
            row,
            warnings=(*row.warnings, f"{row.threads} threads were asked for, and it ran on {about.threads}"),
        )
    return replace(
        row,
        runtime_version=about.version,
        provider=about.provider,
        device=about.device,
        arithmetic=about.precision,
        threads=about.threads,
    )
