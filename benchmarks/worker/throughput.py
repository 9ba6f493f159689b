"""Throughput: calls from several threads at once, so that the copies of one call overlap with the runs of others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from benchmarks.records.plan import Plan
from benchmarks.records.samples import ConcurrentSeries
from benchmarks.worker.calls import REPEAT_TOLERANCE, close
from benchmarks.worker.timer import WINDOWS, Clock
from runtimes.errors import CheckFailedError
from runtimes.protocol import Arrays

LEAST_CALLS = 2
"""The minimum number of calls of each thread in a window. A backend records a run when a batch size occurs again."""


class ConcurrentCalls:
    """Calls of one runtime from ``streams`` threads, sampled turn by turn.

    Args:
        infer: The call.
        feeds: The feeds, which each thread uses in rotation.
        expected: The outputs of each feed from before the timing.
        streams: The number of threads. They stay for all windows: cuDNN keeps its choice of algorithms for each thread,
            and ONNX Runtime its recordings.
        tolerance: The limit of the difference of an output from the expected one, as a share of the largest value.
            Another thread may compute by another algorithm.
        clock: The clock.
    """

    def __init__(
        self,
        infer: Callable[[Arrays], Arrays],
        feeds: Sequence[Arrays],
        expected: Sequence[Arrays],
        streams: int,
        tolerance: float = REPEAT_TOLERANCE,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.streams = streams
        self._infer = infer
        self._feeds = feeds
        self._expected = expected
        self._tolerance = tolerance
        self._clock = clock
        self._threads = ThreadPoolExecutor(streams, "stream")
        self._own = threading.local()
        self._rates_per_s: list[float] = []

    def warm_up(self, plan: Plan) -> None:
        """Make calls in windows until the rates of three windows agree or the limit is reached."""
        rates_per_s, spent_s = list[float](), 0.0
        while spent_s < plan.warmup_limit_s:
            rates_per_s = [*rates_per_s, self._measure_rate(plan.window_s)][-WINDOWS:]
            spent_s += plan.window_s
            if len(rates_per_s) == WINDOWS and max(rates_per_s) <= min(rates_per_s) * (1 + plan.agreement):
                return

    def turn(self, duration_s: float) -> None:
        """Measure the rate of one round.

        Raises:
            CheckFailedError: The last output of a thread differs from that of the same call before the timing.
        """
        self._rates_per_s.append(self._measure_rate(duration_s))

    def series(self) -> ConcurrentSeries:
        """Return the rates of all rounds so far."""
        return ConcurrentSeries(self.streams, tuple(self._rates_per_s))

    def _measure_rate(self, duration_s: float) -> float:
        """Return the calls per second of all threads together in a window of ``duration_s``, at least."""
        window = _Window(duration_s, threading.Barrier(self.streams), self.streams)
        try:
            futures = [self._threads.submit(self._call_in, window, number) for number in range(self.streams)]
        except BaseException:  # a thread cannot be started, and the others would wait for it
            window.barrier.abort()
            raise
        wait(futures)
        # A thread that failed broke the barrier, where others may have waited: its error is the cause of theirs.
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error
        return sum(future.result() for future in futures)

    def _call_in(self, window: _Window, number: int) -> float:
        """Make calls until every thread has passed the end of the window, and return the rate of this thread.

        A thread that has passed the end goes on without counting, so that the others are measured under full load.
        """
        position, calls, taken_s = number, 0, 0.0
        try:
            self._prepare_thread(number)
            window.barrier.wait()
            start = self._clock()
            while not taken_s or window.open_threads > 0:
                outputs = self._infer(self._feeds[position % len(self._feeds)])
                position += 1
                now = self._clock()
                calls += not taken_s
                if not taken_s and calls >= LEAST_CALLS and now - start >= window.duration_s:
                    taken_s = now - start
                    window.leave()
        except BaseException:
            window.end()
            raise
        self._check(outputs, (position - 1) % len(self._feeds))
        return calls / taken_s

    def _prepare_thread(self, number: int) -> None:
        """Make the first calls of this thread, which are not timed."""
        if not hasattr(self._own, "is_prepared"):
            for _ in range(LEAST_CALLS):
                self._infer(self._feeds[number % len(self._feeds)])
            self._own.is_prepared = True

    def _check(self, outputs: Arrays, position: int) -> None:
        for name, expected in self._expected[position].items():
            if not close(outputs[name], expected, self._tolerance):
                raise CheckFailedError(
                    f"output {name!r} of a call beside {self.streams - 1} others differs from the output of the same "
                    "call before the timing",
                    code="concurrent-output-changed",
                )


class _Window:
    """A time in which threads call. ``open_threads`` is the number of those that have not passed its end."""

    def __init__(self, duration_s: float, barrier: threading.Barrier, threads: int) -> None:
        self.duration_s = duration_s
        self.barrier = barrier
        self.open_threads = threads
        self._lock = threading.Lock()

    def leave(self) -> None:
        with self._lock:
            self.open_threads -= 1

    def end(self) -> None:
        """End the window of the other threads early: one of them failed."""
        self.barrier.abort()
        with self._lock:
            self.open_threads = 0
