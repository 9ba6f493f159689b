"""Decoding ahead: the order, the turn of every error, what is drawn when, and that no thread stays behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from runtimes.errors import InputError
from runtimes.images import prefetch as decoding
from runtimes.images.prefetch import prefetch
from runtimes.images.preprocessing import Image
from tests.processes import default_interrupt

REPO = Path(__file__).resolve().parents[3]
THREAD_LIMIT = decoding.thread_limit
ARRAY = np.zeros((1, 1, 3), np.uint8)


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "thread_limit", lambda: 4)


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode-")]


def paths(count: int) -> list[Image]:
    return [f"{number}.png" for number in range(count)]


def named(number: int, image: Image) -> tuple[int, Image]:
    return number, image


def slow_first(number: int, _: Image) -> int:
    time.sleep(0.02 if number % 3 == 0 else 0)
    return number


@pytest.mark.parametrize("size", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 20])
def test_everything_comes_in_order(count: int, size: int) -> None:
    images: list[Image] = [ARRAY if number % 4 == 2 else f"{number}" for number in range(count)]
    batches = list(prefetch(images, size, named))
    assert [len(batch) for batch in batches] == [min(size, count - start) for start in range(0, count, size)]
    results = [result for batch in batches for result in batch]
    assert [number for number, _ in results] == list(range(count))
    assert all(result is image for (_, result), image in zip(results, images, strict=True))


def test_a_slow_image_does_not_lose_its_place() -> None:
    assert list(prefetch(paths(9), 2, slow_first)) == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]


def test_the_next_batches_are_worked_on_while_the_caller_is_busy() -> None:
    begun = [threading.Event() for _ in range(8)]

    def work(number: int, _: Image) -> str:
        begun[number].set()
        return threading.current_thread().name

    batches = prefetch(paths(8), 2, work)
    next(batches)
    assert all(event.wait(10) for event in begun[:6]), "two batches ahead"
    assert not any(event.is_set() for event in begun[6:])
    assert all(name.startswith("decode-") for name in next(batches))
    batches.close()


def test_the_caller_does_its_part_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "thread_limit", lambda: 1)
    begun = [threading.Event(), threading.Event()]

    def work(number: int, _: Image) -> bool:
        begun[number].set()
        return begun[1 - number].wait(5)

    assert list(prefetch(paths(2), 2, work)) == [[True, True]]


def test_an_iterator_is_drawn_two_batches_ahead_by_the_caller() -> None:
    drawn: list[str] = []

    def source() -> Iterator[Image]:
        for path in paths(14):
            drawn.append(threading.current_thread().name)
            yield path

    counts = [len(drawn) for _ in prefetch(source(), 3, named)]
    assert counts == [9, 12, 14, 14, 14]
    assert set(drawn) == {threading.current_thread().name}


def test_a_reused_array_is_decoded_before_the_next_is_drawn() -> None:
    buffer = np.zeros((1, 1, 3), np.uint8)
    where: list[str] = []

    def source() -> Iterator[Image]:
        for number in range(9):
            buffer[:] = number
            yield buffer

    def work(_: int, image: Image) -> int:
        where.append(threading.current_thread().name)
        return int(np.asarray(image)[0, 0, 0])

    assert [value for batch in prefetch(source(), 2, work) for value in batch] == list(range(9))
    assert set(where) == {threading.current_thread().name}


def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that are started from now on."""
    names: list[str] = []
    original = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        names.append(thread.name)
        original(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    return names


@pytest.mark.parametrize("size", [1, 32])
@pytest.mark.parametrize("images", [["a.png"], [b"a"], [ARRAY], [ARRAY, Path("a.png"), ARRAY], [ARRAY] * 9])
def test_one_image_to_decode_starts_nothing(images: list[Image], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def thread_limit() -> int:
        asked.append(1)
        return 8

    monkeypatch.setattr(decoding, "thread_limit", thread_limit)
    names = started(monkeypatch)
    assert len([result for batch in prefetch(images, size, named) for result in batch]) == len(images)
    assert (names, asked) == ([], [])


@pytest.mark.parametrize(
    ("count", "processors", "most"), [(2, 8, 1), (4, 8, 3), (50, 8, 4), (50, 4, 3), (50, 2, 1), (50, 1, 0)]
)
def test_there_are_fewer_threads_than_images_and_than_processors(
    count: int, processors: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "usable_processors", lambda: processors)
    monkeypatch.setattr(decoding, "thread_limit", THREAD_LIMIT.__wrapped__)
    names = started(monkeypatch)
    assert len(list(prefetch(paths(count), 1, named))) == count
    assert names == [f"decode-{number}" for number in range(most)]


@pytest.mark.parametrize("images", [paths(9), [ARRAY] * 9], ids=["paths", "arrays"])
def test_an_error_comes_at_the_turn_of_its_batch(images: list[Image]) -> None:
    error = InputError("image 5: broken")

    def work(number: int, _: Image) -> int:
        if number == 5:
            raise error
        if number == 4:
            time.sleep(0.05)
        return number

    batches = prefetch(images, 2, work)
    assert [next(batches), next(batches)] == [[0, 1], [2, 3]]
    with pytest.raises(InputError) as caught:
        next(batches)
    assert caught.value is error
    assert not decoders()
    assert list(batches) == []


def test_of_two_errors_in_a_batch_the_first_images_is_raised() -> None:
    def work(number: int, _: Image) -> int:
        time.sleep(0.05 if number == 1 else 0)
        raise errors[number]

    errors = [InputError(f"image {number}") for number in range(3)]
    with pytest.raises(InputError) as caught:
        list(prefetch(paths(3), 3, work))
    assert caught.value is errors[0]


def broken_source(good: int, drawn: list[int]) -> Iterator[Image]:
    class Source(Iterator[Image]):
        def __next__(self) -> Image:
            drawn.append(len(drawn))
            if drawn[-1] == good:
                raise OSError("the camera is gone")
            return f"{drawn[-1]}"

    return Source()


@pytest.mark.parametrize(("good", "whole"), [(0, 0), (1, 0), (2, 1), (3, 1), (6, 3), (7, 3)])
def test_an_error_of_the_source_comes_after_whole_batches(good: int, whole: int) -> None:
    drawn: list[int] = []
    batches = prefetch(broken_source(good, drawn), 2, named)
    for _ in range(whole):
        assert len(next(batches)) == 2
    with pytest.raises(OSError, match="camera"):
        next(batches)
    assert len(drawn) == good + 1  # nothing is drawn after it
    assert not decoders()


def test_an_images_error_goes_before_a_later_one_of_the_source() -> None:
    def work(number: int, _: Image) -> int:
        if number == 1:
            raise InputError("image 1")
        return number

    with pytest.raises(InputError, match="image 1"):
        list(prefetch(broken_source(2, []), 2, work))


def leave(batches: Iterator[list[int]]) -> None:
    next(batches)
    batches.close()  # type: ignore[attr-defined]


def exhaust(batches: Iterator[list[int]]) -> None:
    assert len(list(batches)) == 10


def forget(batches: Iterator[list[int]]) -> None:
    next(batches)


@pytest.mark.parametrize("use", [leave, exhaust, forget])
def test_no_thread_stays_behind(use: Callable[[Iterator[list[int]]], None]) -> None:
    before = threading.active_count()
    use(prefetch(paths(30), 3, slow_first))
    assert (decoders(), threading.active_count()) == ([], before)


def test_leaving_early_leaves_what_is_not_begun() -> None:
    done: list[int] = []

    def work(number: int, _: Image) -> None:
        time.sleep(0.02)
        done.append(number)

    batches = prefetch(paths(300), 100, work)
    with default_interrupt():
        threading.Timer(0.1, lambda: os.kill(os.getpid(), 2)).start()
        with pytest.raises(KeyboardInterrupt):
            next(batches)
    assert not decoders()
    assert 0 < len(done) < 100


def without_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that should have been started from now on."""
    names: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        names.append(thread.name)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return names


@pytest.mark.parametrize("can_start", [True, False])
def test_what_was_given_is_not_kept(can_start: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Large:
        pass

    if not can_start:
        without_threads(monkeypatch)
    made: list[weakref.ref[Large]] = []

    def work(*_: object) -> Large:
        large = Large()
        made.append(weakref.ref(large))
        return large

    for given in prefetch(paths(100), 2, work):
        assert len(given) == 2
        assert sum(large() is not None for large in made) <= 2 * (1 + decoding.AHEAD)
    assert len(made) == 100


def test_without_threads_nothing_piles_up_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    without_threads(monkeypatch)
    batches = prefetch(paths(100), 2, named)
    for _ in range(49):
        next(batches)
    assert sum(type(thing) is decoding._Task for thing in gc.get_objects()) < 10
    batches.close()


def test_without_threads_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = without_threads(monkeypatch)
    results = list(prefetch(paths(9), 2, lambda number, _: (number, threading.current_thread().name)))
    here = threading.current_thread().name
    assert [result for batch in results for result in batch] == [(number, here) for number in range(9)]
    assert tries == ["decode-0"]


def test_many_callers_at_once() -> None:
    wrong: list[object] = []

    def call(size: int) -> None:
        for _ in range(30):
            results = [number for batch in prefetch(paths(11), size, lambda number, _: number) for number in batch]
            if results != list(range(11)):
                wrong.append(results)

    callers = [threading.Thread(target=call, args=(size,)) for size in (1, 2, 3, 11)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    assert not decoders()


LEFT = "batches = prefetch(paths, 1, work); print(next(batches))"
LATE = """
late = lambda: (threading.main_thread().join(), print(next(prefetch(paths, 9, work))))
threading.Thread(target=late).start()
"""


@pytest.mark.parametrize("program", [pytest.param(LEFT, id="unfinished"), pytest.param(LATE, id="after main thread")])
def test_the_end_of_the_program(program: str) -> None:
    """Neither does an unfinished one keep it from ending, nor does its end keep other threads from decoding."""
    head = """
import threading
from runtimes.images import prefetch as decoding
from runtimes.images.prefetch import prefetch
decoding.thread_limit = lambda: 4
paths = list("abcdefghi")
work = lambda number, _: number
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + program], cwd=REPO, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[0")
