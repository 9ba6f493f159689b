"""Load shapes on a scripted clock, to the digit: durations are multiples of 1/1024 s, which binary holds exactly."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from benchmarks.analysis.figures import Figures
from benchmarks.analysis.warnings import check_load, list_stalls
from benchmarks.machine.monitor import Conditions
from benchmarks.records.plan import ArrivalPlan
from benchmarks.records.samples import LoadResult
from benchmarks.report.load import sections
from benchmarks.stats.intervals import quantile
from benchmarks.worker import load_generator
from benchmarks.worker.load_generator import Time, clients, plan_starts, run_closed_loop, run_open_loop
from exporter.document.blocks import Remark, Sentence, Table
from runtimes import codec
from runtimes.errors import CheckFailedError, UsageError
from runtimes.protocol import Arrays
from tests.benchmarks.results import EMPTY, change_facts
from tests.benchmarks.scripts import SCRIPT, foreign
from tests.refusals import refuses

TICK = 1 / 1024


def loaded(load: LoadResult, **facts: object) -> Figures:
    return Figures(change_facts(EMPTY, load=load, **facts))


def codes(load: LoadResult) -> list[str]:
    return [warning.code for warning in check_load(load)]


class Scripted:
    """A clock that moves where something sleeps, and where a call takes its next duration."""

    def __init__(self, durations: Iterator[float]) -> None:
        self.moment_s = 0.0
        self.slept: list[float] = []
        self._durations = durations

    def time(self, spin_s: float = 0.0) -> Time:
        return Time(lambda: self.moment_s, self.sleep, spin_s)

    def sleep(self, duration_s: float) -> None:
        self.slept.append(duration_s)
        self.moment_s += duration_s

    def work(self) -> None:
        self.moment_s += next(self._durations)


def stalling(usual: float, stall: float, each: int) -> Iterator[float]:
    """A stall each so many calls."""
    while True:
        yield from [usual] * (each - 1)
        yield stall


def test_a_closed_loop_gives_its_services_to_the_digit() -> None:
    script = Scripted(iter([0.5, 0.25, 0.75, 0.5, 0.25, 0.25, 9.0]))
    done = run_closed_loop(script.work, 2.5, script.time(), 100)
    assert done.services_s == done.responses_s == (0.5, 0.25, 0.75, 0.5, 0.25, 0.25)
    assert (done.wall_s, done.unanswered, script.slept) == (2.5, 0, [])


def test_a_closed_loop_calls_neither_too_rarely_nor_too_often() -> None:
    slow, still = Scripted(iter([8.0] * 9)), Scripted(iter([0.0] * 9))
    assert run_closed_loop(slow.work, 1.0, slow.time(), 100).services_s == (8.0,) * 5
    assert len(run_closed_loop(still.work, 1.0, still.time(), 7).services_s) == 7
    assert len(run_closed_loop(slow.work, 1.0, slow.time(), 2).services_s) == 2


def test_an_open_loop_is_timed_from_the_intended_start() -> None:
    # Requests come each second; the second call stalls for 2.5 s, and those behind it start late and are not skipped.
    script = Scripted(iter([0.25, 2.5, 0.25, 0.25, 0.25]))
    done = run_open_loop(script.work, (0.0, 1.0, 2.0, 3.0, 4.0), script.time(), 100.0)
    assert done.services_s == (0.25, 2.5, 0.25, 0.25, 0.25)
    assert done.responses_s == (0.25, 2.5, 1.75, 1.0, 0.25)
    assert (done.wall_s, done.unanswered) == (4.25, 0)
    assert script.slept == [0.75]


def test_what_still_waits_when_an_open_loop_is_ended_is_counted() -> None:
    script = Scripted(iter([1.0] * 9))
    done = run_open_loop(script.work, tuple(number / 4 for number in range(8)), script.time(), 4.0)
    assert done.responses_s == (1.0, 1.75, 2.5, 3.25)
    assert (done.wall_s, done.unanswered) == (4.0, 4)


def test_a_stall_shows_in_an_open_loop_and_a_closed_one_hides_it() -> None:
    """10,000 calls of 5 ticks, each 500th of 205 (200 ms); requests come each 10 ticks."""
    usual, stall, gap, calls = 5 * TICK, 205 * TICK, 10 * TICK, 10_000
    closed_script, open_script = (Scripted(stalling(usual, stall, 500)) for _ in range(2))
    closed = run_closed_loop(closed_script.work, 1e9, closed_script.time(), calls)
    starts = plan_starts("fixed", 1 / gap, calls * gap, 0, calls)
    assert starts == tuple(number * gap for number in range(calls))
    opened = run_open_loop(open_script.work, starts, open_script.time(), 1e9)
    assert closed.services_s == opened.services_s
    # The stalled one waits 205 ticks, the next 200, then 195, ... down to 5, but the last has none behind it.
    behind = [float(ticks) for ticks in range(205, 5, -5)]
    expected = [*[5.0] * 499, *behind[:1]]
    for _ in range(19):
        expected += [*behind[1:], *[5.0] * (499 - 39), 205.0]
    assert opened.responses_s == tuple(ticks * TICK for ticks in expected)
    assert quantile(closed.services_s, 0.99) == usual
    assert quantile(opened.responses_s, 0.99) == pytest.approx(180 * TICK)
    assert quantile(opened.responses_s, 0.999) == stall


def test_the_report_says_of_a_stall_what_either_loop_would_hide() -> None:
    usual, stall, gap = 5 * TICK, 205 * TICK, 10 * TICK
    script = Scripted(stalling(usual, stall, 500))
    done = run_open_loop(script.work, plan_starts("fixed", 1 / gap, 10_000 * gap, 0, 10_000), script.time(), 1e9)
    opened = LoadResult("server", done.services_s, done.responses_s, 102.0, 102.4)
    closed = LoadResult("single-stream", done.services_s, done.services_s, 180.0)
    results = [loaded(load) for load in (closed, opened)]
    assert [figures.p999 and figures.p999.value for figures in results] == [stall, stall]
    assert [figures.p99 and figures.p99.value for figures in results] == [usual, pytest.approx(180 * TICK)]
    (section,) = sections(results)
    best, hidden, waited = (line.text for line in section.all_of(Sentence))
    assert "4.88 ms (SingleStream)" in best
    assert all(figure in hidden for figure in ("SingleStream", "20 of 10,000", "200 ms", "4.88"))
    assert all(figure in waited for figure in ("Server (Poisson)", "20 of 10,000", "200 ms", "176 ms", "4.88"))
    (table,) = section.all_of(Table)
    assert list(table.headings[3:]) == [
        *("service ms", "p99 ms", "p99.9 ms"),
        *("response ms", "response p99", "response p99.9"),
    ]
    assert table.cells[0][3:] == ("4.88", "4.88", "200", "–", "–", "–")
    assert table.cells[1][3:6] == ("4.88", "4.88", "200")
    assert table.cells[1][-2:] == ("176", "200")


def test_a_quiet_load_has_nothing_to_tell() -> None:
    calls = (0.005,) * 2000
    assert list(list_stalls(LoadResult("single-stream", calls, calls, 200.0))) == []
    assert list(list_stalls(LoadResult("server", calls, calls, 100.0, 100.0))) == []
    assert list(check_load(LoadResult("server", calls, calls, 96.0, 100.0))) == []


def test_a_rate_that_cannot_be_kept_is_a_warning() -> None:
    calls = (0.005,) * 30
    (missed,) = check_load(LoadResult("server", calls, calls, 94.0, 100.0))
    assert (missed.code, "94 of 100" in missed.sentence) == ("rate-not-reached", True)
    (waiting,) = check_load(LoadResult("server", calls, calls, 94.0, 400.0, unanswered=970))
    assert (waiting.code, "970 of 1,000" in waiting.sentence) == ("requests-unanswered", True)
    assert codes(LoadResult("single-stream", calls, calls, 94.0, settled=False)) == ["warm-up-not-settled"]


def test_drifting_and_correlated_calls_are_warnings() -> None:
    random = np.random.default_rng(0)
    noise = np.exp(random.normal(scale=0.02, size=2000))
    steady = tuple(map(float, 0.005 * noise))
    drifting = tuple(map(float, 0.005 * noise * np.linspace(1, 1.2, 2000)))
    assert list(check_load(LoadResult("single-stream", steady, steady, 200.0))) == []
    (drift,) = check_load(LoadResult("clients", drifting, drifting, 200.0, clients=2))
    assert (drift.code, "+1" in drift.sentence) == ("latency-drifted", True)
    assert list(check_load(LoadResult("cold", drifting, drifting, 200.0))) == []
    walk = np.convolve(random.normal(size=2019), np.ones(20), "valid")
    leaning = tuple(map(float, 0.005 * np.exp(0.005 * walk)))
    (correlated,) = check_load(LoadResult("fixed-rate", leaning, leaning, 30.0, 30.0))
    assert (correlated.code, "0.9" in correlated.sentence) == ("samples-correlated", True)
    assert list(check_load(LoadResult("clients", leaning, leaning, 30.0, clients=2))) == [], "they took turns"
    few = drifting[::60]
    assert "latency-drifted" not in codes(LoadResult("single-stream", few, few, 200.0))


BUSY = Conditions(
    wall_s=1.0,
    cpu_s=1.0,
    involuntary_switches=0,
    sentinel=1.0,
    foreign_cores=0.0,
    steal_share=0.0,
    pressure_share=0.9,
    mhz=None,
    throttled=None,
    clock_resolution_s=1e-9,
    clock_cost_s=4e-8,
    processors=2,
    foreign_error_cores=0.0,
    waited_s=0.5,
)
"""Threads wait for a processor, and nobody else is there."""


def test_a_load_busy_with_itself_is_not_disturbed() -> None:
    calls = (0.005,) * 10
    alone = loaded(LoadResult("single-stream", calls, calls, 100.0, conditions=BUSY), threads=1)
    assert alone.disturbances is not None
    assert "threads-waited" in [reason.code for reason in alone.disturbances]
    crowd = loaded(LoadResult("clients", calls, calls, 100.0, clients=3, conditions=BUSY), threads=1)
    assert crowd.disturbances == ()
    robbed = LoadResult("clients", calls, calls, 100.0, clients=3, conditions=replace(BUSY, foreign_cores=1.0))
    assert loaded(robbed).disturbances
    (section,) = sections([alone, crowd])
    assert {remark.code: remark.text[:6] for remark in section.all_of(Remark)}["system-waited"] == "1 of 2"
    assert loaded(LoadResult("single-stream", calls, calls, 100.0)).disturbances is None


def test_calls_as_short_as_the_clocks_cost_are_a_warning() -> None:
    calls = (1e-6,) * 10
    assert "clock-too-coarse" in codes(LoadResult("single-stream", calls, calls, 1e6, conditions=BUSY))


class Ticking:
    """A clock that moves by a tick with each look at it; a sleep ends late."""

    def __init__(self, late_s: float) -> None:
        self.moment_s = 0.0
        self.slept: list[float] = []
        self._late_s = late_s

    def now(self) -> float:
        self.moment_s += TICK
        return self.moment_s

    def sleep(self, duration_s: float) -> None:
        self.slept.append(duration_s)
        self.moment_s += duration_s + self._late_s


def test_a_wait_sleeps_at_first_and_reads_the_clock_at_last() -> None:
    clock = Ticking(late_s=2 * TICK)
    time = Time(clock.now, clock.sleep, spin_s=8 * TICK)
    time.wait_until(100 * TICK)
    assert clock.slept == [91 * TICK]  # after one look, up to 8 ticks before the moment
    assert clock.moment_s == 100 * TICK
    time.with_sleep().wait_until(200 * TICK)
    assert clock.slept[1:] == [99 * TICK]
    assert clock.moment_s == 203 * TICK  # late by what the sleep is late, and a look


def test_a_moment_that_has_passed_is_not_waited_for() -> None:
    clock = Ticking(late_s=0.0)
    Time(clock.now, clock.sleep).wait_until(-1.0)
    assert (clock.slept, clock.moment_s) == ([], TICK)


def test_fixed_arrivals_are_even_and_poissons_are_seeded() -> None:
    assert plan_starts("fixed", 4.0, 1.0, 0, 100) == (0.0, 0.25, 0.5, 0.75)
    assert plan_starts("fixed", 4.0, 1.0, 0, 3) == (0.0, 0.25, 0.5)
    assert plan_starts("fixed", 0.1, 1.0, 0, 3) == (0.0,)
    first, again, other = (plan_starts("poisson", 100.0, 100.0, seed, 50_000) for seed in (1, 1, 2))
    assert first == again != other
    gaps = np.diff(first)
    assert abs(len(first) - 10_000) < 400  # four standard deviations
    assert gaps.min() > 0
    assert abs(gaps.std() / gaps.mean() - 1) < 0.05  # as exponential gaps are
    assert first[-1] < 100.0
    assert len(plan_starts("poisson", 100.0, 100.0, 1, 50)) == 50


def test_clients_are_in_their_calls_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def call() -> None:
        together.wait(timeout=20)

    done = clients([call] * 3, 1e-9, load_generator.REAL, 1000)
    assert len(done.services_s) == 3 * load_generator.LEAST_CALLS
    assert done.services_s == done.responses_s
    assert 0 < max(done.services_s) <= done.wall_s


def test_one_client_is_a_closed_loop() -> None:
    script = Scripted(iter([9.0, 9.0, 9.0, 0.5, 0.25, 0.75, 0.5, 0.25]))
    done = clients([script.work], 1.5, script.time(), 100)
    assert (done.services_s, done.wall_s) == ((0.5, 0.25, 0.75, 0.5, 0.25), 2.25)


def test_what_a_client_raises_comes_through_and_the_others_end() -> None:
    def broken() -> None:
        raise RuntimeError("client 1")

    with pytest.raises(RuntimeError, match="client 1"):
        clients([lambda: None, broken, lambda: None], 0.01, load_generator.REAL, 1000)


def test_a_sweep_is_told_with_its_knee() -> None:
    def swept(batch: int, per_s: float) -> Figures:
        calls = (batch / per_s,) * 10
        return loaded(LoadResult("batches", calls, calls, per_s / batch), batch=batch)

    (section,) = sections([swept(1, 100.0), swept(2, 195.0), swept(4, 210.0)])
    best, said = (line.text for line in section.all_of(Sentence))
    assert "210 images/s (batch 4)" in best
    assert all(figure in said for figure in ("195 images/s at batch 2", "10 %", "1 to 4", "210 at 4"))
    (section,) = sections([swept(1, 100.0), swept(2, 200.0)])
    assert "largest tried" in section.all_of(Sentence)[1].text
    assert [cells[:2] for cells in section.all_of(Table)[0].cells] == [("1", "100"), ("2", "200")]


@pytest.mark.parametrize(
    ("make", "code", "values"),
    [
        (lambda: ArrivalPlan("single-stream", 0.0), "duration-not-positive", ("0.0",)),
        (lambda: ArrivalPlan("server"), "shape-rate-not-positive", ("server", "None")),
        (lambda: ArrivalPlan("fixed-rate", rate_per_s=math.inf), "shape-rate-not-positive", ("fixed-rate", "inf")),
        (lambda: ArrivalPlan("single-stream", rate_per_s=5.0), "shape-without-rate", ("single-stream",)),
        (lambda: ArrivalPlan("clients", clients=0), "count-not-positive", ("clients", "0")),
    ],
)
def test_impossible_plans_are_refused(make: Callable[[], ArrivalPlan], code: str, values: tuple[str, ...]) -> None:
    with refuses(UsageError, code, *values):
        make()


def test_plans_and_loads_pass_through_json(tmp_path: Path) -> None:
    plan = ArrivalPlan("server", 0.5, 100.0, seed=3)
    assert codec.loads(ArrivalPlan, codec.dumps(plan)) == plan
    load = _loaded(tmp_path, ArrivalPlan("single-stream", 0.02))
    assert codec.loads(LoadResult, codec.dumps(load)) == load


FEEDS: list[Arrays] = [
    {"input": np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)} for seed in range(4)
]


def _loaded(folder: Path, plan: ArrivalPlan, steps: list[str] | None = None) -> LoadResult:
    path = foreign(folder, replace(SCRIPT, delays_s=(0.001,)))
    with runtimes.open(path, "fake", threads=1) as runtime:
        return load_generator.run(runtime, FEEDS, plan, (steps if steps is not None else []).append)


@pytest.mark.parametrize(
    "plan",
    [
        ArrivalPlan("single-stream", 0.05),
        ArrivalPlan("server", 0.05, 200.0),
        ArrivalPlan("fixed-rate", 0.05, rate_per_s=100.0),
        ArrivalPlan("clients", 0.05, clients=2),
        ArrivalPlan("batches", 0.05),
    ],
    ids=lambda plan: plan.shape,
)
def test_each_shape_runs_on_a_real_runtime(plan: ArrivalPlan, tmp_path: Path) -> None:
    steps: list[str] = []
    load = _loaded(tmp_path, plan, steps)
    assert steps == ["warm-up", plan.shape]
    assert (load.shape, load.rate_per_s, load.clients) == (plan.shape, plan.rate_per_s, plan.clients)
    assert len(load.services_s) == len(load.responses_s) >= 1
    assert min(load.services_s) >= 0.001
    assert all(response >= service for service, response in zip(load.services_s, load.responses_s, strict=True))
    assert load.achieved_per_s > 0
    assert load.warmup_s
    assert load.conditions is not None
    assert load.conditions.wall_s > 0


def test_a_cold_start_is_not_run_in_a_warm_process(tmp_path: Path) -> None:
    with refuses(UsageError, "cold-start-in-worker"):
        _loaded(tmp_path, ArrivalPlan("cold"))


def test_a_load_under_which_the_answers_change_gives_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtimes.open(foreign(tmp_path), "fake", threads=1) as runtime:
        sound, calls = runtime.infer, [0]

        def infer(feeds: Arrays) -> Arrays:
            calls[0] += 1
            return {name: values * (1 + (calls[0] > len(FEEDS))) for name, values in sound(feeds).items()}

        monkeypatch.setattr(runtime, "infer", infer)
        with refuses(CheckFailedError, "output-changed", "'logits'"):
            load_generator.run(runtime, FEEDS, ArrivalPlan("single-stream", 0.01), lambda _: None)


@pytest.mark.parametrize(
    "plan",
    [
        ArrivalPlan("single-stream", 60.0, max_requests=300),
        ArrivalPlan("server", 60.0, rate_per_s=50_000.0, max_requests=300),
        ArrivalPlan("clients", 60.0, clients=2, max_requests=600),
    ],
    ids=lambda plan: plan.shape,
)
def test_answers_that_change_under_a_load_and_back_are_found(
    plan: ArrivalPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first and the last call of each client are right, and the hundredth is not."""
    with runtimes.open(foreign(tmp_path), "fake", threads=1) as runtime:
        sound, calls, begun = runtime.infer, itertools.count(), list[str]()

        def infer(feeds: Arrays) -> Arrays:
            wrong = plan.shape in begun and 50 * plan.clients < next(calls) < 250 * plan.clients
            return {name: values * (1 + wrong) for name, values in sound(feeds).items()}

        monkeypatch.setattr(runtime, "infer", infer)
        with refuses(CheckFailedError, "output-changed", "'logits'"):
            load_generator.run(runtime, FEEDS, plan, begun.append)
