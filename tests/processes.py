"""Processes that a test interrupts or waits for, also where the tests themselves run with the interrupt ignored."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def default_interrupt() -> Iterator[None]:
    """SIGINT raises ``KeyboardInterrupt`` in the block, and keeps its default action in processes started by it.

    A shell starts ``make test &`` and what cron runs with SIGINT ignored. A new process inherits that, and Python then
    leaves the signal alone: without this block, a test that sends SIGINT would wait in vain. To be entered by the main
    thread; only the start of a process needs to lie in the block, not its life.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    """Wait until a condition holds, and fail after ``limit_s`` seconds."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {limit_s:g} s"
        time.sleep(0.01)
