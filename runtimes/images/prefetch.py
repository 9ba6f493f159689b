"""Prefetching of images: a few threads decode the next batches while the caller runs the network on this one."""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, NoReturn, TypeVar

from runtimes.processors import usable_processors

MAX_THREADS = 4
"""The largest number of decoding threads of one call."""

AHEAD = 2
"""The number of batches that are read and decoded ahead of the caller."""

T = TypeVar("T")
Item = TypeVar("Item")


@functools.cache
def thread_limit() -> int:
    """Return how many threads one call may start, at most ``MAX_THREADS``.

    One processor is left to the caller's thread, which decodes too while it waits. The result is cached, because asking
    the system takes longer than decoding a small image.
    """
    return min(MAX_THREADS, usable_processors() - 1)


def prefetch(
    images: Iterable[Item], size: int, work: Callable[[int, Item], T], threads: int | None = None
) -> Generator[list[T], None, None]:
    """Apply ``work`` to each image in background threads, and yield the results in batches and in order.

    Paths and encoded bytes are processed by up to ``threads`` threads, and by the caller's thread while it waits.
    A single image starts no thread. Arrays and Pillow images are processed in the caller's thread before the next image
    is read: they need little work, and the caller may change or close them. ``images`` is read only in the caller's
    thread, at most ``AHEAD`` batches ahead.

    The threads end when all results are yielded, when an error is raised, and when the generator is closed. A caller
    that may stop early has to close the generator, for example with ``contextlib.closing``.

    Args:
        images: The images.
        size: The number of results in a batch. The last batch may be smaller.
        work: A function of the image's number, from 0, and the image. Several threads call it at once.
        threads: The largest number of threads. The default is ``thread_limit()``. More of them pay where images come
            over a network.

    Yields:
        The results of one batch.

    Raises:
        Exception: ``work`` or ``images`` raised an error. The error is raised in place of the batch it belongs to.
    """
    pool = _Threads(threads)
    waiting: deque[list[_Task[T]]] = deque()
    try:
        for batch in _batches(images, size, work, pool):
            waiting.append(batch)
            if len(waiting) > AHEAD:
                yield _results(waiting.popleft())
        while waiting:
            yield _results(waiting.popleft())
    finally:
        pool.end()


def _batches(
    images: Iterable[Item], size: int, work: Callable[[int, Item], T], pool: _Threads
) -> Iterator[list[_Task[T]]]:
    """Yield batches of tasks. If ``images`` raises an error, the last batch is a task that raises it again."""
    numbered = enumerate(images)
    batch: list[_Task[T]] = []
    try:
        for number, image in numbered:
            task = _Task(functools.partial(work, number, image))
            if isinstance(image, (str, bytes, os.PathLike)):
                pool.submit(task)
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
    """The work on one image. The first thread that calls ``attempt`` or ``result`` does it; ``result`` works once."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._lock = threading.Lock()
        self._work: Callable[[], T] | None = work
        self._values: list[T] = []
        self._error: Exception | None = None

    def attempt(self) -> None:
        """Do the work, unless it is done or another thread is doing it. An error is kept for ``result``."""
        if self._lock.acquire(blocking=False):
            try:
                self._run()
            finally:
                self._lock.release()

    def result(self) -> T:
        """Return the result of the work or raise its error, after waiting for a thread that is doing it."""
        with self._lock:
            self._run()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # breaks the reference cycle between the error and this frame
        return self._values.pop()

    def _run(self) -> None:
        if self._work is not None:
            try:
                self._values.append(self._work())
            except Exception as error:
                self._error = error
            self._work = None


class _Threads:
    """A pool of threads that grows with the tasks: one thread fewer than tasks, as the caller's thread works too."""

    def __init__(self, limit: int | None) -> None:
        self._asked_limit = limit
        self._tasks: queue.SimpleQueue[_Task[Any] | None] = queue.SimpleQueue()
        self._submitted = 0
        self._limit = MAX_THREADS if limit is None else limit
        self._started: list[threading.Thread] = []
        self._ending = False

    def submit(self, task: _Task[Any]) -> None:
        """Queue a task and start a thread if there may be one more."""
        self._submitted += 1
        if self._submitted == 2 and self._asked_limit is None:
            self._limit = thread_limit()
        if self._limit:  # without threads, no one would empty the queue
            self._tasks.put(task)
        if len(self._started) < min(self._limit, self._submitted - 1):
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"decode-{len(self._started)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or Python is shutting down: the caller's thread does the work
            self._limit = len(self._started)
        else:
            self._started.append(thread)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not self._ending:
                task.attempt()
        self._tasks.put(None)  # for the next thread

    def end(self) -> None:
        """Wait for running tasks and end the threads. Tasks that have not started are dropped."""
        self._ending = True
        self._tasks.put(None)
        for thread in self._started:
            thread.join()
