from __future__ import annotations

import threading

import pytest

from runtimes.backends.onnxruntime.serialised import GPU_LOCK, SerialCalls


def in_a_thread(turns: SerialCalls, results: list[int]) -> threading.Thread:
    return threading.Thread(target=lambda: results.append(turns.call(threading.get_ident)))


def test_the_first_thread_calls_as_it_is_and_all_others_in_one() -> None:
    turns, results = SerialCalls(), list[int]()
    assert turns.call(threading.get_ident) == threading.get_ident()
    for _ in range(5):  # each dies before the next is born
        thread = in_a_thread(turns, results)
        thread.start()
        thread.join()
    assert turns.call(threading.get_ident) == threading.get_ident()
    assert len(set(results)) == 1
    assert threading.get_ident() not in results
    turns.close()


def test_when_the_first_thread_has_died_its_number_is_nobodys() -> None:
    """The system gives a dead thread's number to the next."""
    turns, results = SerialCalls(), list[int]()
    for _ in range(4):
        thread = in_a_thread(turns, results)
        thread.start()
        thread.join()
    assert len(set(results[1:])) == 1
    assert turns.call(threading.get_ident) == results[1]
    turns.close()


def test_an_error_comes_back_to_its_caller() -> None:
    turns, caught = SerialCalls(), list[str]()

    def fail() -> None:
        raise ValueError("this one")

    def call() -> None:
        try:
            turns.call(fail)
        except ValueError as error:
            caught.append(str(error))

    call()
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert caught == ["this one", "this one"]
    turns.close()


def test_what_is_to_be_done_here_is_done_in_the_callers_thread() -> None:
    turns, results = SerialCalls(), list[int]()
    turns.call(threading.get_ident)
    thread = threading.Thread(
        target=lambda: results.extend((threading.get_ident(), turns.call_here(threading.get_ident)))
    )
    thread.start()
    thread.join()
    assert results[0] == results[1]
    assert turns.call_here(GPU_LOCK.locked)
    turns.close()


@pytest.mark.parametrize("turn", [True, False])
@pytest.mark.parametrize("several", [False, True])
def test_no_two_calls_at_once(turn: bool, several: bool) -> None:
    """Of one session or of several. And without turns, the test sees it."""
    turns, met, inside = SerialCalls(), list[bool](), threading.Barrier(2)
    others = [turns, SerialCalls() if several else turns]

    def act() -> None:
        try:
            inside.wait(timeout=0.5 if turn else 30)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)

    threads = [threading.Thread(target=(lambda its=its: its.call(act)) if turn else act) for its in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == [not turn, not turn]
    for its in others:
        its.close()
