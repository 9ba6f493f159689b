"""Images decoded ahead: a few threads work on the next batches while the caller has the network work on this one."""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, NoReturn, TypeVar

from runtimes.images.preprocessing import Image
from runtimes.processors import usable_processors

MAX_THREADS = 4

AHEAD = 2
"""Batches that are drawn and decoded while the caller works on one."""

T = TypeVar("T")


@functools.cache
def most_threads() -> int:
    """How many threads one call may start: one processor is the caller's own, which decodes too while it waits.

    Found out once: to ask takes longer than to decode a small image.
    """
    return min(MAX_THREADS, usable_processors() - 1)


def prefetch(images: Iterable[Image], size: int, work: Callable[[int, Image], T]) -> Generator[list[T], None, None]:
    """What ``work`` makes of each image, given its number from 0 and the image: ``size`` at a time and in order.

    Paths and encoded bytes are worked on by up to ``most_threads`` threads, and by the caller's own while it waits; one
    of them alone starts no thread. Arrays and Pillow images, which have little to decode and which their owner may
    change or close, are worked on in the caller's thread before the next image is drawn. ``images`` is drawn from in
    the caller's thread alone, at most ``AHEAD`` batches beyond the one that was given last.

    The threads end when all is given, when something is raised, and when the generator is closed: close it, as with
    ``contextlib.closing``, where it may be left early.

    Raises:
        Exception: what ``work`` or ``images`` raises, at the turn of the batch that it spoilt.
    """
    threads = _Threads()
    waiting: deque[list[_Task[T]]] = deque()
    try:
        for batch in _batches(images, size, work, threads):
            waiting.append(batch)
            if len(waiting) > AHEAD:
                yield _results(waiting.popleft())
        while waiting:
            yield _results(waiting.popleft())
    finally:
        threads.end()


def _batches(
    images: Iterable[Image], size: int, work: Callable[[int, Image], T], threads: _Threads
) -> Iterator[list[_Task[T]]]:
    """The images' tasks. An error of ``images`` takes the place of the batch that it broke off, and is the last."""
    numbered = enumerate(images)
    batch: list[_Task[T]] = []
    try:
        for number, image in numbered:
            task = _Task(functools.partial(work, number, image))
            if isinstance(image, (str, bytes, os.PathLike)):
                threads.submit(task)
            else:
                task.attempt()
            batch.append(task)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception as error:
        batch = [_Task(functools.partial(_raise, error))]
    if batch:
        yield batch


def _raise(error: Exception) -> NoReturn:
    raise error


def _results(batch: list[_Task[T]]) -> list[T]:
    for task in batch:
        task.attempt()
    return [task.result() for task in batch]


class _Task(Generic[T]):
    """Work on one image, done once, by whichever thread comes first, and given once."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._turn = threading.Lock()
        self._work: Callable[[], T] | None = work
        self._values: list[T] = []
        self._error: Exception | None = None

    def attempt(self) -> None:
        """Does the work, unless it is done or another thread is at it. What it raises is kept."""
        if self._turn.acquire(blocking=False):
            try:
                self._run()
            finally:
                self._turn.release()

    def result(self) -> T:
        """What the work gave or raised; waits for the thread that is at it."""
        with self._turn:
            self._run()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # else the error would hold this frame, and this frame the error
        return self._values.pop()

    def _run(self) -> None:
        if self._work is not None:
            try:
                self._values.append(self._work())
            except Exception as error:
                self._error = error
            self._work = None


class _Threads:
    """Threads that are started as tasks come in, one fewer than there are tasks: the taker of results is one too."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[_Task[Any] | None] = queue.SimpleQueue()
        self._taken = 0
        self._most = MAX_THREADS
        self._started: list[threading.Thread] = []
        self._ending = False

    def submit(self, task: _Task[Any]) -> None:
        self._taken += 1
        if self._taken == 2:
            self._most = most_threads()
        if self._most:  # else nobody would take it out again
            self._tasks.put(task)
        if len(self._started) < min(self._most, self._taken - 1):
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"decode-{len(self._started)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads, or Python is shutting down: there is the caller's own
            self._most = len(self._started)
        else:
            self._started.append(thread)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not self._ending:
                task.attempt()
        self._tasks.put(None)  # for the next thread

    def end(self) -> None:
        """Waits for the images that are being worked on; those that are not begun are left."""
        self._ending = True
        self._tasks.put(None)
        for thread in self._started:
            thread.join()
