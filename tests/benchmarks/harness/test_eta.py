from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.harness import room, scheduler
from benchmarks.harness.eta import (
    CLOCKS,
    EVALUATED_IMAGES,
    GPU_FIRST_S,
    SLOW,
    USUAL,
    Eta,
    RunPlan,
    TimeEstimate,
    Workload,
    WorkPace,
)
from benchmarks.harness.scheduler import ScheduledJob, gather
from benchmarks.process.job import Job, JobOutcome, TurnPlan
from benchmarks.records.request import BenchmarkRequest
from tests.benchmarks.doubles import Now
from tests.benchmarks.scripts import JOB


class Estimates:
    """An estimator on a clock that the test moves, and what it told."""

    def __init__(self, *planned_s: float, process_s: float = 1.0) -> None:
        self.now = Now()
        self.told: list[float | None] = []
        self.eta = Eta(self.told.append, self.now)
        process = partial(operator.mul, process_s)
        self.eta.plan([TimeEstimate(partial(operator.mul, seconds), process) for seconds in planned_s])

    def trial(
        self, seconds: float, known_s: float = 0.0, later_s: tuple[float, ...] = (), measured: bool = True
    ) -> None:
        self.eta.begin(known_s, later_s)
        self.now.s += seconds
        self.eta.end(measured)


def test_without_a_plan_nothing_is_known() -> None:
    estimates = Estimates()
    estimates.trial(3.0, later_s=(0.0,))
    estimates.eta.begin(0.0, ())
    estimates.eta.progress(3.0, 10.0)
    assert estimates.told == [None, None, None]


def test_the_plan_gives_the_first_estimate_and_is_corrected() -> None:
    estimates = Estimates(10.0, 20.0, 30.0)
    estimates.trial(5.0, later_s=(0.0, 0.0))
    estimates.trial(12.0, later_s=(0.0,))
    estimates.eta.begin(0.0, ())
    estimates.eta.progress(3.0, 20.0)
    assert estimates.told == pytest.approx([60.0, 25.0, 30.0 * 17 / 30, 3.0])


def test_the_processes_of_the_first_trial_correct_the_plan() -> None:
    """They take 6 s in place of 4 s; when the first is through, with its evaluation, the trial itself knows best."""
    estimates = Estimates(20.0, 10.0, process_s=4.0)
    estimates.eta.begin(0.0, (0.0,))
    estimates.now.s += 1.0
    estimates.eta.progress(None, 6.0)
    estimates.eta.progress(8.0, 6.0)
    assert estimates.told == pytest.approx([30.0, 1.5 * 30.0 - 1.0, 8.0 + 1.5 * 10.0])


def test_known_seconds_are_not_corrected() -> None:
    estimates = Estimates(1.0, 1.0, 1.0)
    estimates.trial(3.0, 1.0, (1.0, 0.5))
    estimates.trial(1.0, 1.0, (0.5,))
    estimates.trial(9.0, 0.5)
    assert estimates.told == pytest.approx([1.0 + 1.5 + 3.0, 1.0 + 0.5 + 2 * 2.0, 0.5 + 1.0])


def test_a_trial_that_was_not_measured_does_not_count() -> None:
    estimates = Estimates(2.0, 2.0, 2.0)
    estimates.trial(1.0, later_s=(0.0,) * 2)
    estimates.trial(0.0, later_s=(0.0,), measured=False)
    estimates.trial(3.0)
    assert estimates.told == pytest.approx([6.0, 2.0, 1.0])


def test_a_run_that_outlasts_its_estimate_has_none() -> None:
    estimates = Estimates(10.0)
    estimates.eta.begin(0.0, ())
    for seconds in (4.0, 7.0):
        estimates.now.s += seconds
        estimates.eta.progress(None, None)
    estimates.eta.progress(0.2, 1.0)
    estimates.eta.progress(4.0, 1.0)
    assert estimates.told == [10.0, 6.0, None, None, 4.0]


def test_trials_that_are_left_out_are_not_waited_for() -> None:
    """Of a plan of four trials the second is left out: the last two are known by how many are still to come."""
    estimates = Estimates(1.0, 50.0, 2.0, 3.0)
    estimates.trial(1.0, later_s=(0.0,) * 3)
    estimates.trial(2.0, later_s=(0.0,))
    assert estimates.told == pytest.approx([56.0, 5.0])


def test_a_gpu_takes_longer_by_its_energy_and_its_lead() -> None:
    request = BenchmarkRequest(duration_s=0.2, rounds=10, processes=3)
    on_gpu = replace(request, device="cuda")
    longer_s = TURNS.seconds(on_gpu, USUAL) - TURNS.seconds(request, USUAL)
    assert longer_s == pytest.approx(3 * GPU_FIRST_S + 3 * scheduler.GPU_LEAD_S)


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
    assert [estimate.total(2.0) for estimate in plan.estimates()] == pytest.approx(
        [2 * (USUAL.start_s + USUAL.warmup_s)] * 2
    )
    assert plan.seconds() == pytest.approx(7.0 + 2 * (USUAL.start_s + USUAL.warmup_s))
    assert RunPlan(METHOD, (Workload(0),)).seconds() == 0.0
    assert replace(plan, slowness=2.0).seconds() == pytest.approx(7.0 + 4 * (USUAL.start_s + USUAL.warmup_s))


def test_the_position_follows_from_the_trials_to_come() -> None:
    plan = RunPlan(METHOD, (Workload(2), Workload(1), Workload(3)))
    assert [plan.position(later) for later in (2, 1, 0)] == [(1, 2, 6), (3, 3, 6), (4, 6, 6)]


@dataclass
class ScriptedMachine:
    """A machine of a pace, on a clock of its own: it does what workers do, and only the clock goes on."""

    pace: WorkPace
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

    gpu: None = None

    def wait_until_open(self) -> float:
        self.machine.now.s += self.machine.pace.start_s
        return 1.0

    def warm(self, lead_s: float) -> float:
        assert lead_s == 0.0
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
    monkeypatch.setattr(room, "available_bytes", lambda: None)
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
        for _ in gather(jobs, request, tmp_path, lambda _name, _step, *seconds: eta.progress(*seconds)):
            pass
        eta.end(measured=True)
        ends_s.append(scripted.now.s)
    whole_s = ends_s[-1]
    assert times != 1 or plan.seconds() == pytest.approx(whole_s, rel=0.02)
    assert whole_s <= 1.02 * plan.seconds(SLOW)
    wrong = [(now_s, abs(left_s - (whole_s - now_s)) / whole_s) for now_s, left_s in told if left_s is not None]
    assert len(wrong) > 0.9 * len(told)
    warm_s = len("abc") * (scripted.pace.start_s + scripted.pace.warmup_s)
    assert max(error for now_s, error in wrong if now_s > warm_s) < 0.25  # of the whole run, from the first turn on
    assert max(error for now_s, error in wrong if now_s > ends_s[0]) < 0.1
