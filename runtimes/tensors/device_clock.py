"""The clock of a device: one way to time a run for all backends that queue their work on a stream."""

from __future__ import annotations

import time
from collections.abc import Callable

from runtimes.frozen_dataclass import dataclass


@dataclass(frozen=True)
class RunTimes:
    """The times of one run on inputs that are on the device already.

    Attributes:
        device_s: The time between two events in the queue of the device, right before and right after the run. Work
            was queued ahead of the first event, so the device did not wait for the host to start the run. If the host
            launches kernels more slowly than the device runs them, the gaps between the kernels are included.
        enqueue_s: The time that the host needed to queue the run.
    """

    device_s: float
    enqueue_s: float


def time_run(
    start: Callable[[], object],
    mark_before: Callable[[], object],
    mark_after: Callable[[], object],
    elapsed_s: Callable[[], float],
) -> RunTimes:
    """Queue a run twice on one stream and return the times of the second run.

    The device works on the first run while the host queues the second one. Otherwise the device would be idle after the
    first event until the host has started the run, and the time between the events would include that wait. The same
    holds for ``trtexec``, which keeps two runs in its queue.

    Args:
        start: Queues the run.
        mark_before: Queues the first event.
        mark_after: Queues the second event.
        elapsed_s: Waits for the second event and returns the seconds between the two events.
    """
    start()
    mark_before()
    began_s = time.perf_counter()
    start()
    enqueue_s = time.perf_counter() - began_s
    mark_after()
    return RunTimes(elapsed_s(), enqueue_s)
