"""The time of an int8 graph with float layers against the same graph without them, measured in turns."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import runtimes
from exporter.format import count
from exporter.proportions import Interval
from runtimes.artifacts.manifest import Slowdown
from runtimes.protocol import Array

if TYPE_CHECKING:
    import onnx

ROUNDS = 20
"""The number of rounds. In each, both graphs run for ``ROUND_S``, in turned order."""

ROUND_S = 0.03
"""The least time of one graph in a round, in seconds."""

WARM_CALLS = 3
"""The number of calls of each graph before the first round."""

_BELOW = 5
"""The rank of the ends of the interval. Below the 6th of 20 sorted values lies the median with 2 % probability."""


def measure_slowdown(
    typed: onnx.ModelProto,
    plain: onnx.ModelProto,
    images: Array,
    clock: Callable[[], float] = time.perf_counter,
) -> Slowdown:
    """Measure how much longer a graph takes than another one, with the default backend and all processors.

    The call blocks for a few seconds. Only the inference is timed, without copies of inputs.

    Args:
        typed: The graph with float layers.
        plain: The graph without them.
        images: One batch as both graphs take it, float32 (n, c, h, w).
        clock: Returns the time in seconds.

    Raises:
        RexportError: No installed backend runs the graphs, or the disk fails.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        calls = []
        for name, graph in (("typed", typed), ("plain", plain)):
            path = folder / f"{name}.onnx"
            path.write_bytes(graph.SerializeToString())
            runtime = stack.enter_context(runtimes.open(path))
            calls.append(runtime.bind({runtime.inputs[0].name: images}))
        ratios = _time_rounds(calls[0], calls[1], clock)
        description = runtime.description
    return Slowdown(
        ratio=statistics.median(ratios),
        interval=median_interval(ratios),
        runtime=f"{description.backend} {description.version}",
        threads=description.threads,
        batch=len(images),
        rounds=len(ratios),
    )


def _time_rounds(typed: Callable[[], None], plain: Callable[[], None], clock: Callable[[], float]) -> list[float]:
    """Return the ratio of the median times of both calls in each round."""
    both = (typed, plain)
    slowest_s = max(_times(call, WARM_CALLS, clock)[-1] for call in both)
    number = max(1, math.ceil(ROUND_S / slowest_s)) if slowest_s else 1
    ratios = []
    for turn in range(ROUNDS):
        medians = {}
        for call in both if turn % 2 else reversed(both):
            medians[call] = statistics.median(_times(call, number, clock))
        ratios.append(medians[typed] / medians[plain])
    return ratios


def _times(call: Callable[[], None], number: int, clock: Callable[[], float]) -> list[float]:
    times = []
    for _ in range(number):
        start = clock()
        call()
        times.append(clock() - start)
    return times


def median_interval(values: Sequence[float]) -> Interval:
    """Return the 95 % interval of the median of ``ROUNDS`` values: two of the sorted values, for any distribution."""
    ordered = sorted(values)
    return ordered[_BELOW], ordered[-1 - _BELOW]


def describe_slowdown(slowdown: Slowdown) -> str:
    """Return the cost of float layers as text, for example ``1.12x the time of plain int8 [1.10, 1.14]``."""
    low, high = slowdown.interval
    return f"{slowdown.ratio:.2f}x the time of plain int8 [{low:.2f}, {high:.2f}]"


def describe_measurement(slowdown: Slowdown) -> str:
    """Return how a slowdown was measured, as text."""
    return (
        f"{slowdown.runtime}, {count(slowdown.threads, 'thread')}, batch {slowdown.batch}, median of "
        f"{slowdown.rounds} rounds in turns, 95 % interval"
    )
