"""What came of a configuration's processes, to test with: samples around a median, spread evenly and seeded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.machine.monitor import Conditions
from benchmarks.process.job import JobOutcome, ProcessOutcomes
from benchmarks.records.samples import ProcessSamples, Series
from runtimes.protocol import Description
from tests.benchmarks.results import QUIET

ABOUT = Description("onnxruntime", "1.32.0", "cpu", "CPUExecutionProvider", "float32", 2)


def samples(count: int, median: float, seed: int = 0) -> tuple[float, ...]:
    """So many samples around the median, evenly spread, a microsecond apart, in random order."""
    steps = (np.arange(count) - (count - 1) / 2) * 1e-6
    return tuple(round(float(value), 9) for value in np.random.default_rng(seed).permutation(median + steps))


def series(count: int, median: float, rounds: int = 1, settled: bool = True, seed: int = 0) -> Series:
    """So many samples in each round."""
    found = tuple(samples(count, median, seed + number) for number in range(rounds))
    return Series((0.5, 0.25), settled, found)


def process(
    count: int = 101,
    median: float = 0.002,
    rounds: int = 1,
    settled: bool = True,
    seed: int = 0,
    conditions: Conditions | None = QUIET,
) -> ProcessSamples:
    """Of a processor; the compute takes half as long."""
    return ProcessSamples(
        load_s=0.125,
        first_s=0.01,
        peak_bytes=50_000_000,
        baseline_bytes=20_000_000,
        starts_s=tuple(float(number) for number in range(rounds)),
        latency=series(count, median, rounds, settled, seed),
        compute=series(count, median / 2, rounds, seed=seed),
        conditions=conditions,
    )


def outcome(of: ProcessSamples | None = None) -> JobOutcome:
    """Of a process that did its work."""
    return JobOutcome("ok", description=ABOUT, sitting=of or process())


def gathered(*processes: ProcessSamples) -> ProcessOutcomes:
    """Of so many processes; of one without an argument."""
    return ProcessOutcomes([outcome(one) for one in processes or (process(),)])


def changed(found: ProcessOutcomes, **fields: object) -> ProcessOutcomes:
    """The same, with other fields in its first outcome."""
    first, *others = found.outcomes
    return ProcessOutcomes([replace(first, **fields), *others], found.predictions, found.alone)  # type: ignore[arg-type]
