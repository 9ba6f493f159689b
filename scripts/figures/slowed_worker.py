"""A worker whose calls take a known part longer: ``python -m scripts.figures.slowed_worker PART``, and then as
``benchmarks.worker``.

After each call it does nothing, at work, for that part of what the call took. So whatever the machine does, the true
gap is known to a worker with a part of 0: what the wrapping itself takes, both have.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar
from unittest.mock import patch

from benchmarks.worker import __main__ as worker
from runtimes import Runtime

T = TypeVar("T")


def call_slowed(call: Callable[[], T], part: float, clock: Callable[[], float] = time.perf_counter) -> T:
    """What the call gives, after that part of its duration more."""
    start = clock()
    given = call()
    end = clock() + part * (clock() - start)
    while clock() < end:
        pass
    return given


def main(part: float, arguments: Sequence[str]) -> int:
    """As ``benchmarks.worker.main``, with every runtime's calls and bound runs slowed by that part."""
    infer, bind = Runtime.infer, Runtime.bind
    with (
        patch.object(Runtime, "infer", lambda runtime, feeds: call_slowed(lambda: infer(runtime, feeds), part)),
        patch.object(Runtime, "bind", lambda runtime, feeds: partial(call_slowed, bind(runtime, feeds), part)),
    ):
        return worker.main(arguments)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
