from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from benchmarks.records.plan import Plan
from benchmarks.records.samples import Series
from benchmarks.worker.timer import Clock, TimedCall, garbage_collector_at_rest, time_call, time_reported
from runtimes.errors import UsageError
from tests.refusals import refuses


class FakeClock:
    """Time that passes only where a scripted call says so."""

    def __init__(self, durations: Iterator[float]) -> None:
        self.now = 1000.0
        self.durations = durations
        self.calls = 0

    def __call__(self) -> float:
        return self.now

    def work(self) -> None:
        self.calls += 1
        self.now += next(self.durations)


def scripted(*durations: float, then: float) -> FakeClock:
    def forever() -> Iterator[float]:
        yield from durations
        while True:
            yield then

    return FakeClock(forever())


PLAN = Plan(duration_s=2.0, min_samples=2, max_samples=100, window_s=0.5, agreement=0.1, warmup_limit_s=60.0)


def measure(call: Callable[[], object], plan: Plan, clock: Clock = time.perf_counter) -> Series:
    """The samples of one turn as the plan says, as a worker takes them."""
    with garbage_collector_at_rest():
        repeated = TimedCall(call, plan, clock)
        repeated.warm_up()
        repeated.turn(plan.duration_s, plan.min_samples)
    return repeated.series()


def test_samples_are_the_script_to_the_digit() -> None:
    # Multiples of 1/8 are exact in binary: three agreeing windows of 4 x 0.125 s, then 2 s of samples.
    clock = scripted(*[0.125] * 12, 0.5, 0.25, 0.75, 0.25, 0.25, then=99.0)
    assert measure(clock.work, PLAN, clock) == Series((0.125,) * 12, True, ((0.5, 0.25, 0.75, 0.25, 0.25),))
    assert clock.calls == 17


def test_warm_up_goes_on_until_three_windows_agree() -> None:
    clock = scripted(8.0, 4.0, 2.0, 1.0, 1.0, then=1.0)
    result = measure(clock.work, PLAN, clock)
    assert result.warmup_s == (8.0, 4.0, 2.0, 1.0, 1.0, 1.0)
    assert result.settled


@pytest.mark.parametrize(("third", "settles"), [(1.09375, True), (1.125, False)])
def test_windows_agree_within_the_fraction(third: float, settles: bool) -> None:
    plan = Plan(duration_s=1.0, min_samples=1, window_s=0.5, agreement=0.1, warmup_limit_s=3.0)
    clock = scripted(1.0, 1.0, third, then=1.0)
    assert measure(clock.work, plan, clock).settled is settles


