"""Micro-batching: requests that arrive while a network is busy share its next run.

There is no thread of the batcher's own. The thread that adds a request to an idle network runs it, and goes on with the
requests that were added meanwhile until none is left; threads that find the network busy only leave their request. A
single client therefore waits for no other thread, and many clients fill batches without a delay.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from runtimes.errors import ResourceError
from runtimes.serving.settings import ServingSettings
from runtimes.tensors.spec import Array, Arrays
from runtimes.tensors.validation import check_rows

Resolve = Callable[["Arrays | Exception"], None]
"""Takes the outputs of a request or the error in their place, in any thread."""

_WEIGHT = 0.1
"""The share of the newest batch in the average time of a request."""


@dataclass(eq=False)
class QueuedRequest:
    """A request that has a place in the queue of a network.

    Attributes:
        deadline_s: The time, by ``time.monotonic``, after which the request is refused without inference.
        resolve: Takes the outputs, or the error in their place. It is called at most once.
        feeds: The inputs by name, from ``Batcher.add`` on.
        rows: The size of the batch dimension of the inputs.
        added_s: The time when the inputs were complete.
    """

    deadline_s: float
    resolve: Resolve
    feeds: Arrays = field(default_factory=dict)
    rows: int = 0
    added_s: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class NetworkBatch:
    """How a network takes batches.

    Attributes:
        run: Runs the network on inputs by name, and returns its outputs.
        largest: The number of rows of one run, at most. 0 means that the network has no batch dimension: each request
            is a run of its own.
        fixed: The number of rows that each run must have, or ``None`` if any number will do.
    """

    run: Callable[[Arrays], Arrays]
    largest: int
    fixed: int | None


def _observe_nothing(rows: int, duration_s: float) -> None:
    """Stand in for the metrics of a server."""


class Batcher:
    """The queue of one network, and its runs.

    All methods may be called from many threads at once.

    Args:
        network: The network.
        settings: The limits.
        observe: Takes the number of rows and the seconds of each run.
    """

    def __init__(
        self,
        network: NetworkBatch,
        settings: ServingSettings,
        observe: Callable[[int, float], None] = _observe_nothing,
    ) -> None:
        self._network = network
        self._settings = settings
        self._observe = observe
        self._lock = threading.Lock()
        self._added = threading.Condition(self._lock)
        self._waiting: deque[QueuedRequest] = deque()
        self._admitted = 0
        self._busy = False
        self._request_s = 0.0

    @property
    def admitted(self) -> int:
        """The number of requests that have a place: those in preparation, waiting, and in the running batch."""
        return self._admitted

    @property
    def request_s(self) -> float:
        """The usual seconds of the network for one request, judged by the last batches; 0 before the first."""
        return self._request_s

    @property
    def expected_wait_s(self) -> float:
        """The seconds until a request that is admitted now would run, judged by the last batches."""
        return self._admitted * self._request_s

    def admit(self, resolve: Resolve) -> QueuedRequest:
        """Give a request a place in the queue.

        Each admitted request ends with exactly one call of ``add``, ``fail`` or ``withdraw``, or more of them.

        Args:
            resolve: As in ``QueuedRequest``.

        Raises:
            ResourceError: The queue is full, or the request could not run before its deadline.
        """
        with self._lock:
            self.check_place()
            self._admitted += 1
        return QueuedRequest(time.monotonic() + self._settings.timeout_s, resolve)

    def check_place(self) -> None:
        """Check that a request could get a place now.

        Raises:
            ResourceError: The queue is full, or the request could not run before its deadline.
        """
        if self._admitted >= self._settings.queue:
            raise ResourceError(
                f"the queue is full: {self._admitted} requests are waiting",
                code="queue-full",
                hint="try again later",
            )
        if self.expected_wait_s > self._settings.timeout_s:
            raise ResourceError(
                f"the request would wait longer than {self._settings.timeout_s:g} s",
                code="queue-too-slow",
                hint="try again later",
            )

    def add(self, request: QueuedRequest, feeds: Arrays) -> None:
        """Add the inputs of an admitted request, and run the network if no other thread does.

        Args:
            request: The request.
            feeds: The checked inputs by name. They are not changed, and are not used after the request is resolved.
        """
        request.feeds = feeds
        request.rows = len(next(iter(feeds.values()))) if self._network.largest else 1
        request.added_s = time.monotonic()
        with self._lock:
            if request.finished:
                return
            self._waiting.append(request)
            if self._busy:
                self._added.notify()
                return
            self._busy = True
        try:
            while batch := self._next_batch():
                self._run(batch)
        except BaseException:
            with self._lock:
                self._busy = False  # the next request runs those that still wait
            raise

    def fail(self, request: QueuedRequest, error: Exception) -> None:
        """Resolve an admitted request with an error, in place of ``add``."""
        self._finish(request, error)

    def withdraw(self, request: QueuedRequest) -> None:
        """Free the place of a request whose client is gone. It is not resolved, and not run if it still waits."""
        with self._lock:
            if request.finished:
                return
            request.finished = True
            self._admitted -= 1
            if request in self._waiting:
                self._waiting.remove(request)

    def _finish(self, request: QueuedRequest, outcome: Arrays | Exception) -> None:
        with self._lock:
            if request.finished:
                return
            request.finished = True
            self._admitted -= 1
        request.resolve(outcome)

    def _next_batch(self) -> list[QueuedRequest]:
        """Take the requests of the next run. Without any, the network is idle afterwards and the result is empty."""
        while True:
            expired: list[QueuedRequest] = []
            with self._lock:
                self._wait_for_more()
                batch = self._take(expired)
                self._busy = bool(batch or expired)
            for request in expired:
                self._finish(request, _too_late())
            if batch or not expired:
                return batch

    def _wait_for_more(self) -> None:
        """Wait until the first request has waited for ``delay_s``, or a batch is full. The caller holds the lock."""
        while self._settings.delay_s and self._waiting:
            left_s = self._waiting[0].added_s + self._settings.delay_s - time.monotonic()
            if left_s <= 0 or sum(request.rows for request in self._waiting) >= self._network.largest:
                return
            self._added.wait(left_s)

    def _take(self, expired: list[QueuedRequest]) -> list[QueuedRequest]:
        """Take the oldest request, and those behind it that fit into its run. The caller holds the lock."""
        batch: list[QueuedRequest] = []
        rows, now_s = 0, time.monotonic()
        while self._waiting:
            request = self._waiting[0]
            if request.deadline_s < now_s:
                expired.append(self._waiting.popleft())
                continue
            if batch and (rows + request.rows > self._network.largest or not _fit_together(batch[0], request)):
                break
            batch.append(self._waiting.popleft())
            rows += request.rows
        return batch

    def _run(self, batch: list[QueuedRequest]) -> None:
        start_s = time.perf_counter()
        try:
            feeds = _join(batch, self._network.fixed)
            outputs = self._network.run(feeds)
            if self._network.largest:
                check_rows(outputs, outputs, len(next(iter(feeds.values()))))
        except Exception as error:
            for request in batch:
                self._finish(request, error)
            return
        duration_s = time.perf_counter() - start_s
        mean_s = duration_s / len(batch)
        self._request_s = mean_s if not self._request_s else (1 - _WEIGHT) * self._request_s + _WEIGHT * mean_s
        first = 0
        for request in batch:
            self._finish(request, self._rows_of(outputs, first, request.rows))
            first += request.rows
        self._observe(first, duration_s)

    def _rows_of(self, outputs: Arrays, first: int, rows: int) -> Arrays:
        if not self._network.largest:
            return outputs
        return {name: array[first : first + rows] for name, array in outputs.items()}


def _fit_together(one: QueuedRequest, other: QueuedRequest) -> bool:
    """Return whether two requests can share a run: all dimensions but the first are equal."""
    return all(array.shape[1:] == other.feeds[name].shape[1:] for name, array in one.feeds.items())


def _join(batch: list[QueuedRequest], fixed: int | None) -> Arrays:
    """Return the inputs of a run: those of the requests one after the other, and zeros up to a fixed batch."""
    names = batch[0].feeds
    return {name: _join_arrays([request.feeds[name] for request in batch], fixed) for name in names}


def _join_arrays(arrays: list[Array], fixed: int | None) -> Array:
    rows = sum(len(array) for array in arrays) if fixed is not None else 0
    if fixed is not None and rows < fixed:
        first = arrays[0]
        arrays = [*arrays, np.zeros((fixed - rows, *first.shape[1:]), first.dtype)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _too_late() -> ResourceError:
    return ResourceError(
        "the request waited past its deadline and was not run", code="deadline-passed", hint="try again later"
    )
