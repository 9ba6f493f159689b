from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.harness import scheduler
from benchmarks.harness.eta import CLOCKS, EVALUATED_IMAGES, SLOW, USUAL, Eta, Pace, RunPlan, Workload
from benchmarks.harness.scheduler import ScheduledJob, gather
from benchmarks.process.job import Job, JobOutcome, TurnPlan
from benchmarks.records.request import BenchmarkRequest
from tests.benchmarks.doubles import Now
from tests.benchmarks.scripts import JOB


class Estimates:
    """An estimator on a clock that the test moves, and what it told."""

    def __init__(self, planned_s: tuple[float, ...] = ()) -> None:
        self.now = Now()
        self.told: list[float | None] = []
        self.eta = Eta(self.told.append, self.now)
        self.eta.plan([partial(operator.mul, seconds) for seconds in planned_s])

    def trial(
        self, seconds: float, known_s: float = 0.0, later_s: tuple[float, ...] = (), measured: bool = True
    ) -> None:
        self.eta.begin(known_s, later_s)
        self.now.s += seconds
        self.eta.end(measured)


def test_without_a_plan_nothing_is_known_until_the_first_trial_tells() -> None:
    estimates = Estimates()
    estimates.eta.begin(0.0, (0.0, 0.0))
    estimates.eta.progress(None, None)
    estimates.eta.progress(3.0, 10.0)
    assert estimates.told == pytest.approx([None, None, 3.0 + 2 * 10.0])


def test_a_trial_takes_as_much_more_as_those_before() -> None:
    estimates = Estimates()
    estimates.trial(3.0, 1.0, (1.0, 0.5))
    estimates.trial(1.0, 1.0, (0.5,))
    estimates.trial(9.0, 0.5)
    assert estimates.told == pytest.approx([None, 1.5 + 2 * 2.0, 0.5 + 1.0])


def test_a_trial_that_was_not_measured_does_not_count() -> None:
    estimates = Estimates()
    estimates.trial(2.0, later_s=(0.0,) * 3)
    estimates.trial(0.0, later_s=(0.0,) * 2, measured=False)
    estimates.trial(4.0, later_s=(0.0,))
    estimates.trial(3.0)
    assert estimates.told == pytest.approx([None, 6.0, 4.0, 3.0])


def test_a_trial_at_work_counts_down_by_the_clock() -> None:
    estimates = Estimates()
    estimates.trial(2.0, later_s=(0.0, 0.0))
    estimates.eta.begin(0.0, (0.0,))
    estimates.now.s += 0.5
    estimates.eta.progress(None, None)
    estimates.now.s += 9.0
    estimates.eta.progress(None, None)
    estimates.eta.progress(0.25, 4.0)
    assert estimates.told[1:] == pytest.approx([4.0, 3.5, 2.0, 2.25])


def test_the_plan_tells_before_anything_has_ended_and_is_corrected() -> None:
    estimates = Estimates((10.0, 20.0, 30.0))
    estimates.trial(5.0, later_s=(0.0, 0.0))
    estimates.trial(12.0, later_s=(0.0,))
    estimates.eta.begin(0.0, ())
    estimates.eta.progress(3.0, 20.0)
    assert estimates.told == pytest.approx([60.0, 25.0, 30.0 * 17 / 30, 3.0])


def test_trials_that_are_left_out_are_not_waited_for() -> None:
    """Of a plan of four trials the second is left out: the last two are known by how many are still to come."""
    estimates = Estimates((1.0, 50.0, 2.0, 3.0))
    estimates.trial(1.0, later_s=(0.0,) * 3)
    estimates.trial(2.0, later_s=(0.0,))
    assert estimates.told == pytest.approx([56.0, 5.0])


LOAD = Workload(load_s=2.0)
TURNS = Workload(3, evaluated=3, multiply_adds=40_000_000, threads=2)
METHOD = BenchmarkRequest(duration_s=0.2, rounds=10)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (
            RunPlan(METHOD, (TURNS,) * 4, ((2, "network"), (3, "backend"), (2, "batch size"))),
            "Plan: 2 networks x 3 backends x 2 batch sizes = 12 configurations, 3 to 10 processes each; about ",
        ),
        (
            RunPlan(replace(METHOD, processes=1), (TURNS,), ((1, "network"), (2, "backend"), (1, "batch size"))),
            "Plan: 3 configurations of 1 network, 2 backends, 1 batch size, 1 process each; about ",
        ),
        (
            RunPlan(replace(METHOD, processes=2), (replace(TURNS, configurations=1),), at_most=True),
            "Plan: up to 1 configuration, 2 processes each; about ",
        ),
        (RunPlan(METHOD, (LOAD,) * 3, unit="load point"), "Plan: 3 load points, 1 process each; about "),
    ],
)
def test_the_plan_is_one_sentence_with_its_time(plan: RunPlan, sentence: str) -> None:
    said = plan.sentence()
    assert said.startswith(sentence)
    assert said.endswith(")")
    assert plan.seconds() < plan.seconds(SLOW)