def test_warm_up_that_never_agrees_is_capped_and_says_so() -> None:
    def growing() -> Iterator[float]:
        duration = 1.0
        while True:
            yield duration
            duration *= 2

    clock = FakeClock(growing())
    result = measure(clock.work, PLAN, clock)
    assert result.warmup_s == (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    assert not result.settled


def test_slow_calls_still_give_the_least_number_of_samples() -> None:
    clock = scripted(then=4.0)
    result = measure(clock.work, Plan(duration_s=1.0, min_samples=7), clock)
    assert result.samples_s == (4.0,) * 7


def test_a_clock_that_stands_still_ends_at_the_most_samples() -> None:
    clock = scripted(then=0.0)
    result = measure(clock.work, Plan(duration_s=1.0, min_samples=1, max_samples=50), clock)
    assert result.samples_s == (0.0,) * 50


def test_the_garbage_collector_rests_and_its_state_is_restored() -> None:
    seen: list[bool] = []
    plan = Plan(duration_s=0.0, min_samples=1, warmup_limit_s=0.0)
    assert gc.isenabled()
    measure(lambda: seen.append(gc.isenabled()), plan)
    assert gc.isenabled()
    gc.disable()
    try:
        measure(lambda: seen.append(gc.isenabled()), plan)
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert not any(seen)


def test_the_garbage_is_collected_before_the_collector_rests() -> None:
    class Knot:
        pass

    knot, left = Knot(), list[bool]()
    knot.itself = knot  # type: ignore[attr-defined]
    weakref.finalize(knot, left.append, True)
    gc.disable()
    try:
        del knot
        assert left == []
        with garbage_collector_at_rest():
            assert left == [True]
    finally:
        gc.enable()


def test_what_the_call_raises_restores_the_collector() -> None:
    def broken() -> None:
        raise RuntimeError("call 1")

    with pytest.raises(RuntimeError, match="call 1"):
        measure(broken, PLAN)
    assert gc.isenabled()


def warmed_up(clock: FakeClock, plan: Plan = PLAN) -> TimedCall:
    repeated = TimedCall(clock.work, plan, clock)
    repeated.warm_up()
    return repeated


def test_turns_are_rounds_and_each_is_as_long_as_it_is_told() -> None:
    clock = scripted(*[0.125] * 12, 0.5, 0.5, 0.25, 0.25, 0.25, 1.0, then=99.0)
    repeated = warmed_up(clock)
    assert repeated.usual_s == 0.125
    assert repeated.turn(1.0) == (0.5, 0.5)
    assert repeated.turn(0.75, least=2) == (0.25, 0.25, 0.25)
    assert repeated.turn(0.5) == (1.0,)
    assert repeated.series() == Series((0.125,) * 12, True, ((0.5, 0.5), (0.25, 0.25, 0.25), (1.0,)))
    assert repeated.series().samples_s == (0.5, 0.5, 0.25, 0.25, 0.25, 1.0)


def test_a_turn_has_its_least_and_its_most() -> None:
    repeated = warmed_up(scripted(then=0.25))
    assert repeated.turn(0.0, least=3, most=5) == (0.25,) * 3
    assert repeated.turn(60.0, least=3, most=5) == (0.25,) * 5
    assert repeated.turn(60.0, least=9, most=5) == (0.25,) * 5
    assert repeated.turn(60.0) == (0.25,) * PLAN.max_samples


def test_what_renews_the_caches_before_a_turn_is_no_sample_of_it() -> None:
    clock = scripted(*[0.125] * 12, 0.75, 0.375, then=0.25)
    repeated = warmed_up(clock)
    assert repeated.renew(10.0) == [0.75, 0.375]  # a tenth of the turn
    repeated.turn(0.5)
    assert repeated.series() == Series((*[0.125] * 12, 0.75, 0.375), True, ((0.25, 0.25),))


@pytest.mark.parametrize(("duration_s", "calls"), [(0.25, 1), (0.2421875, 0), (0.0, 0)])
def test_nothing_is_renewed_where_two_calls_exceed_a_turn(duration_s: float, calls: int) -> None:
    repeated = warmed_up(scripted(then=0.125))
    assert len(repeated.renew(duration_s)) == calls


def test_what_comes_after_a_call_is_not_timed() -> None:
    clock = scripted(then=0.25)
    seen: list[float] = []

    def after() -> None:
        seen.append(clock.now)
        clock.now += 64.0

    repeated = TimedCall(clock.work, PLAN, clock, after)
    repeated.warm_up()
    assert repeated.turn(0.5) == (0.25, 0.25)
    assert len(seen) == clock.calls  # after each call, those of the warm-up too


def test_samples_are_kept_to_nanoseconds() -> None:
    clock = scripted(then=0.0000012345678)
    plan = Plan(warmup_limit_s=0.0)
    clock.now = 0.0
    repeated = warmed_up(clock, plan)
    repeated.turn(0.0)
    assert repeated.series().rounds_s == ((0.000001235,),)


def test_without_a_warm_up_nothing_is_known_and_nothing_settled() -> None:
    repeated = warmed_up(scripted(then=0.25), Plan(warmup_limit_s=0.0))
    assert repeated.usual_s == 0.0
    assert repeated.series() == Series((), False, ())


def test_a_call_that_tells_its_own_time_is_measured_by_that() -> None:
    clock = scripted(*[0.125] * 12, 0.5, 0.25, 0.75, 0.25, 0.25, then=99.0)

    def call() -> float:
        before = clock.now
        clock.work()
        return clock.now - before

    told = time_reported(call, PLAN)
    told.warm_up()
    assert told.turn(2.0) == (0.5, 0.25, 0.75, 0.25, 0.25)
    assert told.series() == Series((0.125,) * 12, True, ((0.5, 0.25, 0.75, 0.25, 0.25),))


def test_a_device_whose_clock_stands_does_not_hold_up_for_ever() -> None:
    told = time_reported(lambda: 0.0, Plan(max_samples=7, min_samples=1, warmup_limit_s=1.0))
    told.warm_up()
    assert told.series() == Series((0.0,) * 21, True, ())
    assert told.turn(1.0, most=5) == (0.0,) * 5


def test_timed_gives_the_result_and_its_seconds() -> None:
    clock = scripted(0.25, then=9.0)

    def call() -> str:
        clock.work()
        return "done"

    assert time_call(call, clock) == ("done", 0.25)


@pytest.mark.parametrize(
    ("make", "code", "values"),
    [
        (lambda: Plan(duration_s=-1.0), "plan-negative", ("duration_s", "-1.0")),
        (lambda: Plan(duration_s=float("nan")), "plan-negative", ("duration_s", "nan")),
        (lambda: Plan(agreement=float("inf")), "plan-negative", ("agreement", "inf")),
        (lambda: Plan(min_samples=0), "samples-out-of-order", ("0",)),
        (lambda: Plan(min_samples=9, max_samples=8), "samples-out-of-order", ("9", "8")),
    ],
)
def test_impossible_plans_are_refused(make: Callable[[], Plan], code: str, values: tuple[str, ...]) -> None:
    with refuses(UsageError, code, *values):
        make()
