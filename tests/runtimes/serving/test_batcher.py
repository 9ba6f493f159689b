"""The batcher, with networks of Python: what shares a run, what is refused, and what is not run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from runtimes.errors import InputError, ResourceError, UsageError
from runtimes.serving.batcher import Batcher, NetworkBatch, QueuedRequest
from runtimes.serving.settings import ServingSettings
from runtimes.tensors.spec import Arrays
from tests.refusals import refuses

LIMIT_S = 30


class Outcome:
    """What a request came to; ``wait`` returns it."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self.values: list[Arrays | Exception] = []

    def resolve(self, outcome: Arrays | Exception) -> None:
        self.values.append(outcome)
        self._done.set()

    def wait(self) -> Arrays:
        assert self._done.wait(LIMIT_S)
        (value,) = self.values
        if isinstance(value, Exception):
            raise value
        return value

    @property
    def done(self) -> bool:
        return self._done.is_set()


class Network:
    """Doubles its input, and waits in its first run until ``gate`` is set."""

    def __init__(self, largest: int = 8, fixed: int | None = None) -> None:
        self.runs: list[tuple[int, ...]] = []
        self.entered, self.gate = threading.Event(), threading.Event()
        self.batch = NetworkBatch(self.run, largest, fixed)

    def run(self, feeds: Arrays) -> Arrays:
        self.runs.append(feeds["x"].shape)
        if len(self.runs) == 1:
            self.entered.set()
            assert self.gate.wait(LIMIT_S)
        return {"y": feeds["x"] * 2}


def rows(value: float, count: int = 1, width: int = 2) -> Arrays:
    return {"x": np.full((count, width), value, np.float32)}


def submit(batcher: Batcher, feeds: Arrays) -> Outcome:
    outcome = Outcome()
    batcher.add(batcher.admit(outcome.resolve), feeds)
    return outcome


class Busy:
    """A batcher whose network is in its first run, until ``go`` is called."""

    def __init__(self, settings: ServingSettings | None = None, network: Network | None = None) -> None:
        self.network = network or Network()
        self.batcher = Batcher(self.network.batch, settings or ServingSettings(max_batch=8))
        self.first = Outcome()
        request = self.batcher.admit(self.first.resolve)
        self._thread = threading.Thread(target=self.batcher.add, args=(request, rows(1)))
        self._thread.start()
        assert self.network.entered.wait(LIMIT_S)

    def go(self) -> None:
        self.network.gate.set()
        self._thread.join(LIMIT_S)


def test_requests_of_a_busy_network_share_a_run() -> None:
    busy = Busy()
    outcomes = [submit(busy.batcher, rows(number)) for number in range(2, 5)]
    assert not any(outcome.done for outcome in outcomes)
    busy.go()
    assert busy.network.runs == [(1, 2), (3, 2)]
    for number, outcome in enumerate(outcomes, start=2):
        np.testing.assert_array_equal(outcome.wait()["y"], rows(2 * number)["x"])
    assert busy.batcher.admitted == 0


def test_an_idle_network_runs_in_the_thread_of_the_request() -> None:
    network = Network()
    network.gate.set()
    threads: list[int] = []

    def run(feeds: Arrays) -> Arrays:
        threads.append(threading.get_ident())
        return network.run(feeds)

    outcome = submit(Batcher(NetworkBatch(run, 8, None), ServingSettings()), rows(3))
    assert outcome.done
    assert threads == [threading.get_ident()]


def test_a_run_has_no_more_rows_than_the_largest() -> None:
    busy = Busy()
    outcomes = [submit(busy.batcher, rows(number, count=3)) for number in range(4)]
    busy.go()
    assert busy.network.runs == [(1, 2), (6, 2), (6, 2)]
    assert [len(outcome.wait()["y"]) for outcome in outcomes] == [3, 3, 3, 3]


def test_other_shapes_have_a_run_of_their_own() -> None:
    busy = Busy()
    outcomes = [submit(busy.batcher, rows(1, width=width)) for width in (2, 3, 3)]
    busy.go()
    assert busy.network.runs == [(1, 2), (1, 2), (2, 3)]
    assert [outcome.wait()["y"].shape for outcome in outcomes] == [(1, 2), (1, 3), (1, 3)]


def test_a_fixed_batch_is_filled_with_zeros() -> None:
    network = Network(largest=4, fixed=4)
    network.gate.set()
    outcome = submit(Batcher(network.batch, ServingSettings()), rows(5, count=3))
    assert network.runs == [(4, 2)]
    np.testing.assert_array_equal(outcome.wait()["y"], rows(10, count=3)["x"])


def test_a_network_without_batches_runs_one_request_at_a_time() -> None:
    busy = Busy(network=Network(largest=0))
    outcomes = [submit(busy.batcher, rows(number, count=5)) for number in (1, 2)]
    busy.go()
    assert busy.network.runs == [(1, 2), (5, 2), (5, 2)]
    assert [len(outcome.wait()["y"]) for outcome in outcomes] == [5, 5]


