from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from benchmarks.machine import monitor
from benchmarks.machine.gpu_monitor import GpuMonitor
from benchmarks.machine.monitor import MachineMonitor
from benchmarks.process.job import TurnPlan
from benchmarks.records.plan import Plan
from benchmarks.records.samples import ProcessSamples, Series
from benchmarks.worker import clocks
from benchmarks.worker.calls import LOOKED_AT, MOST_LOOKED_AT, AlternatingCalls, RotatingCall, close
from benchmarks.worker.clocks import Clocks, OpenedArtifact
from benchmarks.worker.timer import TimedCall
from runtimes import Artifact, Runtime
from runtimes.backends.fake import FakeSession
from runtimes.errors import CheckFailedError
from runtimes.protocol import Arrays, Options, RunTimes
from tests.benchmarks.doubles import FillingLater, Launching, Now, Paced, Queueing
from tests.benchmarks.scripts import SCRIPT, foreign
from tests.refusals import refuses

FEEDS: list[Arrays] = [
    {"input": np.random.default_rng(seed).standard_normal((2, 3, 8, 8), np.float32)} for seed in range(3)
]
PLAN = Plan(max_samples=2000, window_s=1 / 32, warmup_limit_s=60.0)
Make = Callable[..., Clocks]


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[FakeSession], Runtime]:
    artifact = Artifact.read(foreign(tmp_path))
    return lambda session: Runtime(artifact, session)


@pytest.fixture
def on(opened: Callable[[FakeSession], Runtime], monkeypatch: pytest.MonkeyPatch) -> Make:
    """The clocks of a double, on its scripted time; nothing else is waited for."""
    monkeypatch.setattr(monitor, "wait_until_idle", lambda: None)
    monkeypatch.setattr(clocks, "wait_until_idle", lambda: None)

    def make(session: Paced, image: Callable[[], object] | None = None, plan: Plan = PLAN) -> Clocks:
        monkeypatch.setattr(clocks, "TimedCall", partial(TimedCall, clock=session.now))
        return of(opened(session), image, plan)

    return make


def of(runtime: Runtime, image: Callable[[], object] | None = None, plan: Plan = PLAN) -> Clocks:
    first, *_ = expected = [runtime.infer(feed) for feed in FEEDS]
    assert first["logits"].shape == (2, 10)
    watcher = MachineMonitor(sentinel_s=0.0)
    return Clocks(
        OpenedArtifact(runtime, FEEDS, expected, image, 0.5, 0.25, 7),
        plan,
        GpuMonitor("cpu"),
        watcher,
        time.monotonic(),
    )


def sat(made: Clocks, *turns: TurnPlan) -> ProcessSamples:
    made.warm_up()
    for turn in turns:
        made.turn(turn)
    return made.collect_samples(9)


def test_every_clock_has_its_samples_to_the_digit(on: Make) -> None:
    """A whole call takes 1/128 s, a bound run 1/256 s, an image 1/64 s; a turn's first tenth is not counted."""
    now = Now()
    session = Paced(now, itertools.repeat(1 / 256), copies=1.0)

    def image() -> None:
        now.s += 1 / 64

    made = on(session, image)
    assert made.warm_up() == 1 / 128  # of the slower one
    assert made.turn(TurnPlan(1 / 8, 1, 100)) == 1 / 128
    assert made.turn(TurnPlan(1 / 16, 1, 3)) == 1 / 128
    found = made.collect_samples(9)
    assert found.latency == Series((1 / 128,) * (3 * 4 + 2 + 1), True, ((1 / 128,) * 16, (1 / 128,) * 3))
    assert found.compute == Series((1 / 256,) * (3 * 8 + 4 + 2), True, ((1 / 256,) * 32, (1 / 256,) * 3))
    assert found.image == Series((1 / 64,) * (3 * 2 + 1 + 1), True, ((1 / 64,) * 8, (1 / 64,) * 3))
    assert found.device is None
    assert (found.load_s, found.first_s, found.peak_bytes, found.baseline_bytes) == (0.5, 0.25, 9, 7)
    assert len(found.starts_s) == 2
    assert 0 <= found.starts_s[0] < found.starts_s[1]
    assert found.conditions is not None
    assert found.conditions.wall_s > 0


def test_the_runs_on_bound_feeds_come_first_in_a_turn(on: Make) -> None:
    session = Paced(Now(), itertools.repeat(1 / 128))
    made = on(session)
    made.warm_up()
    session.log.clear()
    made.turn(TurnPlan(1 / 16, 1, 100))
    assert [(name, len(list(calls))) for name, calls in itertools.groupby(session.log)] == [("bound", 9), ("run", 9)]


