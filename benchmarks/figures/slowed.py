"""A worker whose calls take a known part longer: ``python -m benchmarks.figures.slowed``, as ``benchmarks.worker``.

After each call it does nothing, at work, for ``PART`` of what the call took. So whatever the machine does, the true
gap to a worker without it is known.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from unittest.mock import patch

from benchmarks import worker
from runtimes import Runtime

T = TypeVar("T")

PART = 0.05


def slowed(call: Callable[[], T], part: float = PART, clock: Callable[[], float] = time.perf_counter) -> T:
    """What the call gives, after that part of its duration more."""
    start = clock()
    given = call()
    end = clock() + part * (clock() - start)
    while clock() < end:
        pass
    return given


def main() -> int:
    """As ``benchmarks.worker.main``, with every runtime's calls and bound runs slowed."""
    infer, bind = Runtime.infer, Runtime.bind
    with (
        patch.object(Runtime, "infer", lambda runtime, feeds: slowed(lambda: infer(runtime, feeds))),
        patch.object(Runtime, "bind", lambda runtime, feeds: partial(slowed, bind(runtime, feeds))),
    ):
        return worker.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