def test_a_delay_waits_for_a_full_batch_and_no_longer() -> None:
    network = Network(largest=2)
    network.gate.set()
    batcher = Batcher(network.batch, ServingSettings(delay_s=LIMIT_S))
    first = Outcome()
    request = batcher.admit(first.resolve)
    thread = threading.Thread(target=batcher.add, args=(request, rows(1)))
    thread.start()
    second = submit(batcher, rows(2))
    thread.join(LIMIT_S)
    assert network.runs == [(2, 2)]
    assert [first.wait()["y"][0, 0], second.wait()["y"][0, 0]] == [2, 4]


def test_a_full_queue_refuses() -> None:
    busy = Busy(ServingSettings(queue=2))
    waiting = submit(busy.batcher, rows(2))
    with refuses(ResourceError, "queue-full", 2):
        busy.batcher.admit(lambda _: None)
    busy.go()
    waiting.wait()
    submit(busy.batcher, rows(3)).wait()


def test_a_queue_slower_than_the_deadline_refuses() -> None:
    def run(feeds: Arrays) -> Arrays:
        time.sleep(0.02)
        return {"y": feeds["x"]}

    batcher = Batcher(NetworkBatch(run, 8, None), ServingSettings(timeout_s=0.01))
    submit(batcher, rows(1)).wait()
    batcher.admit(lambda _: None)  # nothing waits: it is admitted however slow the network is
    with refuses(ResourceError, "queue-too-slow"):
        batcher.admit(lambda _: None)


def test_a_request_past_its_deadline_is_not_run() -> None:
    busy = Busy()
    late, timely = Outcome(), Outcome()
    request = busy.batcher.admit(late.resolve)
    request.deadline_s = time.monotonic() - 1
    busy.batcher.add(request, rows(2))
    busy.batcher.add(busy.batcher.admit(timely.resolve), rows(3))
    busy.go()
    with refuses(ResourceError, "deadline-passed"):
        late.wait()
    assert timely.wait()["y"][0, 0] == 6
    assert busy.network.runs == [(1, 2), (1, 2)]


def test_a_withdrawn_request_frees_its_place_and_is_not_run() -> None:
    busy = Busy(ServingSettings(queue=2))
    gone = Outcome()
    request = busy.batcher.admit(gone.resolve)
    busy.batcher.add(request, rows(2))
    busy.batcher.withdraw(request)
    busy.batcher.withdraw(request)
    assert busy.batcher.admitted == 1
    kept = submit(busy.batcher, rows(3))
    busy.go()
    assert kept.wait()["y"][0, 0] == 6
    assert busy.network.runs == [(1, 2), (1, 2)]
    assert not gone.done


def test_a_failing_run_fails_its_requests_and_no_other() -> None:
    network = Network()
    network.gate.set()

    def run(feeds: Arrays) -> Arrays:
        if feeds["x"][0, 0] == 13:
            raise InputError("not thirteen", code="thirteen")
        return network.run(feeds)

    batcher = Batcher(NetworkBatch(run, 8, None), ServingSettings())
    with refuses(InputError, "thirteen"):
        submit(batcher, rows(13)).wait()
    assert submit(batcher, rows(1)).wait()["y"][0, 0] == 2
    assert batcher.admitted == 0


def swap_rows(feeds: Arrays) -> Arrays:
    """A network that gives two requests each the other's answer."""
    return {"y": feeds["x"][::-1] * 2}


def answers_are_their_own(make: Callable[[Network], Callable[[Arrays], Arrays]]) -> bool:
    """Whether each of many requests of several threads gets the answer to its own input."""
    network = Network(largest=16)
    network.gate.set()
    batcher = Batcher(NetworkBatch(make(network), 16, None), ServingSettings(max_batch=16, delay_s=0.001))
    wrong: list[float] = []

    def ask(first: int) -> None:
        for number in range(first, first + 50):
            outcome = Outcome()
            batcher.add(batcher.admit(outcome.resolve), rows(number))
            if outcome.wait()["y"][0, 0] != 2 * number:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(1000 * client,)) for client in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    return not wrong


def test_each_request_gets_its_own_answer() -> None:
    assert answers_are_their_own(lambda network: network.run)


def test_swapped_answers_are_caught() -> None:
    assert not answers_are_their_own(lambda _: swap_rows)


def test_a_resolver_that_raises_leaves_the_network_usable() -> None:
    network = Network()
    network.gate.set()
    batcher = Batcher(network.batch, ServingSettings())

    def fail(_: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        batcher.add(batcher.admit(fail), rows(1))
    assert submit(batcher, rows(2)).wait()["y"][0, 0] == 4


@pytest.mark.parametrize(
    "values", [{"max_batch": 0}, {"timeout_s": 0}, {"queue": 0}, {"delay_s": -1}, {"max_pixels": 1 << 40}], ids=str
)
def test_limits_out_of_range_are_refused(values: dict[str, int]) -> None:
    with refuses(UsageError, "serving-limit-out-of-range"):
        ServingSettings(**values)


def test_a_request_is_resolved_once() -> None:
    batcher = Batcher(Network().batch, ServingSettings())
    outcome = Outcome()
    request: QueuedRequest = batcher.admit(outcome.resolve)
    batcher.fail(request, InputError("first", code="first"))
    batcher.fail(request, InputError("second", code="second"))
    assert [str(value) for value in outcome.values] == ["first"]
    assert batcher.admitted == 0