def test_the_time_of_a_load_is_known_but_for_its_start() -> None:
    plan = RunPlan(METHOD, (LOAD, replace(LOAD, load_s=5.0)))
    assert [estimate(2.0) for estimate in plan.estimates()] == pytest.approx([2 * (USUAL.start_s + USUAL.warmup_s)] * 2)
    assert plan.seconds() == pytest.approx(7.0 + 2 * (USUAL.start_s + USUAL.warmup_s))
    assert RunPlan(METHOD, (Workload(0),)).seconds() == 0.0


def test_the_position_follows_from_the_trials_that_are_still_to_come() -> None:
    plan = RunPlan(METHOD, (Workload(2), Workload(1), Workload(3)))
    assert [plan.position(later) for later in (2, 1, 0)] == [(1, 2, 6), (3, 3, 6), (4, 6, 6)]


@dataclass
class ScriptedMachine:
    """A machine of a pace, on a clock of its own: it does what workers do, and only the clock goes on."""

    pace: Pace
    now: Now
    multiply_adds: int

    def worker(self, job: Job, *_: object) -> ScriptedWorker:
        return ScriptedWorker(self, job)

    @property
    def image_s(self) -> float:
        return self.pace.call_s + self.multiply_adds / self.pace.multiply_adds_per_s / TURNS.threads


@dataclass
class ScriptedWorker:
    machine: ScriptedMachine
    job: Job
    predictions: Path = Path("none")

    def __enter__(self) -> ScriptedWorker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait_until_open(self) -> float:
        self.machine.now.s += self.machine.pace.start_s
        return 1.0

    def warm(self) -> float:
        self.machine.now.s += self.machine.pace.warmup_s
        return self.machine.image_s

    def turn(self, turn: TurnPlan) -> float:
        calls_s = max(turn.least * self.machine.image_s, turn.duration_s)
        self.machine.now.s += CLOCKS * calls_s
        return self.machine.image_s

    def finish(self) -> None:
        if self.job.evaluate:
            self.machine.now.s += EVALUATED_IMAGES * self.machine.image_s

    def outcome(self) -> JobOutcome:
        return JobOutcome("ok")


@pytest.fixture(params=[0.5, 1.0, 3.0])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[ScriptedMachine, float]:
    """A machine that takes so many times as long as the plan assumes, and that number."""
    times = float(request.param)
    scripted = ScriptedMachine(USUAL.slower(times), Now(), TURNS.multiply_adds)
    monkeypatch.setattr(scheduler, "Worker", scripted.worker)
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=scripted.now))
    monkeypatch.setattr(scheduler, "available_bytes", lambda: None)
    return scripted, times


@pytest.mark.parametrize("processes", [None, 1, 3])
def test_estimates_come_true_on_a_scripted_clock(
    machine: tuple[ScriptedMachine, float], processes: int | None, tmp_path: Path
) -> None:
    scripted, times = machine
    request = replace(METHOD, processes=processes)
    workloads = (TURNS, replace(TURNS, evaluated=0), replace(TURNS, evaluated=0))
    plan = RunPlan(request, workloads)
    told: list[tuple[float, float | None]] = []
    eta = Eta(lambda left_s: told.append((scripted.now.s, left_s)), scripted.now)
    eta.plan(plan.estimates())
    ends_s = []
    for number, trial in enumerate(workloads):
        eta.begin(0.0, (0.0,) * (2 - number))
        jobs = [
            ScheduledJob(name, replace(JOB, threads=TURNS.threads, evaluate=bool(trial.evaluated))) for name in "abc"
        ]
        for _ in gather(jobs, request, tmp_path, lambda _name, _step, left_s, whole_s: eta.progress(left_s, whole_s)):
            pass
        eta.end(measured=True)
        ends_s.append(scripted.now.s)
    whole_s = ends_s[-1]
    assert times != 1 or plan.seconds() == pytest.approx(whole_s, rel=0.02)
    assert whole_s <= 1.02 * plan.seconds(SLOW)
    wrong = [abs(left_s - (whole_s - now_s)) / whole_s for now_s, left_s in told if left_s is not None]
    assert len(wrong) == len(told)
    after = [error for error, (now_s, _) in zip(wrong, told, strict=True) if now_s > ends_s[0]]
    assert after
    assert max(after) < 0.2  # of the whole run, once the first trial has ended