def noisy(seed: int, stalls: float) -> Iterator[float]:
    """Delays of 1 ms with 10 % of jitter, and now and then one that is 50 times as long."""
    random = np.random.default_rng(seed)
    while True:
        for delay_s, stall in zip(random.lognormal(0, 0.1, 1000), random.random(1000), strict=True):
            yield 1e-3 * float(delay_s) * (50 if stall < stalls else 1)


QUIET = Plan(max_samples=200, window_s=0.01, warmup_limit_s=0.2)


@pytest.mark.parametrize("copies", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_honest_runs_are_not_accused_however_noisy_they_are(on: Make, rounds: int, copies: float) -> None:
    """Whole calls that take twice as long as runs, for their copies, and one in thirty of all stalls."""
    for seed in range(50):
        session = Paced(Now(), noisy(seed, stalls=1 / 30), copies)
        found = sat(on(session, plan=QUIET), *[TurnPlan(0.05, 1, 200)] * rounds)
        assert len(found.compute.rounds_s) == rounds


def test_a_stall_after_the_only_turn_is_no_accusation(on: Make) -> None:
    """The worst place for one: the call that would wait for what the runs have left undone."""
    delays_s = [1e-3] * 10_000
    session = Paced(Now(), iter(delays_s), copies=1.0)
    made = on(session, plan=QUIET)
    made.warm_up()
    session.delays_s = itertools.chain([1e-3] * (5 + 50), [50e-3], itertools.repeat(1e-3))
    made.turn(TurnPlan(0.05, 1, 200))
    assert made._backlogs[0][0] == pytest.approx(0.1), "it is there"
    assert made.collect_samples(None).compute.samples_s


class Cooling(Paced):
    """The first whole call after runs has to bring its data back into the caches: it takes three times as long."""

    def run(self, arrays: Arrays) -> Arrays:
        cold = self.log[-1:] == ["bound"]
        found = super().run(arrays)
        self.now.s += 40e-6 if cold else 0.0
        return found


def test_quick_runs_that_leave_the_caches_cold_are_not_accused(on: Make) -> None:
    """Whole calls of 20 µs, nearly all of it for their copies, and turns of a few runs of 1 µs."""
    session = Cooling(Now(), itertools.repeat(1e-6), copies=19.0)
    made = on(session, plan=replace(QUIET, window_s=1e-5))
    found = sat(made, *[TurnPlan(0.01, 1, 5)] * 3)
    assert min(waited_s for waited_s, _ in made._backlogs) == pytest.approx(60e-6)
    assert found.compute.rounds_s == ((1e-6,) * 5,) * 3


@pytest.mark.parametrize("copies", [0.0, 1.0])
@pytest.mark.parametrize("launch", [0.0, 0.5, 0.7])
def test_runs_that_return_before_they_are_done_are_found(on: Make, launch: float, copies: float) -> None:
    for seed in range(10):
        session = Launching(Now(), noisy(seed, stalls=1 / 100), copies, launch)
        made = on(session, plan=QUIET)
        with refuses(CheckFailedError, "runs-unfinished"):
            sat(made, *[TurnPlan(0.05, 1, 200)] * 5)


def test_runs_that_only_launch_are_found_before_any_turn(on: Make) -> None:
    """Their turns would take for ever: thousands of runs in no time, and then the work of them all."""
    with refuses(CheckFailedError, "runs-unfinished"):
        on(Launching(Now(), noisy(0, stalls=1 / 100)), plan=QUIET).warm_up()


@pytest.mark.parametrize("turn", [TurnPlan(0.05, 1, 200), TurnPlan(1e-4, 1, 1), TurnPlan(1e-4, 1, 2)])
def test_runs_that_begin_to_return_early_are_found_in_the_turns(on: Make, turn: TurnPlan) -> None:
    """Also where a turn is one call, which then is always one that waits."""
    for rounds in (1, 3):
        session = Launching(Now(), noisy(rounds, stalls=0), launch=1.0)
        made = on(session, plan=QUIET)
        made.warm_up()
        session.launch = 0.0
        for _ in range(rounds):
            made.turn(turn)
        with refuses(CheckFailedError, "runs-unfinished"):
            made.collect_samples(None)


FAST = replace(QUIET, window_s=0.001, warmup_limit_s=0.02)


def test_a_real_queue_in_the_background_is_found(opened: Callable[[FakeSession], Runtime]) -> None:
    with opened(Queueing(replace(SCRIPT, delays_s=(2e-4,)), Options("cpu", 1))) as runtime:
        made = of(runtime, plan=FAST)
        with refuses(CheckFailedError, "runs-unfinished"):
            sat(made, TurnPlan(0.005, 1, 50), TurnPlan(0.005, 1, 50))


def test_an_honest_session_in_real_time_is_not_accused(opened: Callable[[FakeSession], Runtime]) -> None:
    with opened(FakeSession(replace(SCRIPT, delays_s=(2e-4,)), Options("cpu", 1))) as runtime:
        found = sat(of(runtime, plan=FAST), TurnPlan(0.005, 1, 50), TurnPlan(0.005, 1, 50))
    assert min(found.latency.samples_s) >= 2e-4
    assert min(found.compute.samples_s) >= 2e-4


class FillingWithTheNext(Paced):
    """An output is filled while the next call is made."""

    last: tuple[np.ndarray, np.ndarray] | None = None

    def run(self, arrays: Arrays) -> Arrays:
        found = super().run(arrays)["logits"]
        if self.last is not None:
            self.last[0][...] = self.last[1]
        self.last = (np.zeros_like(found), found)
        return {"logits": self.last[0]}


def test_outputs_that_the_next_call_fills_are_found(
    opened: Callable[[FakeSession], Runtime], on: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, session = Paced(Now(), itertools.repeat(1 / 256)), FillingWithTheNext(Now(), itertools.repeat(1 / 256))
    made = on(honest)
    monkeypatch.setattr(made._rotating, "_infer", opened(session).infer)
    with refuses(CheckFailedError, "output-late", "'logits'"):
        made.warm_up()


LATE = {"output-late", "output-changed"}
"""Which of the two depends on when a thread in the background had its turn."""


@pytest.mark.parametrize("honest_calls", [len(FEEDS), 40])
def test_outputs_that_are_filled_in_later_are_found(
    opened: Callable[[FakeSession], Runtime], honest_calls: int
) -> None:
    """From the warm-up on, or at some time after it."""
    script = replace(SCRIPT, delays_s=(2e-4,))
    with opened(FillingLater(script, Options("cpu", 1), honest_calls)) as runtime:
        made = of(runtime, plan=FAST)
        with pytest.raises(CheckFailedError, match="'logits'") as caught:
            sat(made, *[TurnPlan(0.005, 20, 50)] * 4)
        assert caught.value.code in LATE


class Drifting(Paced):
    """Gives other answers from some call on."""

    right_left = 10**9

    def run(self, arrays: Arrays) -> Arrays:
        self.right_left -= 1
        return {name: values + (self.right_left < 0) for name, values in super().run(arrays).items()}


@pytest.mark.parametrize("right", [0, 5, 17])
def test_an_output_that_changes_in_a_turn_is_found_in_it(on: Make, right: int) -> None:
    """From any call on: the last one of a turn is looked at as well."""
    session = Drifting(Now(), itertools.repeat(1 / 256))
    made = on(session)
    made.warm_up()
    made.turn(TurnPlan(1 / 16, 1, 100))
    session.right_left = right
    with refuses(CheckFailedError, "output-changed", "'logits'"):
        made.turn(TurnPlan(1 / 16, 1, 100))


def test_an_output_that_changes_while_it_is_warmed_up_is_found(on: Make) -> None:
    session = Drifting(Now(), itertools.repeat(1e-6))
    made = on(session, plan=replace(PLAN, window_s=1e-3))
    session.right_left = LOOKED_AT
    with refuses(CheckFailedError, "output-changed", "'logits'"):
        made.warm_up()


class Reusing(Paced):
    """Gives the same array each time, filled anew: not its caller's own."""

    def run(self, arrays: Arrays) -> Arrays:
        found = super().run(arrays)
        self.array: np.ndarray = getattr(self, "array", found["logits"].copy())
        self.array[...] = found["logits"]
        return {"logits": self.array}


def test_outputs_that_are_not_the_callers_own_are_found(on: Make) -> None:
    made = on(Reusing(Now(), itertools.repeat(1e-6)), plan=replace(PLAN, window_s=1e-3))
    with pytest.raises(CheckFailedError, match="'logits'") as caught:
        made.warm_up()
    assert caught.value.code in LATE


class Telling(Paced):
    """On a device with a clock of its own, by which a run takes half of the time."""

    def run_tensors(self, tensors: object) -> Arrays:
        raise NotImplementedError

    def queue(self, feeds: object, stream: object) -> NoReturn:
        raise NotImplementedError

    def empty_array(self, shape: object, dtype: object) -> NoReturn:
        raise NotImplementedError

    def bind_timed(self, arrays: Arrays) -> Callable[[], RunTimes]:
        bound = self.bind(arrays)

        def run_once() -> RunTimes:
            bound()
            return RunTimes(1 / 512, 1 / 1024)

        return run_once


def test_the_devices_runs_are_as_many_as_the_hosts_at_most(on: Make) -> None:
    found = sat(on(Telling(Now(), itertools.repeat(1 / 256))), TurnPlan(1 / 8, 1, 100), TurnPlan(1 / 64, 5, 100))
    assert found.device is not None
    assert found.device.settled
    assert [len(samples) for samples in found.compute.rounds_s] == [32, 5]
    assert found.device.rounds_s == ((1 / 512,) * 32, (1 / 512,) * 5)


def rotating(outputs: Iterator[Arrays], expected: list[float]) -> RotatingCall:
    values = [{"y": np.full(4, value, np.float32)} for value in expected]
    return RotatingCall(lambda _: next(outputs), [{} for _ in expected], values)


def test_feeds_take_turns_and_some_outputs_are_copied() -> None:
    seen: list[float] = []

    def infer(arrays: Arrays) -> Arrays:
        seen.append(float(arrays["x"][0]))
        return {"y": 2 * arrays["x"]}

    feeds = [{"x": np.full(1, value)} for value in (1.0, 2.0, 3.0)]
    call = RotatingCall(infer, feeds, [{"y": 2 * feed["x"]} for feed in feeds])
    for _ in range(2 * LOOKED_AT):
        call()
        call.copy_outputs()
    assert seen[:5] == [1.0, 2.0, 3.0, 1.0, 2.0]
    assert [position for position, _, _ in call._copies] == [0, LOOKED_AT % 3]
    call.check()
    assert call._copies == [], "forgotten"
    call.begin()
    call()
    call.copy_outputs()
    assert len(call._copies) == 1, "a turn's first"
    call()
    call.copy_outputs()
    assert len(call._copies) == 1
    call.end()
    assert len(call._copies) == 2, "and its last"


def test_of_many_calls_some_are_remembered_from_start_to_end() -> None:
    call = RotatingCall(lambda feed: {"y": feed["x"]}, [{"x": np.zeros(1)}], [{"y": np.zeros(1)}])
    looked: list[int] = []
    for number in range(5 * MOST_LOOKED_AT * LOOKED_AT):
        call()
        before = len(call._copies)
        call.copy_outputs()
        looked += [number] * (len(call._copies) > before)
    assert MOST_LOOKED_AT / 2 <= len(call._copies) <= MOST_LOOKED_AT
    assert looked[-1] > 4.9 * MOST_LOOKED_AT * LOOKED_AT
    call.check()
    call.begin()
    for _ in range(LOOKED_AT + 1):
        call()
        call.copy_outputs()
    assert len(call._copies) == 2  # as often as before


@pytest.mark.parametrize("bad", [1.002, np.nan, np.inf, 0.0])
def test_an_output_that_is_looked_at_must_be_what_it_was(bad: float) -> None:
    call = rotating(iter([{"y": np.full(4, bad, np.float32)}]), [1.0])
    call()
    call.copy_outputs()
    with refuses(CheckFailedError, "output-changed", "'y'"):
        call.check()


def test_an_output_that_comes_after_the_look_was_late() -> None:
    array = np.zeros(4, np.float32)
    call = rotating(iter([{"y": array}]), [1.0])
    call()
    call.copy_outputs()
    array[...] = 1.0
    with refuses(CheckFailedError, "output-late", "'y'"):
        call.check()


@pytest.mark.parametrize(
    ("values", "wanted", "same"),
    [
        ([1.0, -4.0], [1.0, -4.0], True),
        ([1.0039, -4.0], [1.0, -4.0], True),
        ([1.0041, -4.0], [1.0, -4.0], False),
        ([0.0], [0.0], True),
        ([1e-9], [0.0], False),
        ([1.0], [1.0, 1.0], False),
        ([], [], True),
    ],
)
def test_what_counts_as_the_same_output(values: list[float], wanted: list[float], same: bool) -> None:
    assert close(np.array(values), np.array(wanted)) is same


def test_calls_are_made_in_turn_and_counted() -> None:
    calls = AlternatingCalls([lambda: "a", lambda: "b"])
    assert [calls() for _ in range(5)] == ["a", "b", "a", "b", "a"]
    assert calls.made == 5
